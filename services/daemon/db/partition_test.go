package db_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
)

const day = 24 * time.Hour

// clock is a time that a test sets.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func keeper(t *testing.T, p *dbtest.Postgres, age time.Duration, size int64, c *clock) *db.Keeper {
	t.Helper()
	// The first connection makes the database, as server-db does.
	k, err := db.OpenKeeper(t.Context(), p.DSN, age, size, c.now)
	must(t, err)
	t.Cleanup(k.Close)
	return k
}

// keeping returns a keeper of a new database, a stream of a node, and a client.
func keeping(t *testing.T, age time.Duration, size int64, c *clock) (*db.Keeper, *db.Client, int64) {
	t.Helper()
	p := dbtest.Start(t)
	k := keeper(t, p, age, size, c)
	client := db.Dial(filepath.Join(p.Serve(), filepath.Base(db.Socket)))
	t.Cleanup(client.Close)
	dbtest.Wait(t, "server-db", client.Ping)
	populate(t, client)
	return k, client, stream(t, client, nodeMAC, "app")
}

func parts(t *testing.T, k *db.Keeper) []string {
	t.Helper()
	found, err := k.Parts(t.Context())
	must(t, err)
	return found
}

// TestRetentionByAge lives through months in which a line comes every day.
func TestRetentionByAge(t *testing.T) {
	began := time.Now().UTC().Truncate(time.Hour)
	c := &clock{began}
	const age = 30 * day
	k, client, id := keeping(t, age, 0, c)
	must(t, k.Insert(t.Context(), []db.Line{{Stream: id, Time: began.Add(-9 * 365 * day), Text: "old from the start"}}))
	must(t, k.Tend(t.Context()))
	if got := texts(t, client, db.LogFilter{LineRegexp: "^old"}); len(got) != 1 {
		t.Errorf("a line with an old time: %q", got)
	}
	for n := range 100 {
		c.at = began.Add(time.Duration(n) * day)
		must(t, k.Insert(t.Context(), []db.Line{{Stream: id, Time: c.at, Text: fmt.Sprint("day ", n)}}))
		must(t, k.Tend(t.Context()))
		if found := parts(t, k); len(found) > 40 {
			t.Fatalf("%d partitions", len(found))
		}
	}
	got := texts(t, client, db.LogFilter{StreamsRegexp: "^app$"})
	if n := len(got); n < 31 || n > 32 || got[n-1] != "rpi.app day 99" {
		t.Errorf("after 100 days, of which 30 are kept: %q", got)
	}
	for _, line := range texts(t, client, db.LogFilter{StreamsRegexp: `^platform\.logs$`}) {
		if !strings.Contains(line, "were dropped, as max_age of the site file asks") {
			t.Errorf("%q", line)
		}
	}
	// A line of a time that has been dropped is stored, and dropped again.
	must(t, k.Insert(t.Context(), []db.Line{{Stream: id, Time: began, Text: "late"}}))
	must(t, k.Tend(t.Context()))
	if got := texts(t, client, db.LogFilter{LineRegexp: "^late$"}); len(got) > 0 {
		t.Errorf("%q", got)
	}
	// The device goes with its lines, wherever they are.
	must(t, k.Insert(t.Context(), []db.Line{{Stream: id, Time: began, Text: "late"}}))
	must(t, client.DeleteDevice(t.Context(), nodeMAC))
	if got := texts(t, client, db.LogFilter{Issuers: []string{"rpi"}}); len(got) > 0 {
		t.Errorf("lines of a forgotten device: %q", got)
	}
	// The platform was off for a year.
	c.at = c.at.Add(365 * day)
	must(t, k.Tend(t.Context()))
	if found := parts(t, k); len(found) > 5 {
		t.Errorf("after a year off: %q", found)
	}
}

