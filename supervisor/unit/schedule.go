package unit

import (
	"time"

	"github.com/waltos/waltos/hcl"
)

// longestNap bounds how long a periodic job sleeps before it looks at the clock again,
// which may have been set meanwhile.
const longestNap = 10 * time.Minute

// next returns when a periodic job runs next. booted is when the manager was made, last the
// last start of the job; zero: there is none.
func next(t *hcl.Timer, booted, last, now time.Time) time.Time {
	earliest := now
	if t.AfterBoot != "" && booted.Add(duration(t.AfterBoot)).After(now) {
		earliest = booted.Add(duration(t.AfterBoot))
	}
	if last.After(now) { // by a clock that was wrong
		last = now
	}
	// What passed while the machine was off is made up for; what passed during a run of
	// the job, or while it was stopped, is dropped.
	old := !last.IsZero() && last.Before(booted)
	if t.Daily != "" {
		due := following(t, now)
		if old && last.Before(due.AddDate(0, 0, -1)) {
			return earliest
		}
		return due
	}
	every := duration(t.Every)
	switch due := last.Add(every); {
	case last.IsZero() && t.AfterBoot == "":
		return now.Add(every)
	case last.IsZero():
		return earliest
	case due.After(now) && due.After(earliest):
		return due
	case old:
		return earliest
	default:
		return due.Add((now.Sub(due)/every + 1) * every)
	}
}

// following returns the next moment of a daily job.
func following(t *hcl.Timer, now time.Time) time.Time {
	minutes, err := t.At()
	if err != nil {
		panic("internal error: a unit was not checked: " + err.Error())
	}
	year, month, day := now.Date()
	due := time.Date(year, month, day, minutes/60, minutes%60, 0, 0, now.Location())
	if !due.After(now) {
		due = time.Date(year, month, day+1, minutes/60, minutes%60, 0, 0, now.Location())
	}
	return due
}
