package db

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// columns are those of the tables of a database, "table.column", with their types.
type columns map[string]string

func (c columns) has(name string) bool { return c[name] != "" }

// migration brings a database of an older version of WalT a step further. All steps
// are made in one transaction at start, so that an interrupted one leaves the old
// database, and those that are not needed cost nothing (server-state 1.4).
type migration struct {
	needed func(columns) bool
	steps  []string
	slow   bool // announced, as it may take long
}

func has(name string) func(columns) bool { return func(c columns) bool { return c.has(name) } }

// lacks tells that a table is there, but not its column.
func lacks(table, key, column string) func(columns) bool {
	return func(c columns) bool { return c.has(table+"."+key) && !c.has(table+"."+column) }
}

// migrations are in the order of the versions. The tables that a version adds are
// made by schema, which comes after them.
var migrations = []migration{
	// From version 4: settings of switches and nodes become those of devices.
	{needed: lacks("devices", "mac", "conf"), steps: []string{`ALTER TABLE devices ADD COLUMN conf jsonb DEFAULT '{}'`}},
	{needed: has("switches.lldp_explore"), steps: []string{
		`UPDATE devices d SET conf = d.conf || jsonb_build_object('lldp.explore', s.lldp_explore)
			FROM switches s WHERE s.mac = d.mac AND s.lldp_explore IS NOT NULL`,
		`ALTER TABLE switches DROP COLUMN lldp_explore`}},
	{needed: has("switches.poe_reboot_nodes"), steps: []string{
		`UPDATE devices d SET conf = d.conf || jsonb_build_object('poe.reboots', s.poe_reboot_nodes)
			FROM switches s WHERE s.mac = d.mac AND s.poe_reboot_nodes IS NOT NULL`,
		`ALTER TABLE switches DROP COLUMN poe_reboot_nodes`}},
	{needed: has("switches.snmp_conf"), steps: []string{
		`UPDATE devices d SET conf = d.conf || jsonb_strip_nulls(jsonb_build_object(
				'snmp.version', s.snmp_conf::jsonb -> 'version', 'snmp.community', s.snmp_conf::jsonb -> 'community'))
			FROM switches s WHERE s.mac = d.mac AND s.snmp_conf <> ''`,
		`ALTER TABLE switches DROP COLUMN snmp_conf`}},
	{needed: has("nodes.netsetup"), steps: []string{
		`UPDATE devices d SET conf = d.conf || jsonb_build_object('netsetup', n.netsetup)
			FROM nodes n WHERE n.mac = d.mac AND n.netsetup IS NOT NULL`,
		`ALTER TABLE nodes DROP COLUMN netsetup`}},
	{needed: lacks("devices", "mac", "conf"), steps: []string{
		`DELETE FROM images i WHERE NOT EXISTS (SELECT 1 FROM nodes n WHERE n.image = i.fullname)`}},
	// From version 7.
	{needed: lacks("logstreams", "id", "mode"), steps: []string{
		`DO $$ BEGIN IF to_regtype('logmode') IS NULL THEN CREATE TYPE logmode AS ENUM ('line', 'chunk'); END IF; END $$`,
		`ALTER TABLE logstreams ADD COLUMN mode logmode DEFAULT 'line'`}},
	{needed: has("images.ready"), steps: []string{
		`DELETE FROM images i WHERE NOT i.ready AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.image = i.fullname)`,
		`ALTER TABLE images DROP COLUMN ready`}},
	{needed: has("logstreams.sender_mac"), steps: []string{
		`ALTER TABLE logstreams RENAME COLUMN sender_mac TO issuer_mac`,
		`DROP INDEX IF EXISTS logstreams_sender_mac_name_idx`}},
	// From version 8.2.
	{needed: has("nodes.booted"), steps: []string{`ALTER TABLE nodes DROP COLUMN booted`}},
	// From version 9.0. PostgreSQL reads the old times in the zone of the session.
	{needed: func(c columns) bool { return c["logs.timestamp"] == "timestamp without time zone" }, slow: true, steps: []string{
		`ALTER TABLE logs ALTER COLUMN timestamp TYPE timestamp with time zone`}},
	{needed: lacks("topology", "mac1", "last_seen"), steps: []string{
		`ALTER TABLE topology ADD COLUMN last_seen timestamp with time zone`,
		`UPDATE topology SET last_seen = now()`}},
}

// migrate brings what is in the database to the schema of version 10.0.
func (s *store) migrate(ctx context.Context, tx pgx.Tx) error {
	found, err := tx.Query(ctx, `SELECT table_name || '.' || column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'`)
	if err != nil {
		return err
	}
	have := columns{}
	var name, kind pgtype.Text
	if _, err := pgx.ForEachRow(found, []any{&name, &kind}, func() error { have[name.String] = kind.String; return nil }); err != nil {
		return err
	}
	for _, m := range migrations {
		if !m.needed(have) {
			continue
		}
		if m.slow {
			fmt.Fprintln(os.Stderr, "Updating logs database for new version... (this can take time)")
			if _, err := tx.Exec(ctx, `SELECT set_config('timezone', $1, true)`, s.zone); err != nil {
				return err
			}
		}
		for _, step := range m.steps {
			if _, err := tx.Exec(ctx, step); err != nil {
				return fmt.Errorf("cannot migrate the database: %s: %w", step, err)
			}
		}
		if m.slow {
			fmt.Fprintln(os.Stderr, "Updating logs database for new version: done")
		}
	}
	return nil
}
