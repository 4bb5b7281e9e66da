package db

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// SQLRole is the role of `walt advanced sql`: it reads and writes the rows of WalT's
// tables and nothing else. It owns nothing, can make nothing, and belongs to no other
// role, so that no statement of it reaches a file or a program of the database server.
const SQLRole = "walt-sql"

// SQLAccess is how psql reaches the database as SQLRole.
type SQLAccess struct {
	DSN      string // its first argument
	Password string // for PGPASSWORD; empty on the appliance's own PostgreSQL, which knows the user
}

// tables is what SQLRole may write to. Partitions are reached through their parent.
var tables = []string{
	"devices", "topology", "images", "nodes", "switches", "switchports",
	"logstreams", "logs", "checkpoints", "poeoff", "vpnauth", "vpnnodes",
}

// roleReady tells that nothing is left to do for SQLRole. $1 is the role, $2 the tables.
const roleReady = `
	SELECT NOT (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls) AND rolcanlogin
		AND NOT EXISTS (SELECT 1 FROM pg_auth_members m WHERE m.member = r.oid)
		AND NOT has_schema_privilege(r.oid, 'public', 'CREATE')
		AND NOT has_database_privilege(r.oid, current_database(), 'TEMPORARY')
		AND has_sequence_privilege(r.oid, 'logstreams_id_seq', 'USAGE')
		AND (SELECT bool_and(has_table_privilege(r.oid, t, p)) FROM unnest($2::text[]) t, unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) p)
	FROM pg_roles r WHERE rolname = $1`

// roleStep is one statement that makes SQLRole what it must be.
type roleStep struct {
	sql      string
	optional bool // a guard that only the owner of the cluster may set up
}

func roleSteps(database, owner string) []roleStep {
	role, owner := pgx.Identifier{SQLRole}.Sanitize(), pgx.Identifier{owner}.Sanitize()
	database = pgx.Identifier{database}.Sanitize()
	steps := []roleStep{
		{`ALTER ROLE ` + role + ` LOGIN NOINHERIT CONNECTION LIMIT 10`, false},
		{`ALTER ROLE ` + role + ` NOCREATEDB NOCREATEROLE NOSUPERUSER NOREPLICATION NOBYPASSRLS`, true}, // as roles are made
		// One forgotten prompt must not hold rows for ever, nor one query a processor.
		{`ALTER ROLE ` + role + ` SET statement_timeout = '10min'`, false},
		{`ALTER ROLE ` + role + ` SET idle_in_transaction_session_timeout = '5min'`, false},
		{`ALTER ROLE ` + role + ` SET lock_timeout = '1min'`, false},
		{`ALTER ROLE ` + role + ` SET temp_file_limit = '1GB'`, true},
		{`REVOKE ALL ON DATABASE ` + database + ` FROM PUBLIC`, false},
		{`GRANT CONNECT ON DATABASE ` + database + ` TO ` + role, false},
		{`REVOKE CREATE ON SCHEMA public FROM PUBLIC`, true},
		{`REVOKE ALL ON SCHEMA public FROM ` + role, true},
		{`GRANT USAGE ON SCHEMA public TO ` + role, true}, // else PUBLIC has it
		{`GRANT SELECT, INSERT, UPDATE, DELETE ON ` + strings.Join(tables, ", ") + ` TO ` + role, false},
		{`GRANT USAGE, SELECT ON SEQUENCE logstreams_id_seq TO ` + role, false},
	}
	// Large objects are outside of WalT's tables, and anybody may make them by default.
	for _, f := range []string{"lo_creat(integer)", "lo_create(oid)", "lo_from_bytea(oid, bytea)", "lo_open(oid, integer)", "lo_put(oid, bigint, bytea)", "lo_unlink(oid)"} {
		steps = append(steps,
			roleStep{`REVOKE EXECUTE ON FUNCTION pg_catalog.` + f + ` FROM PUBLIC`, true},
			roleStep{`GRANT EXECUTE ON FUNCTION pg_catalog.` + f + ` TO ` + owner, true})
	}
	return steps
}

