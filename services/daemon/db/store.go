package db

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sys/unix"
)

const (
	// maxConnections to PostgreSQL, whose default limit is 100, and the share of them
	// that readers of histories may hold, each for as long as its client takes.
	maxConnections = 40
	maxHistories   = 32
)

// store executes the calls of Client.
type store struct {
	pool *pgxpool.Pool
	options
	room chan struct{} // holds one value per history that is open

	bulk           atomic.Bool // see prepareCopy
	state          atomic.Pointer[state]
	roleMade       bool                   // used by the goroutine that prepares and tends
	promptPassword atomic.Pointer[string] // of SQLRole on an external database; nil: none

	staged atomic.Pointer[lot] // log lines that came before they are to be stored; nil: none

	mu      sync.Mutex
	cursors map[cursorKey]*history
}

// options are what a store works with, besides its connections.
type options struct {
	dsn       string
	zone      string // of the times in databases before version 10.0
	retention retention
	disk      string // folder on the disk of our own database; "": not known
	now       func() time.Time
}

// reserve is the space of a disk that log lines leave to the rest. Without it PostgreSQL
// could not write its journal, and would stop altogether.
const reserve = 128 << 20

// hasSpace tells whether there is room for log lines.
func (s *store) hasSpace() error {
	if s.disk == "" || !s.own() {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(s.disk, &fs); err != nil {
		return nil // PostgreSQL will tell
	}
	// A small disk keeps a sixteenth.
	unit := uint64(fs.Bsize)
	if left := fs.Bavail * unit; left < min(reserve, fs.Blocks*unit/16) {
		return fmt.Errorf("cannot store log lines: no space left on the disk of the database but %d MB, which are for the rest; drop old lines (max_size or max_age in the site file) or enlarge the disk", left>>20)
	}
	return nil
}

// report tells administrators and users, on stream platform.logs, what happened to log
// lines.
func (s *store) report(text string) {
	fmt.Fprintln(os.Stderr, text)
	ctx, cancel := context.WithTimeout(context.Background(), reportTimeout)
	defer cancel()
	var mac string
	err := s.pool.QueryRow(ctx, `SELECT mac FROM devices WHERE type = 'server' LIMIT 1`).Scan(&mac)
	if errors.Is(err, pgx.ErrNoRows) {
		return // a platform that has not started yet
	}
	var ids []int64
	if err == nil {
		ids, err = s.streamIDs(ctx, []Stream{{IssuerMAC: mac, Name: ReportStream}})
	}
	if err == nil {
		rows, _ := encodeLines([]Line{{ids[0], s.now(), text}}, maxCopyBytes)
		_, err = s.insertLines(ctx, wireBatch{Rows: rows})
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "cannot log that: %v\n", err)
	}
}

// ReportStream is the log stream, of the server, that tells what happens to log lines.
const ReportStream = "platform.logs"

const reportTimeout = 10 * time.Second

// state says whether the schema is in place; until then no call reaches the pool.
type state struct{ err error }

func newStore(config *pgxpool.Config, o options) (*store, error) {
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, err
	}
	s := &store{pool: pool, options: o, room: make(chan struct{}, maxHistories), cursors: map[cursorKey]*history{}}
	s.state.Store(&state{errors.New("server-db has just started")})
	return s, nil
}

func (s *store) ready() error {
	if err := s.state.Load().err; err != nil {
		return fmt.Errorf("cannot use the database yet: %w", err)
	}
	return nil
}

// transaction runs f in a transaction that is committed if f succeeds, and rolled
// back at once if not.
func (s *store) transaction(ctx context.Context, f func(tx pgx.Tx) error) error {
	err := pgx.BeginFunc(ctx, s.pool, f)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "25006" { // read_only_sql_transaction
		// The server of our connections has become the copy of another one: next time
		// the one that takes changes is looked for.
		s.pool.Reset()
	}
	return explain(err)
}

