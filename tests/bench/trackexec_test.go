package bench

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/waltos/waltos/services/daemon/trackexec/timeline"
	"github.com/waltos/waltos/services/wire/client"
)

// Each daemon is measured many times, in turns and for a short time, so that what else the
// machine does befalls both, and each time by new connections: one round differs from the
// next by a tenth and more, as the processes happen to wake each other, and stays what it
// is while its connections last. After some rounds both are started anew, and the other is
// traced: two runs of one program differ by more than the tracing, and so do two places
// that they run in. So the error of a ratio is below a hundredth.
const (
	traceStarts = 20 // even: each is traced as often
	traceRounds = 40 // after each start
	traceRound  = 50 * time.Millisecond
)

// BenchmarkTrackexec compares calls of a daemon whose execution is traced with those of
// one that is not: how many there are in a second, and what each takes of the processors
// in the daemon, which other work on the machine disturbs less. Figures are medians, and
// ratios are the geometric means of those of the two places.
func BenchmarkTrackexec(b *testing.B) {
	type place struct {
		*daemon
		traces string // a folder: the daemon is traced if it exists at the start
	}
	var places [2]place
	for i := range places {
		traces := filepath.Join(b.TempDir(), "trackexec")
		places[i] = place{newDaemonOf(b, 1, "-trackexec", traces), traces}
	}
	begin := func(p place, traced bool) {
		b.Helper()
		err := os.RemoveAll(p.traces)
		if err == nil && traced {
			err = os.Mkdir(p.traces, 0o755)
		}
		if err != nil {
			b.Fatal(err)
		}
		p.restart()
	}
	for b.Loop() {
		t := newTable("CALL, "+fmt.Sprint(apiClients)+" connections", "PER SECOND", "TRACED", "OF PLAIN", "CPU µs", "TRACED", "OF PLAIN")
		for _, c := range []struct {
			method string
			args   []any
		}{{"get_time", nil}, {"show_nodes", []any{"alice", true}}} {
			var rates, cpus [2][]float64 // plain, traced
			var rateRatios, cpuRatios [2][]float64
			for start := range traceStarts {
				traced := start % 2 // the place of that
				for i, p := range places {
					begin(p, i == traced)
				}
				for round := range traceRounds {
					var rate, cpu [2]float64
					for i := range places {
						i = (i + round) % 2
						rate[i], cpu[i] = places[i].measure(c.method, c.args...)
					}
					plain := 1 - traced
					rates[0], rates[1] = append(rates[0], rate[plain]), append(rates[1], rate[traced])
					cpus[0], cpus[1] = append(cpus[0], cpu[plain]), append(cpus[1], cpu[traced])
					rateRatios[traced] = append(rateRatios[traced], rate[traced]/rate[plain])
					cpuRatios[traced] = append(cpuRatios[traced], cpu[traced]/cpu[plain])
				}
			}
			rate := math.Sqrt(median(rateRatios[0]) * median(rateRatios[1]))
			cpu := math.Sqrt(median(cpuRatios[0]) * median(cpuRatios[1]))
			t.row(c.method, fmt.Sprintf("%.0f", median(rates[0])), fmt.Sprintf("%.0f", median(rates[1])), fmt.Sprintf("%.3f", rate),
				fmt.Sprintf("%.2f", median(cpus[0])), fmt.Sprintf("%.2f", median(cpus[1])), fmt.Sprintf("%.3f", cpu))
			b.ReportMetric(rate, "traced/plain("+c.method+")")
			b.ReportMetric(cpu, "traced/plain-cpu("+c.method+")")
		}
		t.print(b)
	}
	run, err := filepath.EvalSymlinks(filepath.Join(places[(traceStarts-1)%2].traces, "latest"))
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

// measure calls for a round, and returns how many calls there were in a second and how
// many microseconds of processor each took of the daemon.
func (d *daemon) measure(method string, args ...any) (rate, cpu float64) {
	d.b.Helper()
	var sessions []*client.Session
	do := opened(apiClients, func() func() error {
		session := d.session()
		sessions = append(sessions, session)
		return calling(d.b, session, method, args...)
	})
	before := d.cpu()
	p := repeat(d.b, traceRound, do)
	cpu = (d.cpu() - before) / float64(p.calls) * 1e6
	for _, session := range sessions {
		session.Close()
	}
	return p.rate, cpu
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
