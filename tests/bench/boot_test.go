package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waltos/waltos/qemu/platform"
	"github.com/waltos/waltos/services/periodic"
	"github.com/waltos/waltos/services/wire/client"
	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/tests/supplies"
)

// patience bounds each wait for the lab.
const patience = 5 * time.Minute

// address is where the lab of the benchmarks is.
var address = netip.AddrFrom4([4]byte{127, 0, 0, 8})

// BenchmarkBoot boots the appliance twice, on a fresh disk and on the one that it then
// has, with a node in the first.
func BenchmarkBoot(b *testing.B) {
	for _, way := range []struct {
		name   string
		direct bool
	}{{"direct", true}, {"UEFI", false}} {
		b.Run(way.name, func(b *testing.B) {
			for b.Loop() {
				o := platform.Options{Folder: b.TempDir(), Direct: way.direct, Nodes: 1}
				first := boot(b, o, "first", true)
				o.KeepDisk, o.Nodes = true, 0
				second := boot(b, o, "second", false)
				b.ReportMetric(first.answers.Seconds(), "s(PID1-to-12345,first)")
				b.ReportMetric(second.answers.Seconds(), "s(PID1-to-12345,second)")
				b.ReportMetric(first.answers.Seconds()/first.kernel.Seconds(), "x-kernel(12345,first)")
				b.ReportMetric(second.answers.Seconds()/second.kernel.Seconds(), "x-kernel(12345,second)")
			}
		})
	}
}

// figures are those of one boot, times of the appliance since its PID 1 began.
type figures struct {
	kernel  time.Duration // before PID 1: the limit that the rest is compared with
	answers time.Duration // the API announces itself
	serves  time.Duration // the API returns the result of a call
	ready   time.Duration // every unit has a result
	node    time.Duration // of a node, from its power on to booted; 0: there was none
}

// boot starts a lab, prints its figures, and stops it.
func boot(b *testing.B, o platform.Options, which string, memory bool) figures {
	b.Helper()
	prepared := supplies.Get(b)
	o.Image, o.Tools, o.Client = prepared.Image, prepared.Tools, prepared.Client
	o.Address, o.Patience = address, patience
	ctx, cancel := context.WithTimeout(b.Context(), 2*patience)
	defer cancel()
	w := &watch{}
	o.Progress = w.line
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		w.askAPI(ctx)
	}()
	lab, err := platform.Start(ctx, o)
	if err != nil {
		b.Fatal(err)
	}
	defer lab.Stop()
	<-watched
	var report control.Boot
	if err := json.Unmarshal([]byte(shell(b, lab, "waltctl boot --json")), &report); err != nil {
		b.Fatal(err)
	}
	f, err := w.figures(report)
	if err != nil {
		b.Fatal(err)
	}
	for _, m := range lab.Summary().Machines {
		if m.Kind != "appliance" {
			f.node = time.Duration(m.Took * float64(time.Second))
		}
	}
	t := newTable(which+" boot", "SECONDS", "x KERNEL")
	for _, r := range []struct {
		name string
		took time.Duration
	}{
		{"kernel, before PID 1", f.kernel}, {"PID 1 to 12345 answers", f.answers}, {"PID 1 to get_time returns", f.serves},
		{"PID 1 to ready", f.ready}, {"a node, power on to booted", f.node},
	} {
		if r.took != 0 {
			t.row(r.name, fmt.Sprintf("%.2f", r.took.Seconds()), fmt.Sprintf("%.1f", r.took.Seconds()/f.kernel.Seconds()))
		}
	}
	t.writer.Flush()
	t.text.WriteString("\n" + shell(b, lab, "waltctl boot"))
	t.print(b)
	if memory {
		residentMemory(b, lab)
	}
	return f
}

// watch notes when an appliance does what, by the clock of this machine.
type watch struct {
	mu       sync.Mutex
	begun    time.Time // end of the first phase of PID 1
	answered time.Time
	served   time.Time
}

