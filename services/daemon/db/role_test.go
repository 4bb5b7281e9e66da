package db_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
)

// TestSQLRole has the role of the SQL prompt read and write WalT's rows, and try all
// that leads out of them.
func TestSQLRole(t *testing.T) {
	c, p := dbtest.Client(t)
	populate(t, c)
	stream(t, c, nodeMAC, "s")
	dbtest.Wait(t, "the role", func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, sqlDSN(t, c))
		if err == nil {
			_, err = conn.Exec(ctx, "SELECT count(*) FROM logs")
			conn.Close(ctx)
		}
		return err
	})
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, sqlDSN(t, c))
	must(t, err)
	defer conn.Close(ctx)
	for _, statement := range []string{
		`SELECT * FROM devices JOIN nodes USING (mac)`,
		`INSERT INTO logs SELECT id, now(), 'by hand' FROM logstreams`,
		`UPDATE logs SET line = 'changed'`,
		`DELETE FROM logs`,
		`INSERT INTO logstreams (issuer_mac, name) VALUES ('` + nodeMAC + `', 'other')`,
		`COPY devices TO STDOUT`,
		`SET statement_timeout = '1s'`,
	} {
		if _, err := conn.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Errorf("%s: %v", statement, err)
		}
	}
	for _, statement := range []string{
		`COPY devices TO PROGRAM 'cat'`, `COPY devices FROM PROGRAM 'true'`, `COPY devices TO '/tmp/x'`, `COPY devices FROM '/etc/passwd'`,
		`CREATE TABLE x (a int)`, `CREATE TEMP TABLE x (a int)`, `CREATE SCHEMA x`, `CREATE DATABASE x`, `CREATE ROLE x`, `CREATE EXTENSION file_fdw`,
		`CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
		`ALTER TABLE devices ADD COLUMN x int`, `ALTER TABLE devices OWNER TO "walt-sql"`, `DROP TABLE logs`, `TRUNCATE logs`, `CREATE INDEX ON logs (line)`,
		`SET ROLE root`, `SET ROLE postgres`, `SET SESSION AUTHORIZATION root`, `ALTER ROLE "walt-sql" SUPERUSER`, `GRANT root TO "walt-sql"`,
		`GRANT pg_execute_server_program TO "walt-sql"`, `SET session_replication_role = replica`, `ALTER SYSTEM SET archive_command = 'x'`,
		`SELECT * FROM pg_authid`, `SELECT pg_read_file('/etc/passwd')`, `SELECT pg_ls_dir('/')`, `SELECT pg_reload_conf()`,
		`SELECT lo_import('/etc/passwd')`, `SELECT lo_export(1, '/tmp/x')`, `SELECT lo_create(0)`, `SELECT lo_creat(0)`, `SELECT lo_from_bytea(0, 'x')`,
		`SELECT setval('logstreams_id_seq', 1)`, `LOAD 'auto_explain'`,
	} {
		if _, err := conn.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol); err == nil {
			t.Errorf("%s was not refused", statement)
		}
	}
	var timeouts string
	must(t, pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT current_setting('idle_in_transaction_session_timeout') || ' ' || current_setting('lock_timeout')`).Scan(&timeouts)
	}))
	if timeouts != "5min 1min" {
		t.Errorf("timeouts are %q", timeouts)
	}
	// The real psql understands what it is to be called with.
	access, err := c.SQLAccess(ctx)
	must(t, err)
	psql := p.Command("psql", "-X", "-At", access.DSN, "-c", "SELECT current_user")
	if out, err := psql.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != db.SQLRole {
		t.Errorf("psql: %v\n%s", err, out)
	}
}

func sqlDSN(t testing.TB, c *db.Client) string {
	t.Helper()
	access, err := c.SQLAccess(t.Context())
	must(t, err)
	return access.DSN
}
