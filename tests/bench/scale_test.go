package bench

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkScale reports a platform of 10,000 nodes: the listing of all of them, the
// start of the daemon until it answers, and its memory. The start of a platform of one
// node is in the same table.
func BenchmarkScale(b *testing.B) {
	const nodes = 10_000
	for b.Loop() {
		small, large := newDaemon(b), newDaemonOf(b, nodes)
		large.AwaitCall("show_nodes", "alice", true)
		bare := measure(b, 1, large.selecting())
		shown := measure(b, 1, large.calling("show_nodes", "alice", true))
		// Each change of a node makes the listing anew.
		d, changes := large.session(), 0
		fresh := measure(b, 1, func() func() error {
			return func() error {
				changes++
				if _, err := d.Call(b.Context(), "rename", fmt.Sprint("node", 1+changes), fmt.Sprint("renamed", changes)); err != nil {
					return err
				}
				_, err := d.Call(b.Context(), "show_nodes", "alice", true)
				return err
			}
		})
		t := newTable("10,000 NODES, 1 connection", "PER SECOND", "OF BARE SELECT", "MS p50", "MS p99")
		bare.row(t, "bare SELECT", bare)
		shown.row(t, "show_nodes", bare)
		fresh.row(t, "rename, show_nodes", bare)
		t.print(b)

		starts := newTable("EXEC, PostgreSQL running", "12345 ANSWERS get_time", "show_nodes")
		one, oneShown := small.restart()
		all, allShown := large.restart()
		starts.row("1 node", milliseconds(one)+" ms", milliseconds(oneShown)+" ms")
		starts.row("10,000 nodes", milliseconds(all)+" ms", milliseconds(allShown)+" ms")
		starts.print(b)
		large.memory("10,000 nodes")
		b.ReportMetric(shown.p99.Seconds()*1e3, "ms(show_nodes(10000),p99)")
		b.ReportMetric(fresh.p99.Seconds()*1e3, "ms(rename+show_nodes(10000),p99)")
		b.ReportMetric(one.Seconds()*1e3, "ms(exec-to-12345,1)")
		b.ReportMetric(all.Seconds()*1e3, "ms(exec-to-12345,10000)")
		b.ReportMetric(allShown.Seconds()*1e3, "ms(exec-to-show_nodes,10000)")
	}
}

// restart ends the four processes, starts them, and returns the times until get_time and
// until show_nodes return.
func (d *daemon) restart() (serves, shows time.Duration) {
	d.b.Helper()
	d.Down(daemonServices...)
	began := time.Now()
	d.Up("server-db", "server-blocking", "server-main", "server-hub")
	d.AwaitCall("get_time")
	serves = time.Since(began)
	d.AwaitCall("show_nodes", "alice", true)
	return serves, time.Since(began)
}