// explain puts the failures that administrators meet in words.
func explain(err error) error {
	if err == nil {
		return nil
	}
	var pg *pgconn.PgError
	var connect *pgconn.ConnectError
	switch {
	case errors.As(err, &connect):
		return fmt.Errorf("cannot reach the database: %w", err)
	case !errors.As(err, &pg):
		return fmt.Errorf("cannot use the database: %w", err)
	}
	switch pg.Code {
	case "53100": // disk_full
		return fmt.Errorf("cannot write to the database: no space left on its disk: %w", err)
	case "57P01", "57P02", "57P03": // shutting down, crashed, starting up
		return fmt.Errorf("cannot use the database: PostgreSQL is restarting: %w", err)
	}
	return fmt.Errorf("cannot use the database: %w", err)
}

func (s *store) ping(ctx context.Context) error {
	return explain(s.pool.Ping(ctx))
}

func (s *store) loadAll(ctx context.Context) (all wireEverything, err error) {
	err = explain(pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		var err error
		all.Devices, err = rows[wireDevice](ctx, tx, `
			SELECT DISTINCT ON (d.name, d.mac) d.mac, coalesce(d.ip, ''), coalesce(d.name, ''), coalesce(d.type, 'unknown'),
				coalesce(d.virtual, false), convert_to(coalesce(d.conf, '{}')::text, 'UTF8'),
				coalesce(n.image, ''), coalesce(n.model, s.model, '')
			FROM devices d LEFT JOIN nodes n ON n.mac = d.mac LEFT JOIN switches s ON s.mac = d.mac
			ORDER BY d.name, d.mac`)
		if err != nil {
			return err
		}
		if all.SwitchPorts, err = rows[SwitchPort](ctx, tx, `SELECT mac, port, coalesce(name, '') FROM switchports ORDER BY mac, port`); err != nil {
			return err
		}
		if all.Topology, err = rows[wireTopology](ctx, tx, `
			SELECT mac1, mac2, coalesce(port1, 0), coalesce(port2, 0), coalesce(confirmed, false),
				CASE WHEN isfinite(last_seen) THEN (extract(epoch FROM last_seen) * 1000000)::bigint ELSE 0 END
			FROM topology WHERE mac1 IS NOT NULL AND mac2 IS NOT NULL ORDER BY mac1, port1, mac2, port2`); err != nil {
			return err
		}
		if all.PoEOff, err = rows[PoEOff](ctx, tx, `SELECT mac, port, coalesce(reason, '') FROM poeoff WHERE mac IS NOT NULL AND port IS NOT NULL ORDER BY mac, port`); err != nil {
			return err
		}
		if all.Images, err = texts(ctx, tx, `SELECT fullname FROM images ORDER BY fullname`); err != nil {
			return err
		}
		all.VPNMACs, err = texts(ctx, tx, `SELECT lower(vpnmac) FROM vpnauth ORDER BY 1`)
		return err
	}))
	return all, err
}

// texts reads a result of one column.
func texts(ctx context.Context, tx pgx.Tx, query string) ([]string, error) {
	r, err := tx.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(r, pgx.RowTo[string])
}

// rows reads a result into structs by the position of their fields.
func rows[T any](ctx context.Context, tx pgx.Tx, query string, args ...any) ([]T, error) {
	r, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(r, pgx.RowToStructByPos[T])
}

// statement is one step of a transaction.
type statement struct {
	sql  string
	args []any
}

func (s *store) execute(ctx context.Context, statements ...statement) error {
	return s.transaction(ctx, func(tx pgx.Tx) error { return run(ctx, tx, statements...) })
}

