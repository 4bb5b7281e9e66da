package db

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/waltos/waltos/services/daemon/connector"
)

// Keeper tends the log lines of a database by a clock that a test sets.
type Keeper struct{ s *store }

// OpenKeeper prepares a database as server-db does.
func OpenKeeper(ctx context.Context, dsn string, age time.Duration, size int64, now func() time.Time, more ...func(*options)) (*Keeper, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	config.ConnConfig.RuntimeParams["timezone"] = "UTC"
	o := options{dsn: dsn, zone: "UTC", retention: retention{age, size}, now: now}
	for _, f := range more {
		f(&o)
	}
	s, err := newStore(config, o)
	if err != nil {
		return nil, err
	}
	s.prepare(ctx, func(string, error) {})
	return &Keeper{s}, s.ready()
}

// Zone is that of the site file.
func Zone(name string) func(*options) { return func(o *options) { o.zone = name } }

func (k *Keeper) Close() { k.s.pool.Close() }

// Tend does what server-db does every minute.
func (k *Keeper) Tend(ctx context.Context) error { return k.s.tendOnce(ctx) }

// TendOn is Tend by one that remembers since when histories have been in the way.
func (k *Keeper) TendOn(ctx context.Context, since time.Time) time.Time {
	return k.s.endBlocking(k.s.tendOnce(ctx), since)
}

// Read begins to read all lines on behalf of a peer, and More goes on.
func (k *Keeper) Read(ctx context.Context, peer *connector.Peer) error {
	_, err := k.s.openLogs(ctx, cursorKey{peer, 1}, wireHistory{})
	return err
}

func (k *Keeper) More(ctx context.Context, peer *connector.Peer) error {
	_, err := k.s.nextLogs(ctx, cursorKey{peer, 1})
	return err
}

// Insert stores a line.
func (k *Keeper) Insert(ctx context.Context, lines []Line) error {
	rows, _ := encodeLines(lines, maxCopyBytes)
	_, err := k.s.insertLines(ctx, wireBatch{Rows: rows})
	return err
}

// Parts describes the partitions, without their sizes.
func (k *Keeper) Parts(ctx context.Context) ([]string, error) {
	p, err := k.s.parting(ctx)
	if err != nil {
		return nil, err
	}
	found := []string{"before " + p.begin.UTC().Format(time.DateTime)}
	for _, part := range p.parts {
		found = append(found, part.From.UTC().Format(time.DateTime)+" to "+part.To.UTC().Format(time.DateTime))
	}
	return found, nil
}
