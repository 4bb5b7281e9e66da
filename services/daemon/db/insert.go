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

// lot is rows as Client encodes them, that are well formed.
type lot struct {
	batch   Batch
	rows    []byte
	streams []int32 // of the rows, sorted
}

// readLot checks rows.
func readLot(w wireBatch) (*lot, error) {
	l := &lot{batch: w.Batch, rows: w.Rows}
	err := eachRow(l.rows, func(stream uint32, _ []byte) {
		if n := len(l.streams); n == 0 || l.streams[n-1] != int32(stream) {
			l.streams = append(l.streams, int32(stream))
		}
	})
	slices.Sort(l.streams)
	l.streams = slices.Compact(l.streams)
	return l, err
}

// stageLines keeps rows until insertLines is told to store them, or others are staged.
func (s *store) stageLines(w wireBatch) error {
	l, err := readLot(w)
	if err == nil {
		s.staged.Store(l)
	}
	return err
}

// insertLines stores the rows of a batch. It returns false if they are said to be staged
// and are not: this process has started meanwhile, or others have been staged.
func (s *store) insertLines(ctx context.Context, w wireBatch) (known bool, err error) {
	var l *lot
	if w.Staged {
		if l = s.staged.Swap(nil); l == nil || l.batch != w.Batch {
			return false, nil
		}
	} else {
		l, err = readLot(w)
	}
	if err == nil {
		err = s.insertLot(ctx, l)
	}
	return err == nil, err
}

// insertLot stores rows in one transaction, unless their batch is stored already. Those of
// streams that do not exist are dropped: their device has been forgotten meanwhile.
func (s *store) insertLot(ctx context.Context, l *lot) error {
	if err := s.hasSpace(); err != nil {
		return err
	}
	err := s.copyRows(ctx, l)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "23514" { // check_violation: the clock has jumped beyond the last partition
		if err := s.exclusively(ctx, func(tx pgx.Tx) error { return s.extend(ctx, tx) }); err != nil {
			return err
		}
		err = s.copyRows(ctx, l)
	}
	return err
}

func (s *store) copyRows(ctx context.Context, l *lot) error {
	return s.transaction(ctx, func(tx pgx.Tx) error {
		known, err := s.take(ctx, tx, l)
		if err != nil {
			return err
		}
		rows := l.rows
		if len(known) < len(l.streams) {
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

// take returns those of the streams that rows are to be stored of.
func (s *store) take(ctx context.Context, tx pgx.Tx, l *lot) ([]int32, error) {
	sql, args := lockStreams, []any{l.streams}
	if l.batch != (Batch{}) {
		sql, args = takeBatch, append(args, l.batch.Sender, l.batch.Number, s.now())
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

const (
	// lockDevices makes calls for one device wait for each other, because nothing in the
	// schema keeps stream names unique; it does not stop inserts of lines.
	lockDevices = `SELECT mac FROM devices WHERE mac = ANY($1) ORDER BY mac FOR NO KEY UPDATE`

	findStreams = `
		SELECT w.at, min(s.id) FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w (mac, name, at)
		JOIN logstreams s ON s.issuer_mac = w.mac AND s.name = w.name GROUP BY w.at`

	addStream = `INSERT INTO logstreams (issuer_mac, name, mode) VALUES ($1, $2, $3::text::logmode) RETURNING id`
)

// streamIDs finds or creates streams; 0 stands for those whose device is unknown.
func (s *store) streamIDs(ctx context.Context, streams []Stream) ([]int64, error) {
	ids := make([]int64, len(streams))
	macs, names := make([]string, len(streams)), make([]string, len(streams))
	for i, st := range streams {
		macs[i], names[i] = st.IssuerMAC, st.Name
	}
	err := s.transaction(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, lockDevices, macs)
		if err != nil {
			return err
		}
		var mac string
		known := map[string]bool{}
		if _, err := pgx.ForEachRow(rows, []any{&mac}, func() error { known[mac] = true; return nil }); err != nil {
			return err
		}
		if rows, err = tx.Query(ctx, findStreams, macs, names); err != nil {
			return err
		}
		var at, id int64
		if _, err := pgx.ForEachRow(rows, []any{&at, &id}, func() error { ids[at-1] = id; return nil }); err != nil {
			return err
		}
		type key struct{ mac, name string }
		added := map[key]int64{}
		for i, st := range streams {
			k := key{st.IssuerMAC, st.Name}
			if ids[i] != 0 || !known[st.IssuerMAC] {
				continue
			}
			if added[k] == 0 {
				mode := "line"
				if st.Chunk {
					mode = "chunk"
				}
				if err := tx.QueryRow(ctx, addStream, st.IssuerMAC, st.Name, mode).Scan(&id); err != nil {
					return err
				}
				added[k] = id
			}
			ids[i] = added[k]
		}
		return nil
	})
	return ids, err
}
