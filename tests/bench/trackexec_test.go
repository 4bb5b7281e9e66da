package bench

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/waltos/waltos/services/daemon/trackexec/timeline"
	"github.com/waltos/waltos/services/wire/client"
)

// Each daemon is measured so many times, in turns and for a short time, so that what else
// the machine does befalls both, and each time by new connections: how fast one is depends
// on what the congestion control of the kernel made of its first round trips. After some
// rounds both are started anew: two runs of one program differ by more than the tracing.
const (
	traceRounds = 40
	traceStarts = 8 // of these rounds begin with a start
	traceRound  = 500 * time.Millisecond
)

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
			type side struct {
				*daemon
				rates, cpus []float64
			}
			sides := [2]*side{{daemon: plain}, {daemon: traced}}
			var rateRatios, cpuRatios []float64
			for n := range traceRounds {
				if n%(traceRounds/traceStarts) == 0 {
					plain.restart()
					traced.restart()
				}
				for i := range sides {
					s := sides[(n+i)%2]
					var sessions []*client.Session
					do := opened(apiClients, func() func() error {
						session := s.session()
						sessions = append(sessions, session)
						return calling(b, session, c.method, c.args...)
					})
					before := s.cpu()
					p := repeat(b, traceRound, do)
					s.rates, s.cpus = append(s.rates, p.rate), append(s.cpus, (s.cpu()-before)/float64(p.calls)*1e6)
					for _, session := range sessions {
						session.Close()
					}
				}
				rateRatios = append(rateRatios, sides[1].rates[n]/sides[0].rates[n])
				cpuRatios = append(cpuRatios, sides[1].cpus[n]/sides[0].cpus[n])
			}
			rate, cpu := median(rateRatios), median(cpuRatios)
			t.row(c.method, fmt.Sprintf("%.0f", median(sides[0].rates)), fmt.Sprintf("%.0f", median(sides[1].rates)), fmt.Sprintf("%.3f", rate),
				fmt.Sprintf("%.2f", median(sides[0].cpus)), fmt.Sprintf("%.2f", median(sides[1].cpus)), fmt.Sprintf("%.3f", cpu))
			b.ReportMetric(rate, "traced/plain("+c.method+")")
			b.ReportMetric(cpu, "traced/plain-cpu("+c.method+")")
		}
		t.print(b)
	}
	run, err := filepath.EvalSymlinks(filepath.Join(traces, "latest"))
	if err != nil {
		b.Fatal(err)
	}
	size := folderSize(b, run)
	trace, err := timeline.Open(run, b.Errorf)
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

// cpu returns the seconds of processor that the threads of the daemon have taken.
func (d *daemon) cpu() (seconds float64) {
	d.b.Helper()
	for _, service := range daemonServices {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", d.PID(service)))
		if err != nil || len(threads) == 0 {
			d.b.Fatalf("the kernel tells no times of %s: %v", service, err)
		}
		for _, thread := range threads {
			text, err := os.ReadFile(thread)
			if err != nil {
				d.b.Fatal(err)
			}
			var nanoseconds float64
			if _, err := fmt.Sscan(string(text), &nanoseconds); err != nil {
				d.b.Fatal(err)
			}
			seconds += nanoseconds / 1e9
		}
	}
	return seconds
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
