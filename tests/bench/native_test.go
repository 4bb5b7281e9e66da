package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/waltos/waltos/services/daemon/daemontest"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/wire/client"
	"github.com/waltos/waltos/services/wire/pickle"
)

// daemon is the daemon without appliance.
type daemon struct {
	*daemontest.Daemon
	b *testing.B
}

// newDaemon starts the daemon of a platform with one node, which is this machine.
func newDaemon(b *testing.B) *daemon { return newDaemonOf(b, 1) }

// newDaemonOf starts the daemon of a platform with that many nodes: node1 is this
// machine, and the others have the addresses of nodeIP. Each process is given arguments.
func newDaemonOf(b *testing.B, nodes int, arguments ...string) *daemon {
	b.Helper()
	program := filepath.Join(b.TempDir(), "services")
	build := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, source+"/services")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as the appliance's
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("cannot compile the services: %v\n%s", err, out)
	}
	all := map[string][]string{}
	for _, service := range daemonServices {
		all[service] = arguments
	}
	devices := []db.Device{{MAC: "02:00:00:00:00:10", IP: "127.0.0.1", Name: "node1"}}
	for i := 2; i <= nodes; i++ {
		devices = append(devices, db.Device{MAC: fmt.Sprintf("02:00:00:01:%02x:%02x", i>>8, i&0xff), IP: nodeIP(i), Name: fmt.Sprint("node", i)})
	}
	for i := range devices {
		devices[i].Type, devices[i].Model, devices[i].Image = "node", "pc-x86-64", daemontest.Image
	}
	return &daemon{b: b, Daemon: daemontest.Start(b, daemontest.Config{Program: program, Arguments: all, Devices: devices})}
}

// nodeIP is the address of a node but the first: the whole of 127/8 is this machine.
func nodeIP(n int) string { return fmt.Sprintf("127.1.%d.%d", n>>8, n&0xff) }

// BenchmarkLogs compares log lines of a node's streams, until all are in the database,
// with a bare COPY of the same rows into a table like it.
func BenchmarkLogs(b *testing.B) {
	const streams, perStream = 16, 20_000
	const all = streams * perStream
	d := newDaemon(b)
	lines := make([]string, perStream)
	for i := range lines {
		lines[i] = fmt.Sprintf("measure %d: temperature 21.5 humidity 40 light 300 lux", i)
	}
	session, err := client.Dial(b.Context(), d.API, client.Options{API: "CSAPI"})
	if err != nil {
		b.Fatal(err)
	}
	defer session.Close()
	conn := d.Postgres.Connect("walt")
	// A call that reads logs is answered once everything received is stored.
	count := func(streams string) any {
		n, err := session.CallKeywords(b.Context(), "count_logs", nil, pickle.NewDict(
			"history", pickle.Tuple{nil, nil}, "streams_regexp", streams))
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	// In turns, so that what else the machine does befalls both.
	const rounds = 7
	for n := 0; b.Loop(); n++ {
		var daemon, bare, ratios []float64
		for round := range rounds {
			began := time.Now()
			var group errgroup.Group
			for i := range streams {
				group.Go(func() error {
					return client.SendLogs(b.Context(), d.Streams, fmt.Sprintf("bench.%d.%d.%d", n, round, i), lines...)
				})
			}
			if err := group.Wait(); err != nil {
				b.Fatal(err)
			}
			count("^of no line$")
			daemon = append(daemon, all/time.Since(began).Seconds())
			if n := count(fmt.Sprintf(`^bench\.%d\.%d\.`, n, round)); n != int64(all) {
				b.Fatalf("%v of %d lines are stored", n, all)
			}
			bare = append(bare, all/copyRows(b, conn, fmt.Sprintf("bare_%d_%d", n, round), streams, lines).Seconds())
			ratios = append(ratios, daemon[round]/bare[round])
		}
		ratio := median(ratios)
		t := newTable("LINES, "+fmt.Sprint(streams)+" streams", "PER SECOND", "OF BARE COPY")
		t.row("bare COPY", fmt.Sprintf("%.0f", median(bare)), "1")
		t.row("through the daemon", fmt.Sprintf("%.0f", median(daemon)), fmt.Sprintf("%.3f", ratio))
		t.print(b)
		b.ReportMetric(median(daemon), "lines/s")
		b.ReportMetric(median(bare), "bare-lines/s")
		b.ReportMetric(ratio, "daemon/bare")
	}
}

// copyRows writes the same rows in one COPY to a table with the same indexes.
func copyRows(b *testing.B, conn *pgx.Conn, name string, streams int, lines []string) time.Duration {
	b.Helper()
	if _, err := conn.Exec(b.Context(), "CREATE TABLE "+name+" (LIKE logs INCLUDING ALL)"); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	_, err := conn.CopyFrom(b.Context(), pgx.Identifier{name}, []string{"stream_id", "timestamp", "line"},
		pgx.CopyFromSlice(streams*len(lines), func(i int) ([]any, error) {
			return []any{i / len(lines), time.Now(), lines[i%len(lines)]}, nil
		}))
	if err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}
