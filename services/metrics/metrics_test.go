package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/waltos/waltos/services/daemon/connector"
)

// parse reads what Write writes by the parser of Prometheus.
func parse(t *testing.T, families []Family) map[string]*dto.MetricFamily {
	t.Helper()
	var text strings.Builder
	if err := Write(&text, Merge(families)); err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(text.String()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text.String())
	}
	return parsed
}

func TestInstruments(t *testing.T) {
	s := New("test")
	ok := s.Counter("walt_things_total", "Things, \\ by\nresult.", "result", "ok")
	strange := s.Counter("walt_things_total", "Things, \\ by\nresult.", "result", "\"a\\b\nc")
	durations := s.DurationsBy("walt_work_seconds", "Work.", "kind")
	s.Func(func() []Family {
		return []Family{Gauge("walt_level", "Level.", Value(-1.5)), Gauge("walt_nothing", "No series.")}
	})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				ok.Add(1)
				durations.With("fast").Observe(200 * time.Microsecond)
			}
		})
	}
	all.Wait()
	strange.Add(3)
	durations.With("slow").Observe(time.Second)
	durations.With("slow").Observe(time.Hour)
	durations.With("never")

	parsed := parse(t, s.Collect())
	things := parsed["walt_things_total"]
	if len(things.GetMetric()) != 2 || things.GetType() != dto.MetricType_COUNTER || things.GetHelp() != "Things, \\ by\nresult." {
		t.Fatalf("things: %v", things)
	}
	for _, m := range things.GetMetric() {
		if want := map[string]float64{"ok": 8000, "\"a\\b\nc": 3}[m.GetLabel()[0].GetValue()]; m.GetCounter().GetValue() != want {
			t.Errorf("things: %v, want %v", m, want)
		}
	}
	work := parsed["walt_work_seconds"]
	if len(work.GetMetric()) != 2 || work.GetType() != dto.MetricType_HISTOGRAM {
		t.Fatalf("work: %v", work)
	}
	for _, m := range work.GetMetric() {
		h := m.GetHistogram()
		switch m.GetLabel()[0].GetValue() {
		case "fast":
			if h.GetSampleCount() != 8000 || h.GetBucket()[0].GetCumulativeCount() != 0 || h.GetBucket()[1].GetCumulativeCount() != 8000 {
				t.Errorf("fast: %v", h)
			}
		case "slow":
			if n := len(h.GetBucket()); h.GetSampleSum() != 3601 || n != len(bounds)+1 || h.GetBucket()[n-2].GetCumulativeCount() != 1 || h.GetBucket()[n-1].GetCumulativeCount() != 2 {
				t.Errorf("slow: %v", h)
			}
		}
	}
	if got := parsed["walt_level"].GetMetric()[0].GetGauge().GetValue(); got != -1.5 {
		t.Errorf("level %v", got)
	}
	for _, name := range []string{"process_resident_memory_bytes", "process_open_fds", "go_goroutines", "process_cpu_seconds_total"} {
		f := parsed[name]
		if f == nil || f.GetMetric()[0].GetLabel()[0].GetValue() != "test" {
			t.Errorf("%s: %v", name, f)
		}
	}
	if parsed["walt_nothing"] != nil {
		t.Error("a family without series is shown")
	}
}

// TestSeriesAreBounded shows that the values of a label, as paths, cannot fill memory.
func TestSeriesAreBounded(t *testing.T) {
	s := New("test")
	by := s.CountersBy("walt_x_total", "X.", "x")
	for i := range 10 * maxSeries {
		by.With(fmt.Sprint(i)).Add(1)
	}
	series := parse(t, s.Collect())["walt_x_total"].GetMetric()
	if len(series) != maxSeries+1 {
		t.Errorf("%d series", len(series))
	}
}

func TestAsk(t *testing.T) {
	s := New("far")
	s.Counter("walt_far_total", "Far.").Add(7)
	near, far := net.Pipe()
	refuse := func(context.Context, *connector.Peer, string, []byte) (any, error) { return nil, errors.New("refused") }
	server, client := connector.NewPeer(far, Handler(s, refuse)), connector.NewPeer(near, nil)
	var all sync.WaitGroup
	defer all.Wait()
	for _, p := range []*connector.Peer{server, client} {
		all.Go(func() {
			if err := p.Serve(t.Context()); err != nil {
				t.Error(err)
			}
		})
		defer p.Close()
	}
	families, err := Ask(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	if got := parse(t, families)["walt_far_total"].GetMetric()[0].GetCounter().GetValue(); got != 7 {
		t.Errorf("far: %v", got)
	}
	if err := client.Call(t.Context(), "other", nil, nil); err == nil || err.Error() != "refused" {
		t.Errorf("another call: %v", err)
	}
}

func BenchmarkDurations(b *testing.B) {
	by := New("test").DurationsBy("walt_work_seconds", "Work.", "kind")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			began := time.Now()
			by.With("kind").Since(began)
		}
	})
}
