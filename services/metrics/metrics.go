// Package metrics counts what the processes of a WalT server do, and writes it in the
// text format of Prometheus (version 0.0.4), which its HTTP service shows at /metrics.
//
// Each process has a Set of instruments; they are atomic numbers, so that counting costs
// nothing worth a thought. The numbers of all processes come together over the
// connectors that exist anyway: Handler answers for a process, Ask asks it.
//
// Labels never hold what strangers write: each instrument has a bounded number of series.
package metrics

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Kinds of families.
const (
	counterKind   = "counter"
	gaugeKind     = "gauge"
	histogramKind = "histogram"
)

// Family is all series of one name.
type Family struct {
	Name, Help, Kind string
	Samples          []Sample
}

// Sample is one number.
type Sample struct {
	Suffix string   // of the name: "", or "_bucket", "_sum", "_count" of a histogram
	Labels []string // name, value, name, value …
	Value  float64
}

// Gauge returns a family of one kind of number that goes up and down.
func Gauge(name, help string, samples ...Sample) Family {
	return Family{name, help, gaugeKind, samples}
}

// Total returns a family of numbers that only go up; its name ends with "_total".
func Total(name, help string, samples ...Sample) Family {
	return Family{name, help, counterKind, samples}
}

// Value returns a sample with labels, each a name and a value.
func Value(v float64, labels ...string) Sample { return Sample{Labels: labels, Value: v} }

// Set is the instruments of one process.
type Set struct {
	process string
	began   time.Time

	mu      sync.Mutex
	sources []func() []Family
}

// New returns the set of a process, which tells already what the process takes of the
// machine.
func New(process string) *Set {
	s := &Set{process: process, began: time.Now()}
	s.Func(s.resources)
	return s
}

// Func adds families that are made when they are asked for.
func (s *Set) Func(f func() []Family) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sources = append(s.sources, f)
}

// Collect returns all families at their present state, by name.
func (s *Set) Collect() []Family {
	s.mu.Lock()
	sources := slices.Clone(s.sources)
	s.mu.Unlock()
	var all []Family
	for _, source := range sources {
		all = append(all, source()...)
	}
	return Merge(all)
}

// Merge joins families of the same name and sorts them by name.
func Merge(families []Family) []Family {
	sorted := slices.Clone(families)
	slices.SortStableFunc(sorted, func(a, b Family) int { return cmp.Compare(a.Name, b.Name) })
	var merged []Family
	for _, f := range sorted {
		if n := len(merged); n > 0 && merged[n-1].Name == f.Name {
			merged[n-1].Samples = append(slices.Clip(merged[n-1].Samples), f.Samples...)
			continue
		}
		merged = append(merged, f)
	}
	return merged
}

// Counter counts up. Its zero value counts, without being shown.
type Counter struct{ n atomic.Uint64 }

// Add counts n more.
func (c *Counter) Add(n uint64) { c.n.Add(n) }

// Counter returns a new counter. Several of one name differ by their labels.
func (s *Set) Counter(name, help string, labels ...string) *Counter {
	c := &Counter{}
	s.Func(func() []Family { return []Family{Total(name, help, Value(float64(c.n.Load()), labels...))} })
	return c
}

// bounds are the upper ends of the buckets of durations.
var bounds = [...]time.Duration{
	100 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, time.Second, 5 * time.Second, 30 * time.Second,
}

// Durations is a histogram of how long things took. Its zero value counts, without being
// shown.
type Durations struct {
	buckets [len(bounds) + 1]atomic.Uint64
	sum     atomic.Int64 // nanoseconds
}

// Observe counts one duration.
func (d *Durations) Observe(took time.Duration) {
	i := 0
	for i < len(bounds) && took > bounds[i] {
		i++
	}
	d.buckets[i].Add(1)
	d.sum.Add(int64(took))
}

// Since counts the time since a moment.
func (d *Durations) Since(began time.Time) { d.Observe(time.Since(began)) }

// samples returns the series of a histogram: none before the first observation.
func (d *Durations) samples(labels []string) []Sample {
	var list []Sample
	total := uint64(0)
	for i := range d.buckets {
		total += d.buckets[i].Load()
		le := "+Inf"
		if i < len(bounds) {
			le = number(bounds[i].Seconds())
		}
		list = append(list, Sample{"_bucket", append(slices.Clip(labels), "le", le), float64(total)})
	}
	if total == 0 {
		return nil
	}
	return append(list,
		Sample{"_sum", labels, time.Duration(d.sum.Load()).Seconds()},
		Sample{"_count", labels, float64(total)})
}

// Durations returns a new histogram in seconds. Several of one name differ by their
// labels.
func (s *Set) Durations(name, help string, labels ...string) *Durations {
	d := &Durations{}
	s.Func(func() []Family { return []Family{{name, help, histogramKind, d.samples(labels)}} })
	return d
}

// maxSeries bounds the series of an instrument.
const maxSeries = 128

// By is an instrument for each combination of values of some labels, made when it first
// comes.
type By[T any] struct {
	newOne func(labels ...string) *T
	labels []string
	mu     sync.RWMutex
	all    map[string]*T
}

func newBy[T any](labels []string, newOne func(labels ...string) *T) *By[T] {
	return &By[T]{newOne: newOne, labels: labels, all: map[string]*T{}}
}

// With returns the instrument of values, one for each label; beyond 128 of them, that of
// "other" for each.
func (b *By[T]) With(values ...string) *T {
	key := strings.Join(values, "\x00")
	b.mu.RLock()
	one := b.all[key]
	b.mu.RUnlock()
	if one != nil {
		return one
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.all) >= maxSeries && b.all[key] == nil {
		key, values = "other", slices.Repeat([]string{"other"}, len(values))
	}
	if b.all[key] == nil {
		var labels []string
		for i, label := range b.labels {
			labels = append(labels, label, values[i])
		}
		b.all[key] = b.newOne(labels...)
	}
	return b.all[key]
}

// CountersBy returns counters by the values of labels.
func (s *Set) CountersBy(name, help string, labels ...string) *By[Counter] {
	return newBy(labels, func(labels ...string) *Counter { return s.Counter(name, help, labels...) })
}

// DurationsBy returns histograms by the values of labels.
func (s *Set) DurationsBy(name, help string, labels ...string) *By[Durations] {
	return newBy(labels, func(labels ...string) *Durations { return s.Durations(name, help, labels...) })
}
