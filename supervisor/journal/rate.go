package journal

import (
	"fmt"
	"time"
)

// rate is how much of its share a unit has left (a token bucket).
type rate struct {
	left    float64 // lines
	at      time.Time
	dropped int
	told    time.Time // when the number of dropped lines was last recorded
}

// allows takes a line from the share of a unit, or counts it as dropped. j.mu is held.
func (j *Journal) allows(unit string, now time.Time) bool {
	if j.bounds.Rate == 0 {
		return true
	}
	r := j.rates[unit]
	if r == nil {
		r = &rate{left: float64(j.bounds.Burst), at: now}
		j.rates[unit] = r
	}
	// A clock that is set back gives nothing.
	r.left = min(float64(j.bounds.Burst), r.left+max(0, now.Sub(r.at).Seconds())*float64(j.bounds.Rate))
	r.at = now
	if r.left < 1 {
		r.dropped++
		return false
	}
	r.left--
	return true
}

// tellDropped adds a record for each unit of which lines were dropped, at most one a second of
// each. It returns whether there is more to tell. j.mu is held.
func (j *Journal) tellDropped(now time.Time) (more bool) {
	for unit, r := range j.rates {
		if r.dropped == 0 {
			continue
		}
		if now.Sub(r.told).Abs() < time.Second {
			more = true
			continue
		}
		j.put(Record{
			Boot: j.boot, Micros: now.UnixMicro(), Since: j.sinceBoot(now), Unit: unit, Priority: "warning",
			Text: fmt.Sprintf("%d lines of this unit were dropped: more than %d a second", r.dropped, j.bounds.Rate),
		})
		r.dropped, r.told = 0, now
	}
	return more
}
