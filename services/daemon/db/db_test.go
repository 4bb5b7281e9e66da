package db_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
)

func TestMain(m *testing.M) {
	os.Setenv("TZ", "") // the zone is part of what is tested, see TestCheckpoints
	os.Exit(m.Run())
}

const (
	serverMAC = "52:54:00:00:00:01"
	nodeMAC   = "52:54:00:00:00:02"
	switchMAC = "52:54:00:00:00:03"
)

var (
	server = db.Device{MAC: serverMAC, IP: "192.168.152.1", Name: "walt-server", Type: "server", Conf: map[string]any{}}
	node   = db.Device{MAC: nodeMAC, IP: "192.168.152.2", Name: "rpi", Type: "node", Virtual: true, Image: "u/img:latest", Model: "rpi-4-b",
		Conf: map[string]any{"boot.timeout": int64(180), "x": 1.5, "ok": true, "none": nil, "text": `back\slash "é"`, "expose": []any{"22:25"}, "in": map[string]any{"n": int64(1)}}}
	sw = db.Device{MAC: switchMAC, Name: "sw", Type: "switch", Model: "netgear", Conf: map[string]any{}}
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// populate saves one device of each type.
func populate(t testing.TB, c *db.Client) {
	t.Helper()
	ctx := t.Context()
	must(t, c.FixServer(ctx, serverMAC, "192.168.152.1"))
	must(t, c.SaveImage(ctx, "u/img:latest"))
	must(t, c.SaveDevice(ctx, node))
	must(t, c.SaveDevice(ctx, sw))
}

func stream(t testing.TB, c *db.Client, mac, name string) int64 {
	t.Helper()
	ids, err := c.StreamIDs(t.Context(), db.Stream{IssuerMAC: mac, Name: name, Chunk: strings.HasSuffix(name, "console")})
	must(t, err)
	if ids[0] == 0 {
		t.Fatalf("no stream for %s", mac)
	}
	return ids[0]
}

func texts(t testing.TB, c *db.Client, f db.LogFilter) []string {
	t.Helper()
	found := []string{}
	must(t, c.QueryLogs(t.Context(), f, func(rs []db.Record) error {
		for _, r := range rs {
			found = append(found, r.Issuer+"."+r.Stream+" "+r.Line)
		}
		return nil
	}))
	n, err := c.CountLogs(t.Context(), f)
	must(t, err)
	counted, read := int64(0), 0
	must(t, c.QueryCountedLogs(t.Context(), f, func(n int64) error { counted = n; return nil }, func(rs []db.Record) error { read += len(rs); return nil }))
	if n != len(found) || counted != int64(n) || read != n {
		t.Errorf("CountLogs %d, QueryCountedLogs %d and %d, QueryLogs %d", n, counted, read, len(found))
	}
	return found
}

func TestRegistry(t *testing.T) {
	c, p := dbtest.Client(t)
	ctx := t.Context()
	populate(t, c)
	_, err := p.Connect("walt").Exec(ctx, `INSERT INTO vpnauth (vpnmac, revoked) VALUES ('52:54:00:BB:BB:BB', true), ('52:54:00:aa:aa:aa', false)`)
	must(t, err)
	must(t, c.SaveSwitchPort(ctx, db.SwitchPort{MAC: switchMAC, Port: 3, Name: "old"}))
	must(t, c.SaveSwitchPort(ctx, db.SwitchPort{MAC: switchMAC, Port: 3, Name: "uplink"}))
	must(t, c.SaveSwitchPort(ctx, db.SwitchPort{MAC: switchMAC, Port: 4, Name: "gone"}))
	must(t, c.SaveSwitchPort(ctx, db.SwitchPort{MAC: switchMAC, Port: 4}))
	seen := time.UnixMicro(1700000000123456)
	links := []db.Topology{{MAC1: nodeMAC, MAC2: switchMAC, Port2: 3, Confirmed: true, LastSeen: &seen}, {MAC1: serverMAC, MAC2: switchMAC, Port2: 1}}
	must(t, c.SetTopology(ctx, links[:1]))
	must(t, c.SetTopology(ctx, []db.Topology{links[1], links[0]}))
	must(t, c.SavePoEOff(ctx, db.PoEOff{MAC: switchMAC, Port: 3, Reason: "powersave"}))
	must(t, c.SavePoEOff(ctx, db.PoEOff{MAC: switchMAC, Port: 3, Reason: "hard-reboot"}))
	must(t, c.SavePoEOff(ctx, db.PoEOff{MAC: switchMAC, Port: 9, Reason: "powersave"}))
	must(t, c.DeletePoEOff(ctx, switchMAC, 9))

	got, err := c.LoadAll(ctx)
	must(t, err)
	want := db.Everything{
		Devices:     []db.Device{node, sw, server},
		Images:      []string{"u/img:latest"},
		SwitchPorts: []db.SwitchPort{{MAC: switchMAC, Port: 3, Name: "uplink"}},
		Topology:    []db.Topology{links[1], links[0]},
		PoEOff:      []db.PoEOff{{MAC: switchMAC, Port: 3, Reason: "hard-reboot"}},
		VPNMACs:     []string{"52:54:00:aa:aa:aa", "52:54:00:bb:bb:bb"},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("LoadAll (-want +got):\n%s", diff)
	}

	// An update, also of the type.
	changed := node
	changed.Name, changed.IP, changed.Type, changed.Image, changed.Model = "renamed", "", "switch", "", "tplink"
	must(t, c.SaveDevice(ctx, changed))
	must(t, c.DeleteDevice(ctx, switchMAC))
	must(t, c.DeleteDevice(ctx, switchMAC))
	got, err = c.LoadAll(ctx)
	must(t, err)
	if diff := cmp.Diff(db.Everything{Devices: []db.Device{changed, server}, Images: want.Images, VPNMACs: want.VPNMACs}, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("LoadAll after changes (-want +got):\n%s", diff)
	}
}

// TestOddRows: rows that other programs left, or users wrote in the SQL prompt, do not keep
// the rest of the platform from being read.
func TestOddRows(t *testing.T) {
	c, p := dbtest.Client(t)
	ctx := t.Context()
	populate(t, c)
	conn := p.Connect("walt")
	for _, statement := range []string{
		`INSERT INTO devices (mac, conf) VALUES ('02:00:00:00:01:01', '[1, 2]'), ('02:00:00:00:01:02', '"text"'), ('02:00:00:00:01:03', 'null'), ('02:00:00:00:01:04', NULL)`,
		`INSERT INTO topology (mac1, mac2, port1, last_seen) VALUES ('02:00:00:00:01:01', '02:00:00:00:01:02', NULL, 'infinity'), ('02:00:00:00:01:01', NULL, 1, now())`,
		`INSERT INTO switchports (mac, port) VALUES ('02:00:00:00:01:01', -1)`,
		`INSERT INTO poeoff (mac, port, reason) VALUES ('02:00:00:00:01:01', NULL, NULL)`,
		`INSERT INTO images (fullname) VALUES ('no owner')`,
		`INSERT INTO checkpoints (username, name, timestamp) VALUES ('alice', 'never', 'infinity'), ('alice', 'none', NULL), (NULL, NULL, now())`,
	} {
		_, err := conn.Exec(ctx, statement)
		must(t, err)
	}
	got, err := c.LoadAll(ctx)
	must(t, err)
	if len(got.Devices) != 7 || len(got.Topology) != 1 || got.Topology[0].LastSeen != nil || len(got.Images) != 2 {
		t.Errorf("LoadAll: %+v", got)
	}
	for _, d := range got.Devices {
		if d.Name == "" && len(d.Conf) > 0 {
			t.Errorf("device %s has settings %v", d.MAC, d.Conf)
		}
	}
	list, err := c.Checkpoints(ctx, "alice")
	if err != nil {
		t.Errorf("checkpoints %+v, %v", list, err)
	}
}

func TestImages(t *testing.T) {
	c, _ := dbtest.Client(t)
	ctx := t.Context()
	populate(t, c)
	must(t, c.SaveImage(ctx, "u/img:latest")) // twice
	must(t, c.SaveImage(ctx, "u/free:1"))
	must(t, c.RenameImage(ctx, "u/free:1", "v/free:2"))
	for what, err := range map[string]error{
		"delete a used image":       c.DeleteImage(ctx, "u/img:latest"),
		"rename a used image":       c.RenameImage(ctx, "u/img:latest", "u/x:1"),
		"rename to a used name":     c.RenameImage(ctx, "v/free:2", "u/img:latest"),
		"rename nothing":            c.RenameImage(ctx, "u/none:1", "u/x:1"),
		"use an image not recorded": c.SaveDevice(ctx, db.Device{MAC: "52:54:00:00:00:09", Name: "n", Type: "node", Image: "u/none:1"}),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	// Each error was rolled back alone: D5.
	got, err := c.LoadAll(ctx)
	must(t, err)
	if diff := cmp.Diff([]string{"u/img:latest", "v/free:2"}, got.Images); diff != "" {
		t.Error(diff)
	}
	if len(got.Devices) != 3 {
		t.Errorf("%d devices, want 3", len(got.Devices))
	}
	must(t, c.DeleteImage(ctx, "v/free:2"))
}

// TestFixServer covers server-state 1.5, and its defect: an old server row that is
// also a node or a switch.
func TestFixServer(t *testing.T) {
	c, _ := dbtest.Client(t)
	ctx := t.Context()
	populate(t, c)
	must(t, c.SaveDevice(ctx, db.Device{MAC: serverMAC, IP: "192.168.152.1", Name: "mine", Type: "server", Conf: map[string]any{"k": int64(1)}}))
	id := stream(t, c, nodeMAC, "s")
	must(t, c.InsertLines(ctx, []db.Line{{Stream: id, Time: time.Now(), Text: "x"}}))
	// The address of the node becomes that of the server; its MAC and name are new.
	must(t, c.FixServer(ctx, "52:54:00:00:00:99", node.IP))
	got, err := c.LoadAll(ctx)
	must(t, err)
	want := []db.Device{sw, {MAC: "52:54:00:00:00:99", IP: node.IP, Name: "walt-server", Type: "server", Conf: map[string]any{}}}
	if diff := cmp.Diff(want, got.Devices); diff != "" {
		t.Error(diff)
	}
	if got := texts(t, c, db.LogFilter{}); len(got) != 0 {
		t.Errorf("logs of a deleted device: %q", got)
	}
}

func TestCheckpoints(t *testing.T) {
	c, p := dbtest.Client(t)
	ctx := t.Context()
	at := time.Date(2026, 7, 14, 15, 16, 17, 123456000, time.Local)
	for _, cp := range []db.Checkpoint{{User: "u", Name: "b", Time: at.Add(time.Hour)}, {User: "u", Name: "a", Time: at}, {User: "v", Name: "a", Time: at}} {
		created, err := c.SaveCheckpoint(ctx, cp)
		if must(t, err); !created {
			t.Errorf("%v was not created", cp)
		}
	}
	created, err := c.SaveCheckpoint(ctx, db.Checkpoint{User: "u", Name: "a", Time: at.Add(time.Minute)})
	if must(t, err); created {
		t.Error("a second checkpoint of the same name was created")
	}
	got, err := c.Checkpoints(ctx, "u")
	must(t, err)
	want := []db.Checkpoint{{User: "u", Name: "a", Time: at}, {User: "u", Name: "b", Time: at.Add(time.Hour)}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var stored string
	must(t, p.Connect("walt").QueryRow(ctx, `SELECT timestamp::text FROM checkpoints WHERE username = 'v'`).Scan(&stored))
	if want := at.Format("2006-01-02 15:04:05.000000"); stored != want {
		t.Errorf("stored %s, want server local time %s", stored, want)
	}
	for i, want := range []bool{true, false} {
		if deleted, err := c.DeleteCheckpoint(ctx, "u", "a"); err != nil || deleted != want {
			t.Errorf("deletion %d: %v, %v", i, deleted, err)
		}
	}
}

func TestLogs(t *testing.T) {
	c, _ := dbtest.Client(t)
	ctx := t.Context()
	populate(t, c)
	a, b, con := stream(t, c, nodeMAC, "app"), stream(t, c, serverMAC, "platform.nodes"), stream(t, c, nodeMAC, "virtualconsole")
	if again := stream(t, c, nodeMAC, "app"); again != a {
		t.Errorf("stream %d, then %d", a, again)
	}
	unknown := db.Stream{IssuerMAC: "52:54:00:ff:ff:ff", Name: "x"}
	added := db.Stream{IssuerMAC: serverMAC, Name: "added"}
	ids, err := c.StreamIDs(ctx, added, unknown, db.Stream{IssuerMAC: nodeMAC, Name: "app"}, added)
	if must(t, err); ids[0] == 0 || ids[0] != ids[3] || ids[1] != 0 || ids[2] != a || ids[0] != stream(t, c, serverMAC, "added") {
		t.Errorf("streams %v, app is %d", ids, a)
	}
	at := func(s float64) time.Time { return time.UnixMicro(int64(s * 1e6)) }
	must(t, c.InsertLines(ctx, []db.Line{
		{Stream: a, Time: at(1700000003), Text: "three é"},
		{Stream: b, Time: at(1700000001), Text: "one"},
		{Stream: 4242, Time: at(1700000001), Text: "of a stream that does not exist"},
		{Stream: a, Time: at(1700000002), Text: "nul \x00 and \xff bytes"},
		{Stream: con, Time: at(1700000004.5), Text: `b'login: '`},
		{Stream: a, Time: at(1700000005), Text: ""},
	}))
	bound := func(s float64) *float64 { return &s }
	one, two, three, con4, five := "walt-server.platform.nodes one", "rpi.app nul \uFFFD and \uFFFD bytes", "rpi.app three é", `rpi.virtualconsole b'login: '`, "rpi.app "
	for name, c1 := range map[string]struct {
		f    db.LogFilter
		want []string
	}{
		"all":              {db.LogFilter{}, []string{one, two, three, con4, five}},
		"strict bounds":    {db.LogFilter{Start: bound(1700000001), End: bound(1700000005)}, []string{two, three, con4}},
		"micros":           {db.LogFilter{Start: bound(1700000004.499999), End: bound(1700000004.500001)}, []string{con4}},
		"zero is no bound": {db.LogFilter{Start: bound(0), End: bound(0)}, []string{one, two, three, con4, five}},
		"issuers":          {db.LogFilter{Issuers: []string{"walt-server", "x' OR 'a'='a"}}, []string{one}},
		"no issuer":        {db.LogFilter{Issuers: []string{}}, []string{}},
		"streams":          {db.LogFilter{StreamsRegexp: `^platform\.`}, []string{one}},
		"lines":            {db.LogFilter{LineRegexp: "t(hree|wo)"}, []string{three}},
		"chunk":            {db.LogFilter{Mode: "chunk"}, []string{con4}},
		"no console":       {db.LogFilter{ExcludeConsoles: true, Issuers: []string{"rpi"}}, []string{two, three, five}},
	} {
		if diff := cmp.Diff(c1.want, texts(t, c, c1.f)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for _, f := range []db.LogFilter{{LineRegexp: "(a"}, {StreamsRegexp: "*"}, {Mode: "other"}} {
		err := c.QueryLogs(ctx, f, func([]db.Record) error { return nil })
		_, err2 := c.CountLogs(ctx, f)
		if err == nil || err2 == nil {
			t.Errorf("%+v: %v, %v", f, err, err2)
		}
	}
	must(t, c.DeleteDevice(ctx, nodeMAC))
	if diff := cmp.Diff([]string{one}, texts(t, c, db.LogFilter{})); diff != "" {
		t.Error(diff)
	}
}

// TestStaged stores rows that were sent ahead, and others in spite of them.
func TestStaged(t *testing.T) {
	c, _ := dbtest.Client(t)
	populate(t, c)
	id := stream(t, c, nodeMAC, "app")
	at := time.Now()
	row := func(text string) db.Rows {
		rows := db.AppendRow(nil, at, text)
		rows.SetStream(id)
		at = at.Add(time.Millisecond)
		return rows
	}
	batch := func(number int64) db.Batch { return db.Batch{Sender: 7, Number: number} }
	ctx := t.Context()
	one, two, three, four := row("one"), row("two"), row("three"), row("four")
	must(t, c.StageRows(ctx, batch(1), one))
	must(t, c.InsertRows(ctx, batch(1), one))
	must(t, c.InsertRows(ctx, batch(1), one)) // made again, as after a lost answer
	must(t, c.StageRows(ctx, batch(3), three))
	must(t, c.InsertRows(ctx, batch(2), two))
	must(t, c.InsertRows(ctx, batch(3), three))
	must(t, c.StageRows(ctx, batch(4), four))
	must(t, c.StageRows(ctx, batch(5), row("never stored")))
	must(t, c.InsertRows(ctx, batch(4), four))
	if err := c.StageRows(ctx, batch(6), four[:10]); err == nil {
		t.Error("half a row is staged")
	}
	if diff := cmp.Diff([]string{"rpi.app one", "rpi.app two", "rpi.app three", "rpi.app four"}, texts(t, c, db.LogFilter{})); diff != "" {
		t.Error(diff)
	}
}

// TestHistoryBlocks reads more than one block, while lines are being stored, and
// leaves readings unfinished.
func TestHistoryBlocks(t *testing.T) {
	c, p := dbtest.Client(t)
	ctx := t.Context()
	populate(t, c)
	id := stream(t, c, nodeMAC, "app")
	const n = 50_000
	lines := make([]db.Line, n)
	for i := range lines {
		lines[i] = db.Line{Stream: id, Time: time.UnixMicro(1700000000000000 + int64(i)), Text: fmt.Sprintf("line %d %s", i, strings.Repeat("x", i%200))}
	}
	must(t, c.InsertLines(ctx, lines))
	cursor, err := c.OpenLogs(ctx, db.LogFilter{})
	must(t, err)
	defer cursor.Close()
	must(t, c.InsertLines(ctx, lines[:10])) // after the snapshot
	got := 0
	for {
		records, err := cursor.Next(ctx)
		must(t, err)
		if len(records) == 0 {
			break
		}
		for _, r := range records {
			if r.Line != lines[got].Text || !r.Time.Equal(lines[got].Time) || r.Issuer != "rpi" || r.Stream != "app" {
				t.Fatalf("record %d is %+v", got, r)
			}
			got++
		}
	}
	if got != n {
		t.Errorf("%d records, want %d", got, n)
	}
	cursor.Close()

	stop := errors.New("enough")
	for range 100 { // more than there is room for at once
		if err := c.QueryLogs(ctx, db.LogFilter{}, func([]db.Record) error { return stop }); !errors.Is(err, stop) {
			t.Fatal(err)
		}
	}
	look := p.Connect("walt")
	dbtest.Wait(t, "the end of all histories", func(ctx context.Context) error {
		var open int
		err := look.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE usename = 'root' AND state <> 'idle'`).Scan(&open)
		if err == nil && open > 0 {
			err = fmt.Errorf("%d are open", open)
		}
		return err
	})
}

// TestPostgresRegexps has PostgreSQL judge the form of expressions made for it.
func TestPostgresRegexps(t *testing.T) {
	c, _ := dbtest.Client(t)
	ctx := t.Context()
	populate(t, c)
	id := stream(t, c, nodeMAC, "app")
	for expr, lines := range map[string][2]string{
		"(a|)b":              {"b", "a"},
		"a()b":               {"ab", "b"},
		"^a{,2}$":            {"aa", "aaa"},
		"^a**$":              {"aaa", "b"},
		"^(a{2}){2}$":        {"aaaa", "aa"},
		"^[^a-c]$":           {"é", "b"},
		`^[]\]$`:             {`\`, "a"},
		"^[[.-.]x]$":         {"-", "a"},
		`^\w+\s\S$`:          {"a_1 é", "a-1 b"},
		`\bfoo\>`:            {"a foo b", "foob"},
		`o\Bo`:               {"foo", "o o"},
		"a^b":                {"", "a^b"},
		`{"a": [0-9]`:        {`{"a": 1}`, `"a"`},
		"\t[\x01-\x1f]":      {"\t\t", "\tt"},
		"\\`x\\'":            {"x", "X"},
		"#/_ -;~&'<>@!%=,:`": {"#/_ -;~&'<>@!%=,:`", "#"},
	} {
		must(t, c.InsertLines(ctx, []db.Line{{Stream: id, Time: time.Now(), Text: lines[0]}, {Stream: id, Time: time.Now(), Text: lines[1]}}))
		got := texts(t, c, db.LogFilter{LineRegexp: expr})
		found := map[string]bool{}
		for _, g := range got {
			found[strings.TrimPrefix(g, "rpi.app ")] = true
		}
		if found[lines[0]] == (expr == "a^b") || found[lines[1]] {
			t.Errorf("%q on %q: %q", expr, lines, got)
		}
	}
}

// TestRestart covers PostgreSQL's absence: errors at once, then service again.
func TestRestart(t *testing.T) {
	p := dbtest.Start(t)
	p.Down()
	c := db.Dial(filepath.Join(p.Serve(), filepath.Base(db.Socket)))
	defer c.Close()
	ctx := t.Context()
	if err := c.SaveImage(ctx, "u/i:1"); err == nil || !strings.Contains(err.Error(), "cannot use the database yet") {
		t.Errorf("call before PostgreSQL: %v", err)
	}
	p.Up()
	dbtest.Wait(t, "the schema", func(ctx context.Context) error { return c.SaveImage(ctx, "u/i:1") })
	populate(t, c)
	id := stream(t, c, nodeMAC, "s")
	must(t, c.InsertLines(ctx, []db.Line{{Stream: id, Time: time.Now(), Text: "before"}}))
	cursor, err := c.OpenLogs(ctx, db.LogFilter{})
	must(t, err)
	defer cursor.Close()
	for _, end := range []func(){p.Down, p.Kill} {
		end()
		if err := c.Ping(ctx); err == nil {
			t.Error("a call succeeded without PostgreSQL")
		}
		if _, err := c.OpenLogs(ctx, db.LogFilter{}); err == nil {
			t.Error("a history opened without PostgreSQL")
		}
		p.Up()
		dbtest.Wait(t, "service again", c.Ping)
		if diff := cmp.Diff([]string{"rpi.s before"}, texts(t, c, db.LogFilter{})); diff != "" {
			t.Error(diff)
		}
	}
}

// TestSchema compares what psql shows with the tables of server-state 1.2 and 1.3,
// and a second start with the first.
func TestSchema(t *testing.T) {
	c, p := dbtest.Client(t)
	populate(t, c)
	c2 := db.Dial(filepath.Join(p.Serve(), filepath.Base(db.Socket)))
	defer c2.Close()
	dbtest.Wait(t, "a second server-db", c2.Ping)
	var got strings.Builder
	for _, table := range []string{"devices", "topology", "images", "nodes", "switches", "switchports", "logstreams", "logs", "checkpoints", "poeoff", "vpnauth", "vpnnodes"} {
		got.WriteString(p.Psql(`\d ` + table))
	}
	const golden = "testdata/schema.txt"
	if os.Getenv("WALT_UPDATE") != "" {
		must(t, os.WriteFile(golden, []byte(got.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("schema (-want +got):\n%s", diff)
	}
}

// TestDiskFull has PostgreSQL refuse lines as it does on a full disk.
func TestDiskFull(t *testing.T) {
	c, p := dbtest.Client(t)
	ctx := t.Context()
	populate(t, c)
	id := stream(t, c, nodeMAC, "s")
	line := func(text string) []db.Line { return []db.Line{{Stream: id, Time: time.Now(), Text: text}} }
	must(t, c.InsertLines(ctx, line("before")))
	_, err := p.Connect("walt").Exec(ctx, `
		CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
		CREATE TRIGGER disk_full BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION disk_full();
		ALTER TABLE logs ENABLE ALWAYS TRIGGER disk_full`)
	must(t, err)
	if err := c.InsertLines(ctx, line("refused")); err == nil || !strings.Contains(err.Error(), "no space left on its disk") {
		t.Errorf("insertion on a full disk: %v", err)
	}
	_, err = p.Connect("walt").Exec(ctx, `DROP TRIGGER disk_full ON logs`)
	must(t, err)
	must(t, c.InsertLines(ctx, line("after")))
	if diff := cmp.Diff([]string{"rpi.s before", "rpi.s after"}, texts(t, c, db.LogFilter{})); diff != "" {
		t.Error(diff)
	}
}

// BenchmarkInsert and BenchmarkQuery print lines per second, through server-db.
func BenchmarkInsert(b *testing.B) {
	c, _ := dbtest.Client(b)
	populate(b, c)
	id := stream(b, c, nodeMAC, "app")
	lines := make([]db.Line, 8192)
	for i := range lines {
		lines[i] = db.Line{Stream: id, Time: time.Now(), Text: fmt.Sprintf("temperature sensor %d: 21.5 degrees, battery at 87%%", i)}
	}
	for b.Loop() {
		must(b, c.InsertLines(context.Background(), lines))
	}
	b.ReportMetric(float64(b.N*len(lines))/b.Elapsed().Seconds(), "lines/s")
}

func BenchmarkQuery(b *testing.B) {
	c, _ := dbtest.Client(b)
	populate(b, c)
	id := stream(b, c, nodeMAC, "app")
	lines := make([]db.Line, 200_000)
	for i := range lines {
		lines[i] = db.Line{Stream: id, Time: time.Now(), Text: fmt.Sprintf("temperature sensor %d: 21.5 degrees, battery at 87%%", i)}
	}
	must(b, c.InsertLines(context.Background(), lines))
	for b.Loop() {
		must(b, c.QueryLogs(context.Background(), db.LogFilter{}, func([]db.Record) error { return nil }))
	}
	b.ReportMetric(float64(b.N*len(lines))/b.Elapsed().Seconds(), "lines/s")
}
