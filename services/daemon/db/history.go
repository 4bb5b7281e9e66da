package db

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/waltos/waltos/services/daemon/logs/ere"
)

// A block of history ends after this many records or bytes, whichever is first.
const (
	blockRecords = 4096
	blockBytes   = 1 << 20
)

// history is one open reading of log lines: a transaction with its own snapshot and
// connection. PostgreSQL sends rows as they are asked for.
type history struct {
	mu     sync.Mutex      // one call at a time
	life   context.Context // ends the query, and with it the connection, at once
	cancel context.CancelFunc
	finish func()
	tx     pgx.Tx
	query  string
	args   []any
	rows   pgx.Rows
	ended  bool
}

// selection is a LogFilter as SQL: a condition on streams, one on lines.
type selection struct {
	streams, lines []string
	args           []any
}

func (q *selection) bind(v any) string {
	q.args = append(q.args, v)
	return fmt.Sprintf("$%d", len(q.args))
}

// newSelection translates a filter (server-state 1.7, log query construction). All
// that users write is bound, never pasted.
func newSelection(f LogFilter) (*selection, error) {
	q := &selection{}
	if f.Mode != "" {
		if f.Mode != "line" && f.Mode != "chunk" {
			return nil, fmt.Errorf("cannot select log lines: no stream mode is named %q", f.Mode)
		}
		q.streams = append(q.streams, "s.mode = "+q.bind(f.Mode)+"::text::logmode")
	}
	if f.Issuers != nil {
		q.streams = append(q.streams, "d.name = ANY("+q.bind(f.Issuers)+")")
	}
	if f.StreamsRegexp != "" {
		e, err := ere.Parse(f.StreamsRegexp)
		if err != nil {
			return nil, err
		}
		q.streams = append(q.streams, "s.name ~ "+q.bind(e.Postgres()))
	}
	if f.ExcludeConsoles {
		q.streams = append(q.streams, "s.name NOT LIKE '%console'")
	}
	if f.Start != nil && *f.Start != 0 {
		q.lines = append(q.lines, "l.timestamp > to_timestamp("+q.bind(*f.Start)+")")
	}
	if f.End != nil && *f.End != 0 {
		q.lines = append(q.lines, "l.timestamp < to_timestamp("+q.bind(*f.End)+")")
	}
	if f.LineRegexp != "" {
		e, err := ere.Parse(f.LineRegexp)
		if err != nil {
			return nil, err
		}
		q.lines = append(q.lines, "l.line ~ "+q.bind(e.Postgres()))
	}
	return q, nil
}

func where(conditions ...string) string {
	if len(conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(conditions, " AND ")
}

const streamTables = ` FROM logstreams s JOIN devices d ON d.mac = s.issuer_mac`

func (s *store) countLogs(ctx context.Context, f LogFilter) (n int64, err error) {
	q, err := newSelection(f)
	if err != nil {
		return 0, err
	}
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT count(*)`+streamTables+` JOIN logs l ON l.stream_id = s.id`+
			where(append(q.streams, q.lines...)...), q.args...).Scan(&n)
	})
	return n, err
}

// openLogs takes the snapshot and reads the streams selected; the lines are asked
// for by the first nextLogs, so that the answer does not wait for a sort. The
// caller chooses the key, so that it can close a history whose answer it missed.
func (s *store) openLogs(ctx context.Context, key cursorKey, w wireHistory) (*wireOpened, error) {
	f := w.Filter
	streams, err := newSelection(LogFilter{Issuers: f.Issuers, StreamsRegexp: f.StreamsRegexp, Mode: f.Mode, ExcludeConsoles: f.ExcludeConsoles})
	if err != nil {
		return nil, err
	}
	lines, err := newSelection(LogFilter{Start: f.Start, End: f.End, LineRegexp: f.LineRegexp})
	if err != nil {
		return nil, err
	}
	select {
	case s.room <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("cannot read log lines: %d histories are being read: %w", maxHistories, ctx.Err())
	}
	// The transaction lives until closeLogs, not only for this call.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	found, h, err := s.beginHistory(life, streams, lines, streams.streams != nil, w.Count)
	if err != nil {
		stop()
		cancel()
		<-s.room
		return nil, explain(err)
	}
	h.cancel = cancel
	h.finish = func() { <-s.room }
	s.mu.Lock()
	old := s.cursors[key]
	s.cursors[key] = h
	s.mu.Unlock()
	if old != nil {
		old.close()
	}
	if !stop() { // the caller has given up, or its connection has ended
		s.closeLogs(key)
		return nil, ctx.Err()
	}
	go func() {
		select {
		case <-key.peer.Done():
		case <-life.Done():
		}
		s.closeLogs(key)
	}()
	return found, nil
}

func (s *store) beginHistory(ctx context.Context, streams, lines *selection, some, count bool) (*wireOpened, *history, error) {
	tx, err := s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, nil, err
	}
	// This first query takes the snapshot.
	found, err := rows[wireStream](ctx, tx, `SELECT s.id, coalesce(d.name, ''), coalesce(s.name, '')`+streamTables+where(streams.streams...), streams.args...)
	if err != nil {
		_ = tx.Rollback(context.Background())
		return nil, nil, err
	}
	if some {
		ids := make([]int32, len(found))
		for i, st := range found {
			ids[i] = int32(st.ID)
		}
		lines.lines = append(lines.lines, "l.stream_id = ANY("+lines.bind(ids)+")")
	}
	// Lines of the same time, which only senders can give them, are in one partition,
	// where ctid is mostly the order of arrival.
	lines.lines = append(lines.lines, "l.stream_id IS NOT NULL", "l.timestamp IS NOT NULL")
	opened := &wireOpened{Streams: found}
	none := some && len(found) == 0
	if count && !none {
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM logs l`+where(lines.lines...), lines.args...).Scan(&opened.Count); err != nil {
			_ = tx.Rollback(context.Background())
			return nil, nil, err
		}
	}
	return opened, &history{
		tx:    tx,
		life:  ctx,
		query: `SELECT l.stream_id, l.timestamp, coalesce(l.line, '') FROM logs l` + where(lines.lines...) + ` ORDER BY l.timestamp, l.ctid`,
		args:  lines.args,
		ended: none,
	}, nil
}

