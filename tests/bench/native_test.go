package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
	"github.com/waltos/waltos/services/wire/client"
	"github.com/waltos/waltos/services/wire/pickle"
)

// daemon is the daemon without appliance: its processes on this machine, with the
// PostgreSQL of the lock.
type daemon struct {
	b            *testing.B
	program      string // services
	folder       string // of sockets, and of what the processes print
	site         string
	postgres     *dbtest.Postgres
	api, streams string
	commands     map[string]*exec.Cmd // by service, the latest of each
	arguments    []string             // of each service
}

const (
	serverMAC = "02:00:00:00:00:05"
	nodeMAC   = "02:00:00:00:00:10"
	nodeImage = "waltplatform/pc-x86-64-default:latest"
)

// newDaemon starts the daemon of a platform with one node, which is this machine.
func newDaemon(b *testing.B) *daemon { return newDaemonOf(b, 1) }

// newDaemonOf starts the daemon of a platform with that many nodes: node1 is this
// machine, and the others have the addresses of nodeIP. Each process is given arguments.
func newDaemonOf(b *testing.B, nodes int, arguments ...string) *daemon {
	b.Helper()
	d := &daemon{
		b: b, folder: b.TempDir(), postgres: dbtest.Start(b), api: freePort(b), streams: freePort(b),
		commands: map[string]*exec.Cmd{}, arguments: arguments,
	}
	d.program = filepath.Join(d.folder, "services")
	build := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", d.program, source+"/services")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as the appliance's
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("cannot compile the services: %v\n%s", err, out)
	}
	d.site = filepath.Join(d.folder, "walt.hcl")
	// The loopback is walt-net, so that connections of the benchmark come from nodes.
	if err := os.WriteFile(d.site, []byte("network \"walt-net\" { ip = \"127.0.0.5/8\" }\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	d.startDatabase()
	database := db.Dial(filepath.Join(d.folder, filepath.Base(db.Socket)))
	defer database.Close()
	node := db.Device{MAC: nodeMAC, IP: "127.0.0.1", Name: "node1", Type: "node", Image: nodeImage, Model: "pc-x86-64"}
	dbtest.Wait(b, "the database", func(ctx context.Context) error {
		if err := database.SaveImage(ctx, nodeImage); err != nil {
			return err
		}
		return database.SaveDevice(ctx, node)
	})
	d.addNodes(2, nodes)
	d.startOthers()
	d.waitAnswer("get_time")
	return d
}

// addNodes writes the nodes of these numbers to the database.
func (d *daemon) addNodes(first, last int) {
	d.b.Helper()
	conn := d.postgres.Connect("walt")
	for i := first; i <= last; i++ {
		mac := fmt.Sprintf("02:00:00:01:%02x:%02x", i>>8, i&0xff)
		batch := &pgx.Batch{}
		batch.Queue("INSERT INTO devices (mac, ip, name, type) VALUES ($1, $2, $3, 'node')", mac, nodeIP(i), fmt.Sprint("node", i))
		batch.Queue("INSERT INTO nodes (mac, image, model) VALUES ($1, $2, 'pc-x86-64')", mac, nodeImage)
		if err := conn.SendBatch(d.b.Context(), batch).Close(); err != nil {
			d.b.Fatal(err)
		}
	}
}

// nodeIP is the address of a node but the first: the whole of 127/8 is this machine.
func nodeIP(n int) string { return fmt.Sprintf("127.1.%d.%d", n>>8, n&0xff) }

func (d *daemon) startDatabase() { d.run("server-db", "-dsn", d.postgres.DSN, "-socket-dir", d.folder) }

// startOthers starts all but server-db.
func (d *daemon) startOthers() {
	d.run("server-blocking", "-socket-dir", d.folder)
	d.run("server-main", "-site", d.site, "-socket-dir", d.folder, "-listen-streams", d.streams, "-listen-netconsole", "127.0.0.1:0",
		"-server-mac", serverMAC, "-images=false")
	d.run("server-hub", "-listen", d.api, "-socket-dir", d.folder)
}

// waitAnswer waits until a call returns.
func (d *daemon) waitAnswer(method string, args ...any) {
	d.b.Helper()
	dbtest.Wait(d.b, "the daemon", func(ctx context.Context) error {
		s, err := client.Dial(ctx, d.api, client.Options{API: "CSAPI"})
		if err != nil {
			return err
		}
		defer s.Close()
		_, err = s.Call(ctx, method, args...)
		return err
	})
}

// run starts a service and ends it with the benchmark.
func (d *daemon) run(service string, args ...string) {
	d.b.Helper()
	printed, err := os.Create(filepath.Join(d.folder, service+".log"))
	if err != nil {
		d.b.Fatal(err)
	}
	command := exec.Command(d.program, slices.Concat([]string{service}, args, d.arguments)...)
	command.Stdout, command.Stderr = printed, printed
	if err := command.Start(); err != nil {
		d.b.Fatal(err)
	}
	d.commands[service] = command
	d.b.Cleanup(func() {
		d.end(command)
		printed.Close()
		if text, err := os.ReadFile(printed.Name()); err == nil && d.b.Failed() {
			d.b.Logf("%s printed:\n%s", service, text[max(0, len(text)-4096):])
		}
	})
}

// end stops a process of the daemon, which may have been stopped before.
func (d *daemon) end(command *exec.Cmd) {
	if command.ProcessState != nil {
		return
	}
	command.Process.Signal(syscall.SIGTERM)
	if err := command.Wait(); err != nil {
		d.b.Errorf("%s: %v", command.Args[1], err)
	}
}

func freePort(b *testing.B) string {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

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
	session, err := client.Dial(b.Context(), d.api, client.Options{API: "CSAPI"})
	if err != nil {
		b.Fatal(err)
	}
	defer session.Close()
	conn := d.postgres.Connect("walt")
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
					return client.SendLogs(b.Context(), d.streams, fmt.Sprintf("bench.%d.%d.%d", n, round, i), lines...)
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
