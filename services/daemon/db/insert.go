package db

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const copyLogs = `COPY logs (stream_id, timestamp, line) FROM STDIN (FORMAT binary)`

// insertLines stores rows as Client encodes them, in one transaction. Those of
// streams that do not exist are dropped: their device has been forgotten meanwhile.
func (s *store) insertLines(ctx context.Context, rows []byte) error {
	// Checked first: what PostgreSQL refuses must be its state, never our bytes.
	if err := eachRow(rows, func(int64, []byte) {}); err != nil {
		return err
	}
	err := s.copyRows(ctx, rows)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "23503" { // foreign_key_violation
		err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			kept, err := existing(ctx, tx, rows)
			if err != nil {
				return err
			}
			return copyTo(ctx, tx.Conn(), kept)
		})
	}
	return explain(err)
}

// copyRows makes one transaction of one command.
func (s *store) copyRows(ctx context.Context, rows []byte) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	return copyTo(ctx, conn.Conn(), rows)
}

func copyTo(ctx context.Context, conn *pgx.Conn, rows []byte) error {
	body := io.MultiReader(bytes.NewReader(copyHeader), bytes.NewReader(rows), bytes.NewReader(copyTrailer))
	_, err := conn.PgConn().CopyFrom(ctx, body, copyLogs)
	return err
}

// existing returns the rows whose stream exists; it locks those streams until the
// end of the transaction, so that none disappears before COPY.
func existing(ctx context.Context, tx pgx.Tx, rows []byte) ([]byte, error) {
	var ids []int64
	if err := eachRow(rows, func(stream int64, _ []byte) { ids = append(ids, stream) }); err != nil {
		return nil, err
	}
	slices.Sort(ids)
	found, err := tx.Query(ctx, `SELECT id FROM logstreams WHERE id = ANY($1) FOR KEY SHARE`, slices.Compact(ids))
	if err != nil {
		return nil, err
	}
	known, err := pgx.CollectRows(found, pgx.RowTo[int64])
	if err != nil {
		return nil, err
	}
	slices.Sort(known)
	kept := make([]byte, 0, len(rows))
	err = eachRow(rows, func(stream int64, row []byte) {
		if _, ok := slices.BinarySearch(known, stream); ok {
			kept = append(kept, row...)
		}
	})
	return kept, err
}

// streamID finds or creates a stream; 0 if its device is unknown.
func (s *store) streamID(ctx context.Context, st Stream) (id int64, err error) {
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		// The lock makes two calls for one device wait for each other, because nothing
		// in the schema keeps stream names unique; it does not stop inserts of lines.
		tag, err := tx.Exec(ctx, `SELECT 1 FROM devices WHERE mac = $1 FOR NO KEY UPDATE`, st.IssuerMAC)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		err = tx.QueryRow(ctx, `SELECT id FROM logstreams WHERE issuer_mac = $1 AND name = $2 ORDER BY id LIMIT 1`, st.IssuerMAC, st.Name).Scan(&id)
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		mode := "line"
		if st.Chunk {
			mode = "chunk"
		}
		return tx.QueryRow(ctx, `INSERT INTO logstreams (issuer_mac, name, mode) VALUES ($1, $2, $3::text::logmode) RETURNING id`,
			st.IssuerMAC, st.Name, mode).Scan(&id)
	})
	return id, err
}
