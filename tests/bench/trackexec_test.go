package bench

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/waltos/waltos/services/daemon/trackexec/timeline"
)

// traceRounds is how often each daemon is measured, in turns: the machine is not always
// the same.
const traceRounds = 9

// BenchmarkTrackexec compares calls of a daemon whose execution is traced with those of
// one that is not: how many there are in a second, and what each takes of the processors
// in the daemon, which other work on the machine disturbs less. Figures are medians.
func BenchmarkTrackexec(b *testing.B) {
	traces := b.TempDir()
	plain, traced := newDaemon(b), newDaemonOf(b, 1, "-trackexec", traces)
	for b.Loop() {
		t := newTable("CALL, "+fmt.Sprint(apiClients)+" connections", "PER SECOND", "TRACED", "OF PLAIN", "CPU µs", "TRACED", "OF PLAIN")
		for _, c := range []struct {
			method string
			args   []any
		}{{"get_time", nil}, {"show_nodes", []any{"alice", true}}} {
			var rates, ratios, plainCosts, costs []float64
			both := map[*daemon]*struct{ rate, cost float64 }{plain: {}, traced: {}}
			for n := range traceRounds {
				order := []*daemon{plain, traced}
				if n%2 == 1 {
					slices.Reverse(order)
				}
				for _, d := range order {
					before := d.cpu()
					p := measure(b, apiClients, d.calling(c.method, c.args...))
					both[d].rate, both[d].cost = p.rate, (d.cpu()-before)/(p.rate*duration.Seconds())*1e6
				}
				rates = append(rates, both[plain].rate)
				ratios = append(ratios, both[traced].rate/both[plain].rate)
				plainCosts = append(plainCosts, both[plain].cost)
				costs = append(costs, both[traced].cost)
			}
			rate, ratio, plainCost, cost := median(rates), median(ratios), median(plainCosts), median(costs)
			t.row(c.method, fmt.Sprintf("%.0f", rate), fmt.Sprintf("%.0f", rate*ratio), fmt.Sprintf("%.3f", ratio),
				fmt.Sprintf("%.2f", plainCost), fmt.Sprintf("%.2f", cost), fmt.Sprintf("%.3f", cost/plainCost))
			b.ReportMetric(ratio, "traced/plain("+c.method+")")
			b.ReportMetric(cost/plainCost, "traced/plain-cpu("+c.method+")")
		}
		t.print(b)
	}
	size := folderSize(b, traces)
	trace, err := timeline.Open(filepath.Join(traces, "latest"), b.Errorf)
	if err != nil {
		b.Fatal(err)
	}
	events := 0
	trace.Each(func(timeline.Event) { events++ })
	b.ReportMetric(float64(size)/float64(events), "bytes/event")
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// cpu returns the seconds of processor that the daemon has taken.
func (d *daemon) cpu() float64 {
	d.b.Helper()
	ticks := 0
	for _, command := range d.commands {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", command.Process.Pid))
		if err != nil {
			d.b.Fatal(err)
		}
		var skip string
		var user, system int
		fields := []any{&skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &user, &system}
		if _, err := fmt.Sscan(string(text), fields...); err != nil {
			d.b.Fatal(err)
		}
		ticks += user + system
	}
	return float64(ticks) / 100 // USER_HZ
}

// folderSize returns the size of the files in a folder.
func folderSize(b *testing.B, folder string) (size int64) {
	b.Helper()
	err := filepath.WalkDir(folder, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return size
}
