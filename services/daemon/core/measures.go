package core

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/metrics"
	"github.com/waltos/waltos/services/state"
	"github.com/waltos/waltos/services/wire/rpc"
)

// healthTimeout bounds how long another process may take to tell how it is.
const healthTimeout = 2 * time.Second

// Peers are the other processes of the daemon, as those see them who watch over it.
type Peers struct {
	Database func(ctx context.Context) error // says whether the database answers
	// Measures asks processes, by name.
	Measures map[string]func(ctx context.Context) ([]metrics.Family, error)
	// Services asks the network services that answer. It may be nil.
	Services func(ctx context.Context) []metrics.Family
}

// measures are what server-main counts.
type measures struct {
	set     *metrics.Set
	calls   map[*method]*callMeasure
	streams map[rpc.Request]*streamMeasure
}

type callMeasure struct {
	took   *metrics.Durations
	failed *metrics.Counter
}

type streamMeasure struct {
	all  *metrics.Counter
	open atomic.Int64
}

func (d *Daemon) newMeasures() *measures {
	m := &measures{set: metrics.New("server-main"), calls: map[*method]*callMeasure{}, streams: map[rpc.Request]*streamMeasure{}}
	for _, api := range slices.Sorted(maps.Keys(apis)) {
		for _, name := range slices.Sorted(maps.Keys(apis[api])) {
			m.calls[apis[api][name]] = &callMeasure{
				m.set.Durations("walt_call_duration_seconds", "Calls of the API, by how long they took.", "api", api, "method", name),
				m.set.Counter("walt_call_failures_total", "Calls of the API that ended with an exception.", "api", api, "method", name),
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(requests)) {
		s := &streamMeasure{all: m.set.Counter("walt_streams_total", "Streams of TCP 12347 served, by kind.", "kind", id.String())}
		m.set.Func(func() []metrics.Family {
			return []metrics.Family{metrics.Gauge("walt_streams", "Streams of TCP 12347 that are open, by kind.",
				metrics.Value(float64(s.open.Load()), "kind", id.String()))}
		})
		m.streams[id] = s
	}
	m.set.Func(func() []metrics.Family {
		booted, pending := d.boots.Count()
		return []metrics.Family{metrics.Gauge("walt_boot_notifications", "Connections by which nodes tell that they are booted.",
			metrics.Value(float64(booted), "state", "booted"), metrics.Value(float64(pending), "state", "pending"))}
	})
	return m
}

// served counts a call.
func (m *measures) served(method *method, took time.Duration, err error) {
	c := m.calls[method]
	if c == nil { // there is no such method
		return
	}
	c.took.Observe(took)
	if err != nil {
		c.failed.Add(1)
	}
}

// opened counts a stream, and returns what counts its end.
func (m *measures) opened(id rpc.Request) (closed func()) {
	s := m.streams[id]
	s.all.Add(1)
	s.open.Add(1)
	return func() { s.open.Add(-1) }
}

// Greet makes a server-hub known: session.Greeter.
func (d *Daemon) Greet(hub *connector.Peer) { d.hub.Store(hub) }

func (d *Daemon) hubMeasures(ctx context.Context) ([]metrics.Family, error) {
	hub := d.hub.Load()
	if hub == nil {
		return nil, errors.New("it has not connected")
	}
	return metrics.Ask(ctx, hub)
}

// webMetrics returns the families of all processes of the daemon.
func (d *Daemon) webMetrics(ctx context.Context, _ func(any) error) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	up := metrics.Gauge("walt_process_up", "Whether a process of the daemon answers.", metrics.Value(1, "process", "server-main"))
	all := d.measures.set.Collect()
	var mu sync.Mutex
	var asking sync.WaitGroup
	ask := func(name string, measures func(context.Context) ([]metrics.Family, error)) {
		asking.Go(func() {
			families, err := measures(ctx)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, families...)
			answers := 1.0
			if err != nil {
				answers = 0
			}
			up.Samples = append(up.Samples, metrics.Value(answers, "process", name))
		})
	}
	if d.Peers.Services != nil {
		asking.Go(func() {
			families := d.Peers.Services(ctx)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, families...)
		})
	}
	ask("server-hub", d.hubMeasures)
	for name, measures := range d.Peers.Measures {
		ask(name, measures)
	}
	asking.Wait()
	return metrics.Merge(append(all, up)), nil
}

// webReady returns what keeps the daemon from serving calls.
func (d *Daemon) webReady(ctx context.Context, _ func(any) error) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	checks := []struct {
		part  string
		check func(context.Context) error
	}{
		{"registry", d.registryReady},
		{"database", d.Peers.Database},
		{"server-hub", func(ctx context.Context) error { _, err := d.hubMeasures(ctx); return err }},
	}
	reasons := make([]error, len(checks))
	var checking sync.WaitGroup
	for i, c := range checks {
		checking.Go(func() { reasons[i] = c.check(ctx) })
	}
	checking.Wait()
	missing := []state.NotReady{}
	for i, err := range reasons {
		if err != nil {
			missing = append(missing, state.NotReady{Part: checks[i].part, Reason: err.Error()})
		}
	}
	return missing, nil
}

func (d *Daemon) registryReady(context.Context) error {
	select {
	case <-d.loaded:
		return nil
	default:
		return errors.New("it is not loaded")
	}
}
