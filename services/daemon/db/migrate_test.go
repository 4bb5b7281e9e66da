package db_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
)

// load makes the database of an older version.
func load(t testing.TB, p *dbtest.Postgres, version string) {
	t.Helper()
	conn := p.Connect("postgres")
	for _, statement := range []string{`CREATE ROLE root LOGIN CREATEDB`, `CREATE DATABASE walt OWNER root`} {
		_, err := conn.Exec(t.Context(), statement)
		must(t, err)
	}
	file, err := filepath.Abs(filepath.Join("testdata", "upstream", version+".sql"))
	must(t, err)
	out, err := p.Command("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", p.DSN, "-f", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// shape is what the tables of a database are, but for names of constraints and of
// partitions.
func shape(t testing.TB, conn *pgx.Conn) []string {
	t.Helper()
	found, err := conn.Query(context.Background(), `
		SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '')
			FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT LIKE 'logs\_%'
		UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename NOT LIKE 'logs\_%'
		UNION ALL SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
			WHERE conrelid <> 0 AND conrelid::regclass::text NOT LIKE 'logs\_%' AND connamespace = 'public'::regnamespace
		ORDER BY 1`)
	must(t, err)
	lines, err := pgx.CollectRows(found, pgx.RowTo[string])
	must(t, err)
	return lines
}

// TestMigrations opens databases of all older versions: the content is the same, the
// schema that of 10.0.
func TestMigrations(t *testing.T) {
	_, fresh := dbtest.Client(t)
	wantShape := shape(t, fresh.Connect("walt"))
	for _, version := range []string{"4", "7", "8.2", "9.0", "10.0"} {
		t.Run(version, func(t *testing.T) {
			p := dbtest.Start(t)
			load(t, p, version)
			began := time.Now()
			var partitions []string
			for range 2 { // and nothing changes at the second start
				k := keeper(t, p, 0, 0, &clock{began})
				if diff := cmp.Diff(wantShape, shape(t, p.Connect("walt"))); diff != "" {
					t.Errorf("schema (-want +got):\n%s", diff)
				}
				if found := parts(t, k); partitions == nil {
					partitions = found
				} else if !slices.Equal(partitions, found) {
					t.Errorf("partitions %q, then %q", partitions, found)
				}
			}
			c := db.Dial(filepath.Join(p.Serve(), filepath.Base(db.Socket)))
			defer c.Close()
			dbtest.Wait(t, "server-db", c.Ping)
			got, err := c.LoadAll(t.Context())
			must(t, err)
			links := got.Topology
			got.Topology = nil
			want := db.Everything{
				Devices: []db.Device{
					{MAC: "02:00:00:00:00:04", Name: "bare", Type: "switch"},
					{MAC: "02:00:00:00:00:02", IP: "192.168.152.2", Name: "rpi", Type: "node", Image: "u/used:latest", Model: "rpi-3-b", Conf: map[string]any{"netsetup": int64(1)}},
					{MAC: "02:00:00:00:00:03", IP: "192.168.152.3", Name: "sw", Type: "switch", Model: "netgear",
						Conf: map[string]any{"lldp.explore": true, "poe.reboots": true, "snmp.version": int64(2), "snmp.community": "private"}},
					{MAC: "02:00:00:00:00:01", IP: "192.168.152.1", Name: "walt-server", Type: "server"},
				},
				Images: []string{"u/unused:latest", "u/used:latest"},
			}
			if version == "4" { // images not used were not kept
				want.Images = want.Images[1:]
				// and each switch had all settings
				want.Devices[0].Conf = map[string]any{"lldp.explore": false, "poe.reboots": false}
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("content (-want +got):\n%s", diff)
			}
			if len(links) != 1 || links[0].LastSeen == nil || version != "10.0" && links[0].LastSeen.Before(began.Add(-time.Minute)) {
				t.Errorf("topology %+v", links)
			}
			if diff := cmp.Diff([]string{"rpi.app winter", "rpi.app summer", "walt-server.platform.nodes booted"}, texts(t, c, db.LogFilter{Mode: "line"})); diff != "" {
				t.Error(diff)
			}
			var summer string
			must(t, p.Connect("walt").QueryRow(t.Context(), `SELECT (timestamp AT TIME ZONE 'UTC')::text FROM logs WHERE line = 'summer'`).Scan(&summer))
			if summer != "2020-07-14 12:00:00.123456" {
				t.Errorf("summer is at %s", summer)
			}
			// The old server goes although it is a node and a switch too (server-state 1.5).
			_, err = p.Connect("walt").Exec(t.Context(), `INSERT INTO nodes VALUES ('02:00:00:00:00:01', 'u/used:latest', 'm'); INSERT INTO switches VALUES ('02:00:00:00:00:01', NULL)`, pgx.QueryExecModeSimpleProtocol)
			must(t, err)
			must(t, c.FixServer(t.Context(), "02:00:00:00:00:99", "192.168.152.9"))
			if got, err = c.LoadAll(t.Context()); err != nil || len(got.Devices) != 4 || got.Devices[3].MAC != "02:00:00:00:00:99" {
				t.Errorf("after a change of the server: %+v, %v", got.Devices, err)
			}
		})
	}
}

// TestMigrationZone: times without a zone were local.
func TestMigrationZone(t *testing.T) {
	p := dbtest.Start(t)
	load(t, p, "9.0")
	k, err := db.OpenKeeper(t.Context(), p.DSN, 0, 0, time.Now, db.Zone("Europe/Paris"))
	must(t, err)
	defer k.Close()
	var hours string
	must(t, p.Connect("walt").QueryRow(t.Context(), `SELECT string_agg(to_char(timestamp AT TIME ZONE 'UTC', 'HH24'), ' ' ORDER BY timestamp) FROM logs`).Scan(&hours))
	if hours != "11 10 10" {
		t.Errorf("times are %s", hours)
	}
}

// TestInterruptedMigration has PostgreSQL die in the middle of a migration.
func TestInterruptedMigration(t *testing.T) {
	p := dbtest.Start(t)
	load(t, p, "4")
	// A transaction sees the activity of others as it was when it first looked.
	blocker, look := p.Connect("walt"), p.Connect("walt")
	// The migration is held up where it makes an index of checkpoints, near its end.
	_, err := blocker.Exec(t.Context(), `BEGIN; LOCK TABLE checkpoints IN ACCESS EXCLUSIVE MODE`, pgx.QueryExecModeSimpleProtocol)
	must(t, err)
	c := db.Dial(filepath.Join(p.Serve(), filepath.Base(db.Socket)))
	defer c.Close()
	dbtest.Wait(t, "the migration to be under way", func(ctx context.Context) error {
		var waiting int
		err := look.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE usename = 'root' AND wait_event_type = 'Lock'`).Scan(&waiting)
		if err == nil && waiting == 0 {
			err = errors.New("it does not wait")
		}
		return err
	})
	if err := c.Ping(t.Context()); err == nil {
		t.Error("a call is served before the migration is made")
	}
	p.Kill()
	p.Up()
	dbtest.Wait(t, "the migration", c.Ping)
	var conf string
	must(t, p.Connect("walt").QueryRow(t.Context(), `SELECT conf::text FROM devices WHERE name = 'sw'`).Scan(&conf))
	if want := `{"poe.reboots": true, "lldp.explore": true, "snmp.version": 2, "snmp.community": "private"}`; conf != want {
		t.Errorf("conf is %s", conf)
	}
	if got := texts(t, c, db.LogFilter{}); len(got) != 3 {
		t.Error(fmt.Sprint(got))
	}
}