func run(ctx context.Context, tx pgx.Tx, statements ...statement) error {
	for _, st := range statements {
		if _, err := tx.Exec(ctx, st.sql, st.args...); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) saveDevice(ctx context.Context, d wireDevice) error {
	return s.transaction(ctx, func(tx pgx.Tx) error {
		// Its lock on the row puts two calls for one device one after the other.
		err := run(ctx, tx, statement{`
			INSERT INTO devices (mac, ip, name, type, virtual, conf)
			VALUES ($1, nullif($2, ''), $3, $4, $5, convert_from($6, 'UTF8')::jsonb)
			ON CONFLICT (mac) DO UPDATE SET ip = excluded.ip, name = excluded.name, type = excluded.type,
				virtual = excluded.virtual, conf = excluded.conf`,
			[]any{d.MAC, d.IP, d.Name, d.Type, d.Virtual, d.Conf}})
		if err != nil {
			return err
		}
		if d.Type == "node" {
			tag, err := tx.Exec(ctx, `UPDATE nodes SET image = nullif($2, ''), model = $3 WHERE mac = $1`, d.MAC, d.Image, d.Model)
			if err == nil && tag.RowsAffected() == 0 {
				_, err = tx.Exec(ctx, `INSERT INTO nodes (mac, image, model) VALUES ($1, nullif($2, ''), $3)`, d.MAC, d.Image, d.Model)
			}
			if err != nil {
				return err
			}
		} else if _, err := tx.Exec(ctx, `DELETE FROM nodes WHERE mac = $1`, d.MAC); err != nil {
			return err
		}
		if d.Type == "switch" {
			tag, err := tx.Exec(ctx, `UPDATE switches SET model = nullif($2, '') WHERE mac = $1`, d.MAC, d.Model)
			if err == nil && tag.RowsAffected() == 0 {
				_, err = tx.Exec(ctx, `INSERT INTO switches (mac, model) VALUES ($1, nullif($2, ''))`, d.MAC, d.Model)
			}
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM switches WHERE mac = $1`, d.MAC)
		return err
	})
}

// deleteSteps remove the devices whose MAC is in the array bound to $1, with all
// rows that refer to them.
var deleteSteps = []string{
	// The lock keeps new streams and links of the device away until the end.
	`SELECT 1 FROM devices WHERE mac = ANY($1) FOR UPDATE`,
	`SELECT 1 FROM logstreams WHERE issuer_mac = ANY($1) ORDER BY id FOR UPDATE`, // and new lines
	`DELETE FROM logs WHERE stream_id IN (SELECT id FROM logstreams WHERE issuer_mac = ANY($1))`,
	`DELETE FROM logstreams WHERE issuer_mac = ANY($1)`,
	`DELETE FROM topology WHERE mac1 = ANY($1) OR mac2 = ANY($1)`,
	`DELETE FROM poeoff WHERE mac = ANY($1)`,
	`DELETE FROM switchports WHERE mac = ANY($1)`,
	`DELETE FROM nodes WHERE mac = ANY($1)`,
	`DELETE FROM switches WHERE mac = ANY($1)`,
	`UPDATE vpnauth a SET device_label = format('forgotten device "%s" mac=%s', d.name, d.mac)
		FROM vpnnodes v JOIN devices d ON d.mac = v.mac WHERE v.vpnmac = a.vpnmac AND v.mac = ANY($1)`,
	`DELETE FROM vpnnodes WHERE mac = ANY($1)`,
	`DELETE FROM devices WHERE mac = ANY($1)`,
}

func deleteDevices(ctx context.Context, tx pgx.Tx, macs []string) error {
	for _, step := range deleteSteps {
		if _, err := tx.Exec(ctx, step, macs); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) deleteDevice(ctx context.Context, mac string) error {
	return s.transaction(ctx, func(tx pgx.Tx) error { return deleteDevices(ctx, tx, []string{mac}) })
}

func (s *store) fixServer(ctx context.Context, mac, ip string) error {
	return s.transaction(ctx, func(tx pgx.Tx) error {
		others, err := tx.Query(ctx, `SELECT mac FROM devices WHERE mac <> $1 AND (ip = $2 OR type = 'server' OR name = 'walt-server')`, mac, ip)
		if err != nil {
			return err
		}
		macs, err := pgx.CollectRows(others, pgx.RowTo[string])
		if err != nil {
			return err
		}
		if err := deleteDevices(ctx, tx, macs); err != nil {
			return err
		}
		return run(ctx, tx,
			statement{`INSERT INTO devices (mac, ip, name, type) VALUES ($1, $2, 'walt-server', 'server')
				ON CONFLICT (mac) DO UPDATE SET ip = excluded.ip, name = excluded.name, type = excluded.type`, []any{mac, ip}},
			// The server may have been a node or a switch by mistake.
			statement{`DELETE FROM nodes WHERE mac = $1`, []any{mac}},
			statement{`DELETE FROM switches WHERE mac = $1`, []any{mac}})
	})
}

func (s *store) saveImage(ctx context.Context, fullname string) error {
	return s.execute(ctx, statement{`INSERT INTO images (fullname) VALUES ($1) ON CONFLICT DO NOTHING`, []any{fullname}})
}

func (s *store) deleteImage(ctx context.Context, fullname string) error {
	return s.execute(ctx, statement{`DELETE FROM images WHERE fullname = $1`, []any{fullname}})
}

func (s *store) renameImage(ctx context.Context, old, new string) error {
	return s.transaction(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE images SET fullname = $2 WHERE fullname = $1`, old, new)
		if err == nil && tag.RowsAffected() == 0 {
			err = fmt.Errorf("no image is named %q", old)
		}
		return err
	})
}

func (s *store) saveSwitchPort(ctx context.Context, p SwitchPort) error {
	if p.Name == "" {
		return s.execute(ctx, statement{`DELETE FROM switchports WHERE mac = $1 AND port = $2`, []any{p.MAC, p.Port}})
	}
	return s.execute(ctx, statement{`INSERT INTO switchports (mac, port, name) VALUES ($1, $2, $3)
		ON CONFLICT (mac, port) DO UPDATE SET name = excluded.name`, []any{p.MAC, p.Port, p.Name}})
}

func (s *store) setTopology(ctx context.Context, links []wireTopology) error {
	steps := []statement{{`LOCK TABLE topology IN SHARE ROW EXCLUSIVE MODE`, nil}, {`DELETE FROM topology`, nil}}
	for _, l := range links {
		steps = append(steps, statement{`
			INSERT INTO topology (mac1, port1, mac2, port2, confirmed, last_seen)
			VALUES ($1, nullif($2, 0), $3, nullif($4, 0), $5, to_timestamp(nullif($6::bigint, 0) / 1000000.0))`,
			[]any{l.MAC1, l.Port1, l.MAC2, l.Port2, l.Confirmed, l.LastSeen}})
	}
	return s.execute(ctx, steps...)
}

func (s *store) savePoEOff(ctx context.Context, p PoEOff) error {
	return s.execute(ctx,
		statement{`LOCK TABLE poeoff IN SHARE ROW EXCLUSIVE MODE`, nil}, // it has no key
		statement{`DELETE FROM poeoff WHERE mac = $1 AND port = $2`, []any{p.MAC, p.Port}},
		statement{`INSERT INTO poeoff (mac, port, reason) VALUES ($1, $2, $3)`, []any{p.MAC, p.Port, p.Reason}})
}

func (s *store) deletePoEOff(ctx context.Context, p PoEOff) error {
	return s.execute(ctx, statement{`DELETE FROM poeoff WHERE mac = $1 AND port = $2`, []any{p.MAC, p.Port}})
}

func (s *store) checkpoints(ctx context.Context, user string) (found []wireCheckpoint, err error) {
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		r, err := tx.Query(ctx, `SELECT name, timestamp FROM checkpoints WHERE username = $1 AND timestamp IS NOT NULL ORDER BY timestamp, name`, user)
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(r, func(row pgx.CollectableRow) (wireCheckpoint, error) {
			w := wireCheckpoint{User: user}
			var clock localTime
			err := row.Scan(&w.Name, &clock)
			w.Time = clock.micros()
			return w, err
		})
		return err
	})
	return found, err
}

func (s *store) saveCheckpoint(ctx context.Context, w wireCheckpoint) (created bool, err error) {
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `LOCK TABLE checkpoints IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `INSERT INTO checkpoints (username, name, timestamp)
			SELECT $1::text, $2::text, $3::timestamp WHERE NOT EXISTS (SELECT 1 FROM checkpoints WHERE username = $1 AND name = $2)`,
			w.User, w.Name, newLocalTime(w.Time))
		created = tag.RowsAffected() > 0
		return err
	})
	return created, err
}

func (s *store) deleteCheckpoint(ctx context.Context, user, name string) (deleted bool, err error) {
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `DELETE FROM checkpoints WHERE username = $1 AND name = $2`, user, name)
		deleted = tag.RowsAffected() > 0
		return err
	})
	return deleted, err
}
