package db

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Table logs is divided by time, so that old lines can be dropped at once:
//
//	logs_default                    before the first partition: lines that came with an
//	                                old time, and the whole table of WalT 10.0
//	logs_20260714_000000, ...       one after the other without a gap, to beyond now
//
// A constraint says where logs_default ends. It is the truth about that, and spares
// PostgreSQL looking through it whenever a partition is made.

// retention is what the site file says of logs; zero is no limit.
type retention struct {
	age  time.Duration
	size int64
}

// part is one partition with bounds.
type part struct {
	Name     string
	From, To time.Time
	Size     int64
}

// parting is how table logs is divided.
type parting struct {
	begin   time.Time // the end of logs_default
	parts   []part    // by time
	olds    int64     // size of logs_default
	hasOlds bool      // there are lines in it
	checked bool      // PostgreSQL has checked the constraint
}

// end is where the last partition ends.
func (p *parting) end() time.Time {
	if len(p.parts) == 0 {
		return p.begin
	}
	return p.parts[len(p.parts)-1].To
}

const (
	// lockTimeout bounds how long the division waits for readers of histories, and
	// others then wait for it. What cannot be done now is done a little later.
	lockTimeout = "1s"

	maintenance = time.Minute
	// A history that has kept old lines from being dropped for so long is ended.
	historyPatience = time.Hour
)

// widths are the lengths of partitions.
var widths = []time.Duration{30 * 24 * time.Hour, 7 * 24 * time.Hour, 24 * time.Hour, 6 * time.Hour, time.Hour}

// width returns the length of new partitions: so that an eighth at most is kept longer
// than asked for, if that is possible.
func (r retention) width() time.Duration {
	for _, w := range widths {
		if r.age == 0 || w <= r.age/8 {
			return w
		}
	}
	return widths[len(widths)-1]
}

