package replay

import (
	"strings"

	"github.com/waltos/waltos/services/daemon/trackexec/timeline"
)

// place is where an event is: its slice, and its number among those of the slice that are
// shown.
type place struct{ slice, row int }

// view is a timeline as it is filtered.
type view struct {
	timeline *timeline.Timeline
	filter   string // words of processes and kinds; all of them must match
	kept     map[int][]timeline.Event
	order    []int // of kept, oldest first
}

// keptSlices is how many filtered slices are kept: a screen shows those of a few.
const keptSlices = 64

func newView(t *timeline.Timeline) *view { return &view{timeline: t, kept: map[int][]timeline.Event{}} }

// setFilter shows only events of a process or of a kind.
func (v *view) setFilter(filter string) {
	v.filter, v.order = filter, nil
	clear(v.kept)
}

// shows tells whether an event passes the filter. The words are parts of the name of a
// process, or the name of a kind.
func (v *view) shows(e *timeline.Event) bool {
	for word := range strings.FieldsSeq(v.filter) {
		if !strings.Contains(e.Process, word) && e.Kind.String() != word {
			return false
		}
	}
	return true
}

// rows returns the events of a slice that are shown.
func (v *view) rows(n int) []timeline.Event {
	if rows, ok := v.kept[n]; ok || n >= v.timeline.Slices() {
		return rows
	}
	var rows []timeline.Event
	for _, e := range v.timeline.Slice(n) {
		if v.shows(&e) {
			rows = append(rows, e)
		}
	}
	if len(v.order) >= keptSlices {
		delete(v.kept, v.order[0])
		v.order = v.order[1:]
	}
	v.kept[n] = rows
	v.order = append(v.order, n)
	return rows
}

// at returns the event at a place.
func (v *view) at(p place) *timeline.Event { return &v.rows(p.slice)[p.row] }

// next returns the place after one, and before the place before; stop may end the search
// for one, when few events pass the filter.
func (v *view) next(p place, stop func() bool) (place, bool) {
	if p.row+1 < len(v.rows(p.slice)) {
		return place{p.slice, p.row + 1}, true
	}
	for n := p.slice + 1; n < v.timeline.Slices() && !stop(); n++ {
		if len(v.rows(n)) > 0 {
			return place{n, 0}, true
		}
	}
	return p, false
}

func (v *view) before(p place, stop func() bool) (place, bool) {
	if p.row > 0 {
		return place{p.slice, p.row - 1}, true
	}
	for n := p.slice - 1; n >= 0 && !stop(); n-- {
		if rows := len(v.rows(n)); rows > 0 {
			return place{n, rows - 1}, true
		}
	}
	return p, false
}

// find returns the place of the first event at a moment or after it, else the last event.
func (v *view) find(at int64) (place, bool) {
	never := func() bool { return false }
	p := place{v.timeline.Find(at), -1}
	for {
		next, ok := v.next(p, never)
		if !ok {
			break
		}
		if p = next; v.at(p).Time() >= at {
			return p, true
		}
	}
	if p.row >= 0 {
		return p, true
	}
	return v.before(place{p.slice, 0}, never)
}

// first and last return the ends of what is shown.
func (v *view) first() (place, bool) { return v.find(-1 << 63) }
func (v *view) last() (place, bool)  { return v.find(1<<63 - 1) }