// firstWords are what the supervisor says as soon as there is a console: after its
// first phase.
const firstWords = "initramfs: the kernel took"

// line is told what the appliance says.
func (w *watch) line(text string) {
	if strings.Contains(text, firstWords) {
		w.mu.Lock()
		w.begun = time.Now()
		w.mu.Unlock()
	}
}

// askPeriod is between two sessions; each of them waits long enough for an answer, so
// that one may begin while others wait.
const askPeriod = 250 * time.Millisecond

// askAPI tries to open sessions until one is answered and returns the result of a call.
// That a connection is accepted says nothing: QEMU accepts it.
func (w *watch) askAPI(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var sessions sync.WaitGroup
	defer sessions.Wait()
	periodic.Every(ctx, askPeriod, func() {
		sessions.Go(func() {
			if w.ask(ctx) == nil {
				cancel()
			}
		})
	})
}

// askTime bounds one session: QEMU repeats what the appliance does not answer, but
// later and later.
const askTime = 3 * time.Second

func (w *watch) ask(ctx context.Context) error {
	opening, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	s, err := client.Dial(opening, netip.AddrPortFrom(address, 12345).String(), client.Options{API: "CSAPI"})
	if err != nil {
		return err
	}
	defer s.Close()
	note(&w.mu, &w.answered)
	if _, err := s.Call(ctx, "get_time"); err != nil {
		return err // a server without its database may refuse
	}
	note(&w.mu, &w.served)
	return nil
}

func note(mu *sync.Mutex, at *time.Time) {
	mu.Lock()
	defer mu.Unlock()
	if at.IsZero() {
		*at = time.Now()
	}
}

// figures joins both clocks: the end of the first phase is known by each.
func (w *watch) figures(report control.Boot) (figures, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(report.Phases) == 0 || w.begun.IsZero() || w.answered.IsZero() || w.served.IsZero() {
		return figures{}, fmt.Errorf("the boot was not seen: %+v", w)
	}
	first := report.Phases[0]
	begin := w.begun.Add(first.Begin - first.End)
	return figures{
		kernel: first.Begin, answers: w.answered.Sub(begin), serves: w.served.Sub(begin), ready: report.Ready - first.Begin,
	}, nil
}

// shell runs a command on the appliance.
func shell(b *testing.B, lab *platform.Lab, command string) string {
	b.Helper()
	out, err := lab.SSH(b.Context(), command)
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// listMemory prints, for each process of a program of ours, its share of memory in KiB
// and its arguments. A process may end meanwhile.
const listMemory = `for p in /proc/[0-9]*; do
	case "$(readlink $p/exe)" in /usr/lib/walt/*) ;; *) continue ;; esac
	pss=$(sed -n 's/^Pss: *\([0-9]*\) kB/\1/p' $p/smaps_rollup 2>/dev/null) || continue
	rss=$(sed -n 's/^Rss: *\([0-9]*\) kB/\1/p' $p/smaps_rollup 2>/dev/null) || continue
	echo "$pss $rss $(tr '\0' ' ' <$p/cmdline)"
done`

// residentMemory reports the memory of our processes: supervisor and services, not
// PostgreSQL. What several share counts once in the sum (PSS).
func residentMemory(b *testing.B, lab *platform.Lab) {
	b.Helper()
	sum := 0
	t := newTable("PROCESS", "PSS MB", "RSS MB")
	for line := range strings.Lines(shell(b, lab, listMemory)) {
		var pss, rss int
		var program, service string
		if n, _ := fmt.Sscan(line, &pss, &rss, &program, &service); n < 3 {
			continue
		}
		sum += pss
		t.row(program+" "+service, fmt.Sprintf("%.1f", float64(pss)/1024), fmt.Sprintf("%.1f", float64(rss)/1024))
	}
	t.row("all", fmt.Sprintf("%.1f", float64(sum)/1024))
	t.print(b)
	b.ReportMetric(float64(sum)/1024, "MB(resident)")
}