// partLogs divides table logs, unless it is already. The table of WalT 10.0 becomes
// the partition of all that is older than begin, which is soon; nothing of it is moved
// or read.
func (s *store) partLogs(ctx context.Context, tx pgx.Tx) error {
	var kind, old string
	err := tx.QueryRow(ctx, `SELECT coalesce((SELECT relkind::text FROM pg_class WHERE oid = to_regclass('public.logs')), ''),
		coalesce(to_regclass('public.logs_default')::text, '')`).Scan(&kind, &old)
	if err != nil || kind == "p" {
		return err
	}
	if old != "" {
		return errors.New("cannot divide table logs: there is a table logs_default already")
	}
	begin := s.now().Truncate(time.Hour)
	if kind != "" {
		if _, err := tx.Exec(ctx, logsIndexes, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		var last *time.Time
		if err := tx.QueryRow(ctx, `SELECT max(timestamp) FROM logs WHERE timestamp < 'infinity'`).Scan(&last); err != nil {
			return err
		}
		begin = begin.Add(2 * time.Hour)
		if last != nil && last.After(begin) {
			begin = last.Truncate(time.Hour).Add(time.Hour)
		}
		if _, err := tx.Exec(ctx, `
			ALTER TABLE logs RENAME TO logs_default;
			ALTER INDEX logs_timestamp_idx RENAME TO logs_default_timestamp_idx;
			ALTER INDEX logs_stream_id_idx RENAME TO logs_default_stream_id_idx`, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
	}
	attach := `CREATE TABLE logs_default PARTITION OF logs DEFAULT`
	if kind != "" {
		attach = `ALTER TABLE logs ATTACH PARTITION logs_default DEFAULT`
	}
	if _, err := tx.Exec(ctx, logsTable+logsIndexes+attach+`;
		ALTER TABLE logs_default ADD CONSTRAINT logs_default_before CHECK (timestamp < `+literal(begin)+`) NOT VALID`, pgx.QueryExecModeSimpleProtocol); err != nil {
		return err
	}
	if kind != "" {
		return nil // tend goes on, when lines can be stored already
	}
	if _, err := tx.Exec(ctx, `ALTER TABLE logs_default VALIDATE CONSTRAINT logs_default_before`); err != nil {
		return err
	}
	return s.extend(ctx, tx)
}

// literal is a time in SQL, where parameters are not possible.
func literal(t time.Time) string { return t.UTC().Format(`'2006-01-02 15:04:05+00'`) }

// readParting looks at the division.
func readParting(ctx context.Context, tx pgx.Tx) (*parting, error) {
	p := &parting{}
	err := tx.QueryRow(ctx, `
		SELECT (regexp_match(pg_get_constraintdef(oid), '''([^'']+)'''))[1]::timestamptz, convalidated,
			pg_total_relation_size(conrelid), EXISTS (SELECT 1 FROM logs_default)
		FROM pg_constraint WHERE conname = 'logs_default_before' AND conrelid = to_regclass('public.logs_default')`).
		Scan(&p.begin, &p.checked, &p.olds, &p.hasOlds)
	if err != nil {
		return nil, err
	}
	p.parts, err = rows[part](ctx, tx, `
		SELECT name, bounds[1]::timestamptz, bounds[2]::timestamptz, size FROM (
			SELECT c.relname AS name, pg_total_relation_size(c.oid) AS size,
				regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\) TO \(''([^'']+)''\)') AS bounds
			FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'public.logs'::regclass) AS found
		WHERE bounds IS NOT NULL ORDER BY 2`)
	return p, err
}

// extend makes partitions, to beyond the next one after now.
func (s *store) extend(ctx context.Context, tx pgx.Tx) error {
	p, err := readParting(ctx, tx)
	if err != nil {
		return err
	}
	now, width := s.now(), s.retention.width()
	for from := p.end(); from.Before(now.Add(width)); {
		to := from // a server that was off for long makes one partition of that time
		if to.Before(now) {
			to = now
		}
		to = to.Add(width).Truncate(min(width, 24*time.Hour))
		if err := addPart(ctx, tx, from, to); err != nil {
			return err
		}
		from = to
	}
	return nil
}

func addPart(ctx context.Context, tx pgx.Tx, from, to time.Time) error {
	_, err := tx.Exec(ctx, `CREATE TABLE logs_`+from.UTC().Format("20060102_150405")+` PARTITION OF logs FOR VALUES FROM (`+literal(from)+`) TO (`+literal(to)+`)`)
	return err
}

// exclusively runs f while nobody uses the logs. Locks are taken in the order in which
// those who store lines take theirs.
func (s *store) exclusively(ctx context.Context, f func(tx pgx.Tx) error) error {
	return s.transaction(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '`+lockTimeout+`';
			LOCK TABLE logstreams, logs IN ACCESS EXCLUSIVE MODE`, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			return err
		}
		return f(tx)
	})
}

// tend keeps the division up with time and with the limits of the site file, until ctx
// ends.
func (s *store) tend(ctx context.Context) {
	var since time.Time
	for {
		if !s.roleMade { // an administrator may have allowed it meanwhile
			s.roleMade = s.prepareRole(ctx) == nil
		}
		err := s.tendOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if since = s.endBlocking(err, since); err != nil && since.IsZero() {
			s.report(fmt.Sprintf("cannot tend the log lines: %v", err))
		}
		select {
		case <-time.After(maintenance):
		case <-ctx.Done():
			return
		}
	}
}

// endBlocking ends the histories that have been in the way for too long. err is how the
// latest turn ended, and since when turns have been blocked before; it returns that of now,
// zero if nothing is in the way.
func (s *store) endBlocking(err error, since time.Time) time.Time {
	now := s.now()
	switch {
	case !isLocked(err):
		return time.Time{}
	case since.IsZero():
		return now
	case now.Sub(since) > historyPatience:
		s.closeHistories() // first: that line, too, may need what they are in the way of
		s.report("readers of log histories were ended: they kept old lines from being dropped")
	}
	return since
}

func isLocked(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "55P03" // lock_not_available
}

// tendOnce does what is due.
func (s *store) tendOnce(ctx context.Context) error {
	p, err := s.parting(ctx)
	if err != nil {
		return err
	}
	if !p.checked { // reads all of the table of WalT 10.0, while it is used
		_, err := s.pool.Exec(ctx, `ALTER TABLE logs_default VALIDATE CONSTRAINT logs_default_before`)
		if err != nil {
			return explain(err)
		}
	}
	now, limits := s.now(), s.retention
	if _, err := s.pool.Exec(ctx, dropBatches, now.Add(-batchesAreOf)); err != nil {
		return explain(err)
	}
	if p.end().Before(now.Add(limits.width())) {
		if err := s.exclusively(ctx, func(tx pgx.Tx) error { return s.extend(ctx, tx) }); err != nil {
			return err
		}
	}
	if i := slices.IndexFunc(p.parts, func(part part) bool { return part.To.After(now) && !part.From.After(now) }); i >= 0 &&
		limits.size > 0 && p.parts[i].Size > limits.size/8 && now.Sub(p.parts[i].From) > time.Minute {
		if err := s.cutPart(ctx, p.parts[i], p.parts[i+1:], now); err != nil {
			return err
		}
	}
	return s.dropOld(ctx, now, limits)
}

func (s *store) parting(ctx context.Context) (p *parting, err error) {
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		p, err = readParting(ctx, tx)
		return err
	})
	return p, err
}

// cutPart ends the partition of now early, because it is large: what is dropped at once
// must not be too much. later are the partitions after it, which are still empty.
func (s *store) cutPart(ctx context.Context, p part, later []part, now time.Time) error {
	cut := now.Truncate(time.Second).Add(2 * time.Second) // times of lines are at most a second ahead
	return s.exclusively(ctx, func(tx pgx.Tx) error {
		for _, l := range later {
			var used bool
			if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM `+l.Name+`)`).Scan(&used); err != nil {
				return err
			}
			if used {
				return nil
			}
			if _, err := tx.Exec(ctx, `DROP TABLE `+l.Name); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `ALTER TABLE logs DETACH PARTITION `+p.Name+`;
			ALTER TABLE logs ATTACH PARTITION `+p.Name+` FOR VALUES FROM (`+literal(p.From)+`) TO (`+literal(cut)+`)`, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			return err
		}
		return s.extend(ctx, tx)
	})
}