// nextLogs returns the next block of records, empty at the end.
func (s *store) nextLogs(ctx context.Context, key cursorKey) ([]byte, error) {
	s.mu.Lock()
	h := s.cursors[key]
	s.mu.Unlock()
	if h == nil {
		return nil, errors.New("cannot read log lines: this history has been closed")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	// A call given up by its caller ends the history: rows already taken are lost.
	defer context.AfterFunc(ctx, h.cancel)()
	return h.next()
}

func (h *history) next() ([]byte, error) {
	if h.ended {
		return nil, nil
	}
	if h.rows == nil {
		rows, err := h.tx.Query(h.life, h.query, h.args...)
		if err != nil {
			h.ended = true
			return nil, explain(err)
		}
		h.rows = rows
	}
	block := make([]byte, 0, 64<<10)
	for n := 0; n < blockRecords && len(block) < blockBytes; n++ {
		if !h.rows.Next() {
			h.ended = true
			if err := h.rows.Err(); err != nil {
				return nil, explain(err)
			}
			break
		}
		// Binary formats, as pgx asks for with prepared statements: no value is copied
		// more than once.
		v := h.rows.RawValues()
		if len(v) != 3 || len(v[0]) != 4 || len(v[1]) != 8 || len(v[2]) > math.MaxInt32 {
			h.ended = true
			return nil, errors.New("cannot read log lines: unexpected column formats")
		}
		block = appendRecord(block, binary.BigEndian.Uint32(v[0]), int64(binary.BigEndian.Uint64(v[1])), v[2])
	}
	return block, nil
}

// close ends the transaction. Rows still coming are not read: their connection is
// dropped.
func (h *history) close() {
	if !h.mu.TryLock() { // a call is reading rows
		h.cancel()
		h.mu.Lock()
	}
	defer h.mu.Unlock()
	if !h.ended {
		h.cancel()
	}
	h.ended = true
	if h.rows != nil {
		h.rows.Close()
	}
	_ = h.tx.Rollback(context.Background())
	h.cancel()
	h.finish()
}

// closeLogs is called once or more for each history.
func (s *store) closeLogs(key cursorKey) {
	s.mu.Lock()
	h := s.cursors[key]
	delete(s.cursors, key)
	s.mu.Unlock()
	if h != nil {
		h.close()
	}
}

// cursorKey names a history: numbers are chosen by each peer.
type cursorKey struct {
	peer interface{ Done() <-chan struct{} }
	id   uint64
}

func (s *store) closeHistories() {
	s.mu.Lock()
	keys := slices.Collect(maps.Keys(s.cursors))
	s.mu.Unlock()
	for _, key := range keys {
		s.closeLogs(key)
	}
}
