package replay

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/waltos/waltos/services/daemon/trackexec/format"
	"github.com/waltos/waltos/services/daemon/trackexec/timeline"
)

// clockLayout and dateLayout are how moments are shown, in the time of this machine.
const (
	clockLayout = "15:04:05.000000"
	dateLayout  = "2006-01-02"
)

// moment is a time of a trace.
func moment(at int64) time.Time { return time.Unix(0, at) }

// showDuration returns a duration in 8 columns.
func showDuration(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%6.3fms", d.Seconds()*1e3)
	case d < 10*time.Second:
		return fmt.Sprintf("%6.1fms", d.Seconds()*1e3)
	case d < 10*time.Hour:
		return fmt.Sprintf("%7.1fs", d.Seconds())
	}
	return fmt.Sprintf("%7.1fh", d.Hours())
}

// took returns how long an operation took, in 8 columns.
func took(e *timeline.Event) string {
	if e.State == format.Open {
		return "  begins"
	}
	return showDuration(time.Duration(e.Duration))
}

// barWidth is that of the longest bar: an operation of ten seconds.
const barWidth = 8

// bar returns a bar whose length tells the order of magnitude of a duration: one more
// column for each tenfold, from a microsecond.
func bar(e *timeline.Event) string {
	length := 0
	for limit := time.Microsecond; e.State != format.Open && length < barWidth && time.Duration(e.Duration) >= limit; limit *= 10 {
		length++
	}
	return strings.Repeat("▇", length) + strings.Repeat(" ", barWidth-length)
}

// describe returns what an event is, without its time.
func describe(e *timeline.Event) string {
	var b strings.Builder
	if e.Announced {
		b.WriteString("end of ")
	}
	fmt.Fprintf(&b, "%v %s", e.Kind, e.Name)
	if e.Number >= 0 {
		switch e.Kind {
		case format.Request:
			fmt.Fprintf(&b, " session %d", e.Number)
		case format.SQL:
			fmt.Fprintf(&b, " rows %d", e.Number)
		case format.Command:
			fmt.Fprintf(&b, " status %d", e.Number)
		case format.Life:
			fmt.Fprintf(&b, " pid %d", e.Number)
		default:
			fmt.Fprintf(&b, " %d", e.Number)
		}
	}
	if e.Detail != "" {
		fmt.Fprintf(&b, " [%s]", e.Detail)
	}
	switch e.State {
	case format.Failed:
		fmt.Fprintf(&b, " FAILED: %s", e.Failure)
	case format.Cancelled:
		b.WriteString(" cancelled")
	}
	return timeline.Printable(b.String())
}

// printText prints the whole timeline, a line for each event.
func printText(w io.Writer, t *timeline.Timeline) error {
	out := bufio.NewWriter(w)
	for n := range t.Slices() {
		for _, e := range t.Slice(n) {
			at := moment(e.Time()).Format(dateLayout + " " + clockLayout)
			fmt.Fprintf(out, "%s %s %-15s %s%s\n", at, took(&e), e.Process, strings.Repeat("  ", int(e.Depth)), describe(&e))
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// line is an event in JSON. Times are in RFC 3339, durations in seconds.
type line struct {
	Time     time.Time `json:"time"`
	Process  string    `json:"process"`
	ID       uint64    `json:"id"`
	Parent   uint64    `json:"parent,omitempty"`
	Depth    uint8     `json:"depth"`
	Kind     string    `json:"kind"`
	Name     string    `json:"name"`
	State    string    `json:"state"`
	Started  time.Time `json:"started"`
	Duration *float64  `json:"duration,omitempty"` // of what is over
	Number   *int64    `json:"number,omitempty"`
	Detail   string    `json:"detail,omitempty"`
	Failure  string    `json:"failure,omitempty"`
}

// printJSON prints the whole timeline, an object on a line for each event.
func printJSON(w io.Writer, t *timeline.Timeline) error {
	out := bufio.NewWriter(w)
	encoder := json.NewEncoder(out)
	for n := range t.Slices() {
		for _, e := range t.Slice(n) {
			l := line{
				Time: moment(e.Time()), Process: e.Process, ID: e.ID, Parent: e.Parent, Depth: e.Depth, Kind: e.Kind.String(), Name: e.Name,
				State: e.State.String(), Started: moment(e.Start), Detail: e.Detail, Failure: e.Failure,
			}
			if e.State != format.Open {
				seconds := time.Duration(e.Duration).Seconds()
				l.Duration = &seconds
			}
			if e.Number >= 0 {
				l.Number = &e.Number
			}
			if err := encoder.Encode(l); err != nil {
				return err
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
	return nil
}
