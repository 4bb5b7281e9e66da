package db

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Bounds of the pause between two attempts to reach PostgreSQL.
const (
	firstPause   = 50 * time.Millisecond
	longestPause = 2 * time.Second
)

// prepare makes the database and its schema, and tries until it succeeds or ctx
// ends; then the role of the SQL prompt. report is called when the reason for waiting
// changes, and once at the end.
func (s *store) prepare(ctx context.Context, report func(status string, err error)) {
	pause, last := firstPause, ""
	for {
		err := s.makeSchema(ctx)
		if isMissing(err) {
			if err = s.makeDatabase(ctx); err == nil {
				err = s.makeSchema(ctx)
			}
		}
		if ctx.Err() != nil {
			return
		}
		s.state.Store(&state{err})
		if err == nil {
			err = s.prepareRole(ctx) // calls are served already
			s.roleMade = err == nil
			if ctx.Err() == nil {
				report("serving", err)
			}
			return
		}
		if text := err.Error(); text != last {
			last = text
			report("waiting: "+text, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, longestPause)
	}
}

// makeSchema makes what is missing, and migrates what is old, in one transaction.
func (s *store) makeSchema(ctx context.Context) error {
	return s.transaction(ctx, func(tx pgx.Tx) error {
		// Two server-db never do this at once.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(1463897172)`); err != nil {
			return err
		}
		if err := s.migrate(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, schema, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		return s.partLogs(ctx, tx)
	})
}

// isMissing tells that PostgreSQL answers but has no such role or database.
func isMissing(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "3D000" || pg.Code == "28000")
}

// makeDatabase makes the role and the database of the configuration, acting as role
// postgres. It works on a local PostgreSQL only, that of the appliance: an external
// one is prepared by its administrators.
func (s *store) makeDatabase(ctx context.Context) error {
	config := s.pool.Config().ConnConfig.Copy()
	role, database := config.User, config.Database
	if !strings.HasPrefix(config.Host, "/") {
		return fmt.Errorf("cannot use the database: %s has no database %q with a role %q; ask its administrator for both", config.Host, database, role)
	}
	config.User, config.Database, config.Password = "postgres", "postgres", ""
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("cannot make database %q: %w", database, err)
	}
	defer conn.Close(context.Background())
	name := func(s string) string { return pgx.Identifier{s}.Sanitize() }
	for _, step := range []struct{ exists, make string }{
		{`SELECT count(*) FROM pg_roles WHERE rolname = $1`, `CREATE ROLE ` + name(role) + ` LOGIN CREATEDB`},
		{`SELECT count(*) FROM pg_database WHERE datname = $1`, `CREATE DATABASE ` + name(database) + ` OWNER ` + name(role) + ` ENCODING 'UTF8' TEMPLATE template0`},
	} {
		wanted := role
		if strings.Contains(step.make, "DATABASE") {
			wanted = database
		}
		var n int
		if err := conn.QueryRow(ctx, step.exists, wanted).Scan(&n); err != nil {
			return fmt.Errorf("cannot make database %q: %w", database, err)
		}
		if n > 0 {
			continue
		}
		if _, err := conn.Exec(ctx, step.make); err != nil {
			return fmt.Errorf("cannot make database %q: %w", database, err)
		}
	}
	return nil
}
