package analyse

import (
	"cmp"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/waltos/waltos/services/daemon/trackexec/format"
	"github.com/waltos/waltos/services/daemon/trackexec/timeline"
)

// key tells operations apart.
type key struct {
	process string
	kind    format.Kind
	name    string
}

// id names an operation in a few characters, the same in every trace.
func (k key) id() string {
	return fmt.Sprintf("%08x", crc32.ChecksumIEEE(fmt.Appendf(nil, "%s\x00%v\x00%s", k.process, k.kind, k.name)))
}

// operation is what is known of all occurrences of one.
type operation struct {
	key
	count     int
	failed    int
	cumulated time.Duration
	longest   time.Duration
}

func (o *operation) average() time.Duration { return o.cumulated / time.Duration(max(o.count, 1)) }

// column is what operations are sorted by.
type column string

const (
	byCumulated column = "cumulated-runtime"
	byAverage   column = "average-runtime"
	byFrequency column = "frequency"
)

var columns = []column{byCumulated, byAverage, byFrequency}

// compare puts what is greater in a column first.
func (c column) compare(a, b *operation) int {
	order := 0
	switch c {
	case byCumulated:
		order = cmp.Compare(b.cumulated, a.cumulated)
	case byAverage:
		order = cmp.Compare(b.average(), a.average())
	case byFrequency:
		order = cmp.Compare(b.count, a.count)
	}
	return cmp.Or(order, cmp.Compare(b.cumulated, a.cumulated), cmp.Compare(a.id(), b.id()))
}

// report is what a trace tells.
type report struct {
	operations map[key]*operation
	idle       map[string]time.Duration // by process
	lost       int64                    // events
}

// summarise reads a whole trace. Operations under way when it ends are not counted.
func summarise(t *timeline.Timeline) *report {
	r := &report{operations: map[key]*operation{}, idle: map[string]time.Duration{}}
	t.Each(func(e timeline.Event) {
		switch {
		case e.Kind == format.Idle:
			r.idle[e.Process] += time.Duration(e.Duration)
			return
		case e.Kind == format.Lost:
			r.lost += e.Number
			return
		case e.Kind == format.Life || e.State == format.Open:
			return
		}
		k := keyOf(&e)
		o := r.operations[k]
		if o == nil {
			o = &operation{key: k}
			r.operations[k] = o
		}
		o.count++
		if e.State == format.Failed {
			o.failed++
		}
		o.cumulated += time.Duration(e.Duration)
		o.longest = max(o.longest, time.Duration(e.Duration))
	})
	return r
}

func keyOf(e *timeline.Event) key { return key{e.Process, e.Kind, e.Name} }

// greatest returns the first operations in the order of a column.
func (r *report) greatest(c column, items int) []*operation {
	list := make([]*operation, 0, len(r.operations))
	for _, o := range r.operations {
		list = append(list, o)
	}
	slices.SortFunc(list, c.compare)
	return list[:min(items, len(list))]
}

// slowest returns the longest occurrences of an operation, and its key.
func slowest(t *timeline.Timeline, id string, items int) (k key, list []timeline.Event, found bool) {
	ids := map[key]string{}
	order := func(a, b timeline.Event) int {
		return cmp.Or(cmp.Compare(b.Duration, a.Duration), cmp.Compare(a.Start, b.Start))
	}
	t.Each(func(e timeline.Event) {
		own := keyOf(&e)
		text, known := ids[own]
		if !known {
			text = own.id()
			ids[own] = text
		}
		if text != id || e.State == format.Open {
			return
		}
		k, found = own, true
		if len(list) == items && order(e, list[items-1]) > 0 {
			return
		}
		at, _ := slices.BinarySearchFunc(list, e, order)
		list = slices.Insert(list, at, e)
		list = list[:min(items, len(list))]
	})
	return k, list, found
}