// prepareRole makes SQLRole, with the rights of the owner of the cluster on the
// appliance's own PostgreSQL, else with those of our own role.
func (s *store) prepareRole(ctx context.Context) error {
	config := s.pool.Config().ConnConfig
	if s.own() {
		config.User, config.Password = "postgres", ""
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("cannot make role %q of the SQL prompt: %w", SQLRole, err)
	}
	defer conn.Close(context.Background())
	if s.own() {
		if err := allowBulk(ctx, conn, s.pool.Config().ConnConfig.User); err != nil {
			return fmt.Errorf("log lines will be stored slowly: %w", err)
		}
	}
	var bulk bool // without it lines are stored all the same
	if err := conn.QueryRow(ctx, bulkAllowed, s.pool.Config().ConnConfig.User).Scan(&bulk); err == nil {
		s.bulk.Store(bulk)
	}
	if err := s.makeRole(ctx, conn); err != nil {
		return fmt.Errorf("cannot make role %q of the SQL prompt: %w", SQLRole, err)
	}
	if s.own() {
		return nil
	}
	// Nobody knows this password but us and those we start psql for.
	password := rand.Text()
	if _, err := conn.Exec(ctx, `ALTER ROLE `+pgx.Identifier{SQLRole}.Sanitize()+` PASSWORD '`+password+`'`); err != nil {
		return fmt.Errorf("cannot set the password of role %q of the SQL prompt: %w", SQLRole, err)
	}
	s.promptPassword.Store(&password)
	return nil
}

func (s *store) makeRole(ctx context.Context, conn *pgx.Conn) error {
	var done bool
	err := conn.QueryRow(ctx, roleReady, SQLRole, tables).Scan(&done)
	if errors.Is(err, pgx.ErrNoRows) {
		_, err = conn.Exec(ctx, `CREATE ROLE `+pgx.Identifier{SQLRole}.Sanitize()+` LOGIN`)
		var pg *pgconn.PgError
		if errors.As(err, &pg) && pg.Code == "42501" { // insufficient_privilege
			return fmt.Errorf("%w; give user %q the right CREATEROLE, or have an administrator make the role", err, conn.Config().User)
		}
	}
	if err != nil || done {
		return err
	}
	for _, step := range roleSteps(conn.Config().Database, s.pool.Config().ConnConfig.User) {
		if _, err := conn.Exec(ctx, step.sql); err != nil && !step.optional {
			return err
		}
	}
	// What could not be taken away must not have been there.
	err = conn.QueryRow(ctx, roleReady, SQLRole, tables).Scan(&done)
	if err == nil && !done {
		err = errors.New("it has more rights, or fewer, than it must have; have an administrator drop it or repair it")
	}
	return err
}

// own tells that the database is on the appliance's own PostgreSQL, where we may
// act as its owner.
func (s *store) own() bool { return strings.HasPrefix(s.pool.Config().ConnConfig.Host, "/") }

// sqlAccess tells how to start psql.
func (s *store) sqlAccess() (SQLAccess, error) {
	if s.own() {
		return SQLAccess{DSN: s.dsn + ` user='` + SQLRole + `'`}, nil
	}
	password := s.promptPassword.Load()
	if password == nil {
		return SQLAccess{}, fmt.Errorf("cannot open an SQL prompt: the external database has no role %q that we may use; see the journal of server-db", SQLRole)
	}
	dsn, err := withUser(s.dsn, SQLRole)
	return SQLAccess{DSN: dsn, Password: *password}, err
}

// withUser replaces the user and password of a database URL. It may name several
// hosts, which package net/url refuses.
func withUser(dsn, user string) (string, error) {
	scheme, rest, ok := strings.Cut(dsn, "://")
	if !ok {
		return "", errors.New("cannot open an SQL prompt: the external database is not given as a URL")
	}
	hosts, path := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		hosts, path = rest[:i], rest[i:]
	}
	hosts = hosts[strings.LastIndexByte(hosts, '@')+1:]
	return scheme + "://" + url.PathEscape(user) + "@" + hosts + path, nil
}

// allowBulk lets our own role store lines as prepareCopy does. It is done by the owner
// of the cluster.
func allowBulk(ctx context.Context, conn *pgx.Conn, owner string) error {
	var done bool
	err := conn.QueryRow(ctx, bulkAllowed, owner).Scan(&done)
	if err == nil && !done {
		_, err = conn.Exec(ctx, `GRANT SET ON PARAMETER session_replication_role TO `+pgx.Identifier{owner}.Sanitize())
	}
	return err
}

const bulkAllowed = `SELECT has_parameter_privilege($1, 'session_replication_role', 'SET')`