// dropOld drops the partitions that the site file does not keep.
func (s *store) dropOld(ctx context.Context, now time.Time, limits retention) error {
	if limits == (retention{}) {
		return nil
	}
	p, err := s.parting(ctx)
	if err != nil {
		return err
	}
	total := p.olds
	for _, part := range p.parts {
		total += part.Size
	}
	begin, size, reason := p.begin, int64(0), ""
	if begin.After(now) {
		return nil // the table of WalT 10.0 is still in use
	}
	// All that ends before a moment goes, logs_default first.
	consider := func(to time.Time, used bool, s int64) bool {
		switch {
		case limits.age > 0 && to.Before(now.Add(-limits.age)):
			reason = "max_age"
		case limits.size > 0 && total > limits.size:
			reason = "max_size"
		default:
			return false
		}
		if used {
			begin = to
			size += s
			total -= s
		}
		return true
	}
	olds := consider(p.begin, p.hasOlds, p.olds) && p.hasOlds
	var names []string
	for _, part := range p.parts {
		if part.To.After(now) || !consider(part.To, true, part.Size) {
			break
		}
		names = append(names, part.Name)
	}
	if !olds && len(names) == 0 {
		return nil
	}
	err = s.exclusively(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `TRUNCATE logs_default`); err != nil {
			return err
		}
		for _, name := range names {
			if _, err := tx.Exec(ctx, `DROP TABLE `+name); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `ALTER TABLE logs_default DROP CONSTRAINT logs_default_before;
			ALTER TABLE logs_default ADD CONSTRAINT logs_default_before CHECK (timestamp < `+literal(begin)+`)`, pgx.QueryExecModeSimpleProtocol)
		return err
	})
	if err != nil {
		return err
	}
	s.report(fmt.Sprintf("log lines before %s were dropped, as %s of the site file asks: %d MB", begin.UTC().Format(time.DateTime+" UTC"), reason, (size+1<<20-1)>>20))
	return nil
}