// TestRetentionBySize: partitions end early when they grow, and the oldest go.
func TestRetentionBySize(t *testing.T) {
	began := time.Now().UTC().Truncate(time.Hour)
	c := &clock{began}
	const limit = 16 << 20
	k, client, id := keeping(t, 0, limit, c)
	text := strings.Repeat("x", 1000)
	for n := range 30 {
		c.at = began.Add(time.Duration(n) * time.Hour)
		var lines []db.Line
		for i := range 1500 {
			lines = append(lines, db.Line{Stream: id, Time: c.at.Add(time.Duration(i) * time.Microsecond), Text: fmt.Sprint(n, " ", text)})
		}
		must(t, k.Insert(t.Context(), lines))
		c.at = c.at.Add(time.Minute)
		must(t, k.Tend(t.Context()))
	}
	n, err := client.CountLogs(t.Context(), db.LogFilter{StreamsRegexp: "app"})
	must(t, err)
	if bytes := n * 1100; bytes < limit/2 || bytes > limit {
		t.Errorf("%d lines are kept, about %d bytes of %d", n, bytes, limit)
	}
	// The last lines are there.
	if got := texts(t, client, db.LogFilter{LineRegexp: "^29 "}); len(got) != 1500 {
		t.Errorf("%d of the last lines", len(got))
	}
	if got := texts(t, client, db.LogFilter{StreamsRegexp: `^platform\.logs$`}); len(got) == 0 {
		t.Error("nothing says what was dropped")
	}
}

// TestClockJump: lines are stored although the clock has passed the last partition.
func TestClockJump(t *testing.T) {
	c := &clock{time.Now()}
	k, client, id := keeping(t, 0, 0, c)
	for _, jump := range []time.Duration{400 * day, -800 * day} {
		c.at = c.at.Add(jump)
		must(t, k.Insert(t.Context(), []db.Line{{Stream: id, Time: c.at, Text: "x"}}))
	}
	if got := texts(t, client, db.LogFilter{}); len(got) != 2 {
		t.Errorf("%q", got)
	}
}

// TestRetentionAndReaders: somebody who reads a history does not hold up lines.
func TestRetentionAndReaders(t *testing.T) {
	began := time.Now()
	c := &clock{began}
	k, client, id := keeping(t, day, 0, c)
	must(t, k.Insert(t.Context(), []db.Line{{Stream: id, Time: began, Text: "first"}}))
	cursor, err := client.OpenLogs(t.Context(), db.LogFilter{})
	must(t, err)
	defer cursor.Close()
	_, err = cursor.Next(t.Context())
	must(t, err)
	c.at = began.Add(3 * day)
	if err := k.Tend(t.Context()); err == nil {
		t.Error("partitions were changed under a reader")
	}
	must(t, client.InsertLines(t.Context(), []db.Line{{Stream: id, Time: time.Now(), Text: "second"}}))
	cursor.Close()
	dbtest.Wait(t, "the end of the history", func(ctx context.Context) error { return k.Tend(ctx) })
	if got := texts(t, client, db.LogFilter{LineRegexp: "first"}); len(got) > 0 {
		t.Errorf("%q", got)
	}
}

