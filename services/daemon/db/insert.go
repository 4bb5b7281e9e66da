package db

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const copyLogs = `COPY logs (stream_id, timestamp, line) FROM STDIN (FORMAT binary)`

// insertLines stores rows as Client encodes them, in one transaction, unless their batch is
// stored already. Those of streams that do not exist are dropped: their device has been
// forgotten meanwhile.
func (s *store) insertLines(ctx context.Context, batch Batch, rows []byte) error {
	var streams []int32 // in the order of their runs
	err := eachRow(rows, func(stream uint32, _ []byte) {
		if n := len(streams); n == 0 || streams[n-1] != int32(stream) {
			streams = append(streams, int32(stream))
		}
	})
	if err != nil {
		return err
	}
	if err := s.hasSpace(); err != nil {
		return err
	}
	slices.Sort(streams)
	streams = slices.Compact(streams)
	err = s.copyRows(ctx, batch, rows, streams)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "23514" { // check_violation: the clock has jumped beyond the last partition
		if err := s.exclusively(ctx, func(tx pgx.Tx) error { return s.extend(ctx, tx) }); err != nil {
			return err
		}
		err = s.copyRows(ctx, batch, rows, streams)
	}
	return err
}

func (s *store) copyRows(ctx context.Context, batch Batch, rows []byte, streams []int32) error {
	return s.transaction(ctx, func(tx pgx.Tx) error {
		known, err := s.take(ctx, tx, batch, streams)
		if err != nil {
			return err
		}
		if len(known) < len(streams) {
			rows = keep(rows, known)
		}
		if len(rows) == 0 {
			return nil
		}
		if err := s.prepareCopy(ctx, tx); err != nil {
			return err
		}
		body := io.MultiReader(bytes.NewReader(copyHeader), bytes.NewReader(rows), bytes.NewReader(copyTrailer))
		return copyFrom(ctx, tx.Conn(), body, copyLogs)
	})
}

const (
	// lockStreams keeps streams until the end of the transaction. The order prevents
	// deadlocks with deleteSteps.
	lockStreams = `SELECT id FROM logstreams WHERE id = ANY($1) ORDER BY id FOR KEY SHARE`

	// takeBatch is lockStreams, which finds none if the batch, or one after it, is stored. It
	// waits for a transaction that an earlier server-db has left and that may still store it.
	takeBatch = `
		WITH batch AS (
			INSERT INTO logs_batches AS known (sender, last, stored) VALUES ($2, $3, $4)
			ON CONFLICT (sender) DO UPDATE SET last = excluded.last, stored = excluded.stored WHERE known.last < excluded.last
			RETURNING 1)
		SELECT id FROM logstreams WHERE id = ANY($1) AND EXISTS (SELECT 1 FROM batch) ORDER BY id FOR KEY SHARE OF logstreams`

	// dropBatches forgets senders: they have ended long ago.
	dropBatches  = `DELETE FROM logs_batches WHERE stored < $1`
	batchesAreOf = 30 * 24 * time.Hour
)

// take returns those of the streams that rows of the batch are to be stored of.
func (s *store) take(ctx context.Context, tx pgx.Tx, batch Batch, streams []int32) ([]int32, error) {
	sql, args := lockStreams, []any{streams}
	if batch != (Batch{}) {
		sql, args = takeBatch, append(args, batch.Sender, batch.Number, s.now())
	}
	found, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, pgx.RowTo[int32])
}

// prepareCopy sets up a transaction that stores lines. Its commit does not wait for the
// disk: PostgreSQL writes it at most three times wal_writer_delay, 0.6 seconds, later.
// The streams are known to exist, and cannot go, so that PostgreSQL need not look for
// the one of each line, which would take longer than storing it.
func (s *store) prepareCopy(ctx context.Context, tx pgx.Tx) error {
	set := `SET LOCAL synchronous_commit = off`
	if s.bulk.Load() {
		set += `; SET LOCAL session_replication_role = replica`
	}
	_, err := tx.Exec(ctx, set, pgx.QueryExecModeSimpleProtocol)
	return err
}

// keep returns the rows of some streams.
func keep(rows []byte, streams []int32) []byte {
	kept := make([]byte, 0, len(rows))
	_ = eachRow(rows, func(stream uint32, row []byte) { // read before
		if _, ok := slices.BinarySearch(streams, int32(stream)); ok {
			kept = append(kept, row...)
		}
	})
	return kept
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
