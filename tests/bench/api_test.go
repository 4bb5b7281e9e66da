package bench

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/waltos/waltos/services/wire/client"
)

// duration is how long each rate is measured.
const duration = 3 * time.Second

// pace is how fast something was done over and over by several clients at once.
type pace struct {
	calls    int
	rate     float64 // per second, of all together
	p50, p99 time.Duration
}

// measure has the clients do over and over what each open returns.
func measure(b *testing.B, clients int, open func() (do func() error)) pace {
	b.Helper()
	return repeat(b, duration, opened(clients, open))
}

func opened(clients int, open func() (do func() error)) []func() error {
	do := make([]func() error, clients)
	for i := range do {
		do[i] = open()
	}
	return do
}

// repeat does each thing over and over, all at once.
func repeat(b *testing.B, duration time.Duration, do []func() error) pace {
	b.Helper()
	took := make([][]time.Duration, len(do))
	var group errgroup.Group
	began := time.Now()
	for i := range do {
		group.Go(func() error {
			for last := began; last.Sub(began) < duration; {
				if err := do[i](); err != nil {
					return err
				}
				now := time.Now()
				took[i] = append(took[i], now.Sub(last))
				last = now
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	elapsed := time.Since(began)
	all := slices.Concat(took...)
	slices.Sort(all)
	return pace{len(all), float64(len(all)) / elapsed.Seconds(), all[len(all)/2], all[len(all)*99/100]}
}

// row prints a pace, compared with a limit.
func (p pace) row(t *table, name string, limit pace) {
	t.row(name, fmt.Sprintf("%.0f", p.rate), fmt.Sprintf("%.3f", p.rate/limit.rate), milliseconds(p.p50), milliseconds(p.p99))
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.3f", float64(d)/float64(time.Millisecond))
}

// session opens a session that ends with the benchmark.
func (d *daemon) session() *client.Session {
	d.b.Helper()
	s, err := client.Dial(d.b.Context(), d.API, client.Options{API: "CSAPI", Handler: (&client.User{Name: "alice"}).Serve})
	if err != nil {
		d.b.Fatal(err)
	}
	d.b.Cleanup(func() { s.Close() })
	return s
}

// calling returns what measure opens: clients that each call a method in a session.
func (d *daemon) calling(method string, args ...any) func() func() error {
	return func() func() error { return calling(d.b, d.session(), method, args...) }
}

// calling returns a call of a method in a session.
func calling(b *testing.B, s *client.Session, method string, args ...any) func() error {
	return func() error {
		_, err := s.Call(b.Context(), method, args...)
		return err
	}
}

const apiClients = 8

// BenchmarkAPI compares calls through server-hub and server-main with a bare exchange
// of as many bytes over TCP, and the listing of nodes with the bare SELECT that upstream
// answers it by.
func BenchmarkAPI(b *testing.B) {
	// As each process of the daemon, so that waking idle processors is not what is measured.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(1, runtime.NumCPU()/2)))
	small, large := newDaemon(b), newDaemonOf(b, 200)
	for n, d := range map[int]*daemon{1: small, 200: large} {
		shown, err := d.session().Call(b.Context(), "show_nodes", "alice", true)
		if text, _ := shown.(string); err != nil || strings.Count(text, "pc-x86-64") != n {
			b.Fatalf("show_nodes of %d: %v, %v", n, shown, err)
		}
	}
	// ["API_CALL", "get_time", (), {}] and ["RESULT", a float] take about this.
	echo := echoServer(b)
	const message = 38
	for b.Loop() {
		bare := measure(b, apiClients, func() func() error {
			conn, err := net.Dial("tcp", echo)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { conn.Close() })
			buffer := make([]byte, message)
			return func() error {
				if _, err := conn.Write(buffer); err != nil {
					return err
				}
				_, err := io.ReadFull(conn, buffer)
				return err
			}
		})
		t := newTable("CALL, "+fmt.Sprint(apiClients)+" connections", "PER SECOND", "OF BARE TCP", "MS p50", "MS p99")
		bare.row(t, "bare TCP echo", bare)
		getTime := measure(b, apiClients, small.calling("get_time"))
		getTime.row(t, "get_time", bare)
		one := measure(b, apiClients, small.calling("show_nodes", "alice", true))
		one.row(t, "show_nodes, 1 node", bare)
		many := measure(b, apiClients, large.calling("show_nodes", "alice", true))
		many.row(t, "show_nodes, 200 nodes", bare)
		ips := measure(b, apiClients, small.calling("get_nodes_ip", "node1"))
		ips.row(t, "get_nodes_ip", bare)
		user := measure(b, apiClients, small.calling("get_nodes_ip", "no-such-node"))
		user.row(t, "get_nodes_ip, refused: with a callback", bare)
		selected := measure(b, apiClients, small.selecting())
		selected.row(t, "bare SELECT, 1 node", bare)
		selectedMany := measure(b, apiClients, large.selecting())
		selectedMany.row(t, "bare SELECT, 200 nodes", bare)
		t.print(b)
		b.ReportMetric(bare.rate, "echo/s")
		b.ReportMetric(getTime.rate, "get_time/s")
		b.ReportMetric(getTime.p99.Seconds()*1e3, "ms(get_time,p99)")
		b.ReportMetric(one.rate, "show_nodes/s")
		b.ReportMetric(many.rate, "show_nodes(200)/s")
		b.ReportMetric(many.p99.Seconds()*1e3, "ms(show_nodes(200),p99)")
	}
}

// selecting returns what measure opens: connections to PostgreSQL that read the nodes.
func (d *daemon) selecting() func() func() error {
	return func() func() error {
		conn := d.Postgres.Connect("walt")
		return func() error {
			rows, err := conn.Query(d.b.Context(),
				`SELECT d.name, d.mac, d.ip, d.virtual, d.conf::text, n.image, n.model
				 FROM devices d, nodes n WHERE d.mac = n.mac ORDER BY split_part(n.image, '/', 1), d.name`)
			if err != nil {
				return err
			}
			rows.Close()
			return rows.Err()
		}
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
