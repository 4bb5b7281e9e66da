package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	folder       string // of what the processes print
	postgres     *dbtest.Postgres
	api, streams string
}

const (
	serverMAC = "02:00:00:00:00:05"
	nodeMAC   = "02:00:00:00:00:10"
	nodeImage = "waltplatform/pc-x86-64-default:latest"
)

// newDaemon starts the daemon of a platform with one node, which is this machine.
func newDaemon(b *testing.B) *daemon {
	b.Helper()
	d := &daemon{b: b, folder: b.TempDir(), postgres: dbtest.Start(b), api: freePort(b), streams: freePort(b)}
	d.program = filepath.Join(d.folder, "services")
	if out, err := exec.CommandContext(b.Context(), "go", "build", "-o", d.program, source+"/services").CombinedOutput(); err != nil {
		b.Fatalf("cannot compile the services: %v\n%s", err, out)
	}
	sockets := d.folder
	d.run("server-db", "-dsn", d.postgres.DSN, "-socket-dir", sockets)
	database := db.Dial(filepath.Join(sockets, filepath.Base(db.Socket)))
	defer database.Close()
	node := db.Device{MAC: nodeMAC, IP: "127.0.0.1", Name: "node1", Type: "node", Image: nodeImage, Model: "pc-x86-64"}
	dbtest.Wait(b, "the database", func(ctx context.Context) error {
		if err := database.SaveImage(ctx, nodeImage); err != nil {
			return err
		}
		return database.SaveDevice(ctx, node)
	})
	site := filepath.Join(b.TempDir(), "walt.hcl")
	// The loopback is walt-net, so that connections of the benchmark come from the node.
	if err := os.WriteFile(site, []byte("network \"walt-net\" { ip = \"127.0.0.5/24\" }\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	d.run("server-main", "-site", site, "-socket-dir", sockets, "-listen-streams", d.streams, "-listen-netconsole", "127.0.0.1:0",
		"-server-mac", serverMAC, "-images=false")
	d.run("server-hub", "-listen", d.api, "-socket-dir", sockets)
	dbtest.Wait(b, "the daemon", func(ctx context.Context) error {
		s, err := client.Dial(ctx, d.api, client.Options{API: "CSAPI"})
		if err != nil {
			return err
		}
		defer s.Close()
		_, err = s.Call(ctx, "get_time")
		return err
	})
	return d
}

// run starts a service and ends it with the benchmark.
func (d *daemon) run(service string, args ...string) {
	d.b.Helper()
	printed, err := os.Create(filepath.Join(d.folder, service+".log"))
	if err != nil {
		d.b.Fatal(err)
	}
	command := exec.Command(d.program, append([]string{service}, args...)...)
	command.Stdout, command.Stderr = printed, printed
	if err := command.Start(); err != nil {
		d.b.Fatal(err)
	}
	d.b.Cleanup(func() {
		command.Process.Signal(syscall.SIGTERM)
		if err := command.Wait(); err != nil {
			d.b.Errorf("%s: %v", service, err)
		}
		printed.Close()
		if text, err := os.ReadFile(printed.Name()); err == nil && d.b.Failed() {
			d.b.Logf("%s printed:\n%s", service, text[max(0, len(text)-4096):])
		}
	})
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

// duration is how long each rate is measured.
const duration = 3 * time.Second

// rate returns how often a second the clients together do what each returns.
func rate(b *testing.B, clients int, open func() (do func() error)) float64 {
	b.Helper()
	counts := make([]int, clients)
	var group errgroup.Group
	began := time.Now()
	for i := range clients {
		do := open()
		group.Go(func() error {
			for time.Since(began) < duration {
				if err := do(); err != nil {
					return err
				}
				counts[i]++
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return float64(sum) / time.Since(began).Seconds()
}

// BenchmarkAPI compares calls through server-hub and server-main with a bare exchange
// of as many bytes over TCP.
func BenchmarkAPI(b *testing.B) {
	const clients = 8
	d := newDaemon(b)
	session := func() *client.Session {
		s, err := client.Dial(b.Context(), d.api, client.Options{API: "CSAPI", Handler: (&client.User{Name: "alice"}).Serve})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { s.Close() })
		return s
	}
	calling := func(method string, args ...any) func() func() error {
		return func() func() error {
			s := session()
			return func() error {
				_, err := s.Call(b.Context(), method, args...)
				return err
			}
		}
	}
	shown, err := session().Call(b.Context(), "show_nodes", "alice", true)
	if text, _ := shown.(string); err != nil || !strings.Contains(text, "node1") {
		b.Fatalf("show_nodes: %v, %v", shown, err)
	}
	// ["API_CALL", "get_time", (), {}] and ["RESULT", a float] take about this.
	echo := echoServer(b)
	const request, answer = 38, 40
	for b.Loop() {
		bare := rate(b, clients, func() func() error {
			conn, err := net.Dial("tcp", echo)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { conn.Close() })
			buffer := make([]byte, max(request, answer))
			return func() error {
				if _, err := conn.Write(buffer[:request]); err != nil {
					return err
				}
				_, err := io.ReadFull(conn, buffer[:request])
				return err
			}
		})
		getTime := rate(b, clients, calling("get_time"))
		showNodes := rate(b, clients, calling("show_nodes", "alice", true))
		t := newTable("CALL, "+fmt.Sprint(clients)+" connections", "PER SECOND", "OF BARE TCP")
		for _, r := range []struct {
			name string
			rate float64
		}{{"bare TCP echo", bare}, {"get_time", getTime}, {"show_nodes, 1 node", showNodes}} {
			t.row(r.name, fmt.Sprintf("%.0f", r.rate), fmt.Sprintf("%.3f", r.rate/bare))
		}
		t.print(b)
		b.ReportMetric(bare, "echo/s")
		b.ReportMetric(getTime, "get_time/s")
		b.ReportMetric(showNodes, "show_nodes/s")
	}
}

// echoServer returns what it gets.
func echoServer(b *testing.B) string {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buffer := make([]byte, 4096)
				for {
					n, err := conn.Read(buffer)
					if err != nil {
						return
					}
					if _, err := conn.Write(buffer[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
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
	for n := 0; b.Loop(); n++ {
		began := time.Now()
		var group errgroup.Group
		for i := range streams {
			group.Go(func() error {
				return client.SendLogs(b.Context(), d.streams, fmt.Sprintf("bench.%d.%d", n, i), lines...)
			})
		}
		if err := group.Wait(); err != nil {
			b.Fatal(err)
		}
		// This call is answered once everything received is stored.
		counted, err := session.CallKeywords(b.Context(), "count_logs", nil, pickle.NewDict(
			"history", pickle.Tuple{nil, nil}, "streams_regexp", fmt.Sprintf(`^bench\.%d\.`, n)))
		if err != nil || counted != int64(all) {
			b.Fatalf("%v of %d lines are stored (%v)", counted, all, err)
		}
		daemon := float64(all) / time.Since(began).Seconds()
		bare := float64(all) / copyRows(b, conn, fmt.Sprint("bare", n), streams, lines).Seconds()
		t := newTable("LINES, "+fmt.Sprint(streams)+" streams", "PER SECOND", "OF BARE COPY")
		t.row("bare COPY", fmt.Sprintf("%.0f", bare), "1")
		t.row("through the daemon", fmt.Sprintf("%.0f", daemon), fmt.Sprintf("%.3f", daemon/bare))
		t.print(b)
		b.ReportMetric(daemon, "lines/s")
		b.ReportMetric(bare, "bare-lines/s")
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
