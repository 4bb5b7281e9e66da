package db

import (
	"context"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/daemon/trackexec"
)

// link is the connection of a Client, whose calls are traced.
type link struct{ *connector.Client }

func (l link) Call(ctx context.Context, method string, arg, reply any) error {
	ctx, span := trackexec.Begin(ctx, trackexec.Task, method)
	span.Note("server-db", -1)
	err := l.Client.Call(ctx, method, arg, reply)
	span.End(err)
	return err
}

// tracer records the statements that a pool executes: pgx.QueryTracer.
type tracer struct{ recorder *trackexec.Recorder }

type statementKey struct{}

func (t tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	ctx, span := t.recorder.Begin(ctx, trackexec.SQL, firstWords(data.SQL))
	return context.WithValue(ctx, statementKey{}, span)
}

func (t tracer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	span, _ := ctx.Value(statementKey{}).(trackexec.Span)
	span.Note("", data.CommandTag.RowsAffected())
	span.End(data.Err)
}

// copyFrom executes a COPY, which a tracer of pgx is not told of.
func copyFrom(ctx context.Context, conn *pgx.Conn, body io.Reader, statement string) error {
	ctx, span := trackexec.Begin(ctx, trackexec.SQL, firstWords(statement))
	tag, err := conn.PgConn().CopyFrom(ctx, body, statement)
	span.Note("", tag.RowsAffected())
	span.End(err)
	return err
}

// statementLength is how much of a statement names it.
const statementLength = 80

// firstWords returns the beginning of a statement on one line.
func firstWords(statement string) string {
	const enough = 2 * statementLength // white space shrinks
	statement = strings.Join(strings.Fields(statement[:min(len(statement), enough)]), " ")
	if len(statement) > statementLength {
		statement = statement[:statementLength] + "…"
	}
	return strings.ToValidUTF8(statement, "")
}