// TestOldTable opens the database of a WalT 10.0 with lines.
func TestOldTable(t *testing.T) {
	p := dbtest.Start(t)
	load(t, p, "10.0")
	conn := p.Connect("walt")
	ctx := t.Context()
	_, err := conn.Exec(ctx, `INSERT INTO logs SELECT id, now() - i * interval '1 day', 'old ' || i FROM logstreams, generate_series(1, 1000) i`)
	must(t, err)
	var before string
	must(t, conn.QueryRow(ctx, `SELECT pg_relation_filenode('logs')::text`).Scan(&before))
	began := time.Now()
	c := &clock{began}
	k := keeper(t, p, 0, 0, c)
	var after string
	must(t, conn.QueryRow(ctx, `SELECT pg_relation_filenode('logs_default')::text`).Scan(&after))
	if before != after {
		t.Error("the old table was written anew")
	}
	var n int
	must(t, conn.QueryRow(ctx, `SELECT count(*) FROM logs WHERE line LIKE 'old %'`).Scan(&n))
	var id int64
	must(t, conn.QueryRow(ctx, `SELECT min(id) FROM logstreams`).Scan(&id))
	if n == 0 || n%1000 != 0 {
		t.Errorf("%d old lines", n)
	}
	for range 5 { // new lines go to the old table, then to partitions
		must(t, k.Insert(ctx, []db.Line{{Stream: id, Time: c.at, Text: "new"}}))
		must(t, k.Tend(ctx))
		c.at = c.at.Add(time.Hour)
	}
	var inOld, inAll int
	must(t, conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM logs_default WHERE line = 'new'), (SELECT count(*) FROM logs WHERE line = 'new')`).Scan(&inOld, &inAll))
	if inOld < 2 || inOld > 3 || inAll != 5 {
		t.Errorf("%d of %d new lines are in the old table", inOld, inAll)
	}
	if found := parts(t, k); len(found) < 2 {
		t.Errorf("partitions %q", found)
	}
	// By its age it goes as a whole.
	old := keeper(t, p, 90*day, 0, c)
	c.at = c.at.Add(91 * day)
	must(t, old.Tend(ctx))
	must(t, conn.QueryRow(ctx, `SELECT count(*) FROM logs_default`).Scan(&n))
	if n != 0 {
		t.Errorf("%d lines are left", n)
	}
}

// TestOldSendersAreForgotten: what tells batches that are stored takes no room for ever.
func TestOldSendersAreForgotten(t *testing.T) {
	p := dbtest.Start(t)
	c := &clock{time.Now()}
	k := keeper(t, p, 0, 0, c)
	client := db.Dial(filepath.Join(p.Serve(), filepath.Base(db.Socket)))
	t.Cleanup(client.Close)
	dbtest.Wait(t, "server-db", client.Ping)
	for sender := range int64(3) {
		must(t, client.InsertRows(t.Context(), db.Batch{Sender: sender + 1, Number: 1}, db.AppendRow(nil, c.at, "of nobody")))
	}
	look := p.Connect("walt")
	senders := func() (n int) {
		must(t, look.QueryRow(t.Context(), `SELECT count(*) FROM logs_batches`).Scan(&n))
		return n
	}
	must(t, k.Tend(t.Context()))
	if n := senders(); n != 3 {
		t.Errorf("%d senders of 3 are known", n)
	}
	c.at = c.at.Add(31 * day)
	must(t, k.Tend(t.Context()))
	if n := senders(); n != 0 {
		t.Errorf("%d senders are known after a month", n)
	}
}

// TestHistoryThatBlocksRetention is read for more than an hour after old lines were due to
// be dropped: it ends, and not before.
func TestHistoryThatBlocksRetention(t *testing.T) {
	c := &clock{time.Now().UTC().Truncate(time.Hour)}
	k, client, id := keeping(t, 30*day, 0, c)
	must(t, k.Insert(t.Context(), []db.Line{{Stream: id, Time: c.at, Text: "old"}}))
	peer := reader(t)
	must(t, k.Read(t.Context(), peer))
	c.at = c.at.Add(60 * day)
	old := func() int { return len(texts(t, client, db.LogFilter{LineRegexp: "^old$"})) }

	since := k.TendOn(t.Context(), time.Time{})
	if since != c.at {
		t.Fatalf("it is in the way since %v, and the time is %v", since, c.at)
	}
	c.at = c.at.Add(59 * time.Minute)
	if again := k.TendOn(t.Context(), since); again != since {
		t.Fatalf("it is in the way since %v, and then since %v", since, again)
	}
	must(t, k.More(t.Context(), peer)) // it goes on
	c.at = c.at.Add(2 * time.Minute)
	k.TendOn(t.Context(), since)
	if err := k.More(t.Context(), peer); err == nil {
		t.Error("it is still read")
	}
	if n := old(); n != 1 {
		t.Errorf("the old line is there %d times", n)
	}
	if since := k.TendOn(t.Context(), since); !since.IsZero() {
		t.Error("something is still in the way")
	}
	if n := old(); n != 0 {
		t.Error("the old line is still there")
	}
	if told := texts(t, client, db.LogFilter{LineRegexp: "readers of log histories were ended"}); len(told) != 1 {
		t.Errorf("users are told %q", told)
	}
}

// reader returns one who may read histories.
func reader(t *testing.T) *connector.Peer {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	must(t, err)
	peers := make(chan *connector.Peer, 1)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- connector.Listen(ctx, ln, func(_ context.Context, p *connector.Peer, _ string, _ []byte) (any, error) {
			peers <- p
			return nil, nil
		})
	}()
	t.Cleanup(func() { cancel(); must(t, <-ended) })
	client := connector.Dial(ln.Addr().String(), nil)
	t.Cleanup(client.Close)
	must(t, client.Call(t.Context(), "hello", nil, nil))
	return <-peers
}
