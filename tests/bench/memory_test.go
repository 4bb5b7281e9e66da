package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/waltos/waltos/services/daemon/db/dbtest"
)

// daemonServices are the four processes of the daemon.
var daemonServices = []string{"server-hub", "server-main", "server-db", "server-blocking"}

// BenchmarkMemory reports the memory of the four processes of the daemon: after their
// start, and with 1,000 nodes that hold their boot status and 100 users that hold a
// session each. What processes share counts once in the sum (PSS).
func BenchmarkMemory(b *testing.B) {
	const nodes, users = 1000, 100
	for b.Loop() {
		d := newDaemonOf(b, nodes)
		d.AwaitCall("show_nodes", "alice", true)
		rest := d.memory("at rest")
		b.ReportMetric(rest, "MiB(at-rest)")
		for i := 1; i <= nodes; i++ {
			d.bootStatus(i)
		}
		dbtest.Wait(b, "the boot of all nodes", func(ctx context.Context) error {
			shown, err := d.session().Call(ctx, "show_nodes", "alice", true)
			if err != nil {
				return err
			}
			if n := strings.Count(shown.(string), " yes"); n != nodes {
				return fmt.Errorf("%d nodes are booted", n)
			}
			return nil
		})
		for range users {
			if _, err := d.session().Call(b.Context(), "show_nodes", "alice", true); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(d.memory(fmt.Sprintf("with %d nodes and %d users", nodes, users)), "MiB(1000-nodes,100-users)")
	}
}

// bootStatus opens the connection by which a node says that it is booted, for as long as
// the benchmark lasts.
func (d *daemon) bootStatus(node int) {
	d.b.Helper()
	from := nodeIP(node)
	if node == 1 {
		from = "127.0.0.1"
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.DialContext(d.b.Context(), "tcp", d.Streams)
	if err != nil {
		d.b.Fatal(err)
	}
	d.b.Cleanup(func() { conn.Close() })
	if _, err := conn.Write([]byte("14\nbooted\n")); err != nil {
		d.b.Fatal(err)
	}
}

// memory prints and returns the MiB of the daemon.
func (d *daemon) memory(when string) float64 {
	d.b.Helper()
	t := newTable("PROCESS, "+when, "PSS MiB", "PRIVATE", "RSS")
	sum := 0.0
	for _, service := range daemonServices {
		pss, private, rss := d.resident(d.PID(service))
		sum += pss
		t.row(service, fmt.Sprintf("%.1f", pss), fmt.Sprintf("%.1f", private), fmt.Sprintf("%.1f", rss))
	}
	t.row("all", fmt.Sprintf("%.1f", sum))
	t.print(d.b)
	return sum
}

// resident returns the MiB of a process: its share of what several have, what it has
// alone, and all.
func (d *daemon) resident(pid int) (pss, private, rss float64) {
	d.b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		d.b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var name string
		var kB float64
		fmt.Sscan(line, &name, &kB)
		switch name {
		case "Pss:":
			pss = kB / 1024
		case "Private_Dirty:", "Private_Clean:":
			private += kB / 1024
		case "Rss:":
			rss = kB / 1024
		}
	}
	return pss, private, rss
}
