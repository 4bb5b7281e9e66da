package screen

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/waltos/waltos/supervisor/console"
	"github.com/waltos/waltos/supervisor/control"
)

// View is all that the screen shows at a moment.
type View struct {
	Status    *control.Status // nil: the supervisor does not answer
	Trouble   string          // why it does not
	Addresses []Address
	Failed    []control.Detail // units that are not as they should be
	Failure   *Failure         // the boot has failed: there is no supervisor to ask
}

// Address is an address of the machine.
type Address struct {
	Interface string
	Address   string // with its length
	Default   bool   // the way out is through this interface
}

// Failure is why a boot has failed.
type Failure struct {
	What, Cause, Advice string
	Reboot              time.Time // when the machine tries again; zero: never
}

// style is how a part of a line looks, where the terminal can show it.
type style int

const (
	normal style = iota
	title
	good
	bad
	faint
	key
)

// span is a part of a line.
type span struct {
	text  string
	style style
}

// line is a line of the screen.
type line []span

func (l line) String() string {
	var text strings.Builder
	for _, s := range l {
		text.WriteString(s.text)
	}
	return strings.TrimRight(text.String(), " ")
}

// labelWidth is where values begin.
const labelWidth = 11

func row(label, format string, args ...any) line {
	return line{{fmt.Sprintf(" %-*s", labelWidth-1, label), faint}, {fmt.Sprintf(format, args...), normal}}
}

// keys are what a person can press, for the last line.
func (v View) keys() line {
	var l line
	for _, action := range actions {
		if v.Failure == nil || action.always {
			l = append(l, span{" " + string(action.key), key}, span{" " + action.name + " ", normal})
		}
	}
	return l
}

// lines makes the screen of a size; what does not fit is left out, the keys never.
func (v View) lines(width, height int) []line {
	var list []line
	switch {
	case v.Failure != nil:
		list = v.failure()
	case v.Status == nil:
		list = []line{{{" WalT", title}}, nil, {{" The supervisor does not answer: " + console.Clean(v.Trouble), bad}}}
	default:
		list = v.status()
	}
	if last := max(0, height-2); len(list) > last {
		list = list[:last]
		if last > 0 {
			list[last-1] = line{{" …", faint}}
		}
	}
	for len(list) < height-1 {
		list = append(list, nil)
	}
	list = append(list, v.keys())
	for i := range list {
		list[i] = list[i].cut(width)
	}
	return list
}

// cut makes a line fit.
func (l line) cut(width int) line {
	var out line
	for _, s := range l {
		runes := []rune(s.text)
		if len(runes) > width {
			runes = runes[:max(0, width)]
		}
		width -= len(runes)
		out = append(out, span{string(runes), s.style})
	}
	return out
}

func (v View) status() []line {
	s := v.Status
	list := []line{
		{{" WalT " + s.Version + "  " + console.Clean(s.Name), title}},
		nil,
	}
	fine, wanted := 0, 0
	for _, u := range s.Units {
		if u.Wanted {
			wanted++
			if u.Good() {
				fine++
			}
		}
	}
	state := map[string]style{"ready": good, "degraded": bad}[s.State]
	list = append(list,
		line{{" State     ", faint}, {s.State, state}, {fmt.Sprintf(", %d of %d units are up; running for %s", fine, wanted, roughly(s.Uptime)), normal}})
	clock := s.Clock.Now.Format("2006-01-02 15:04 MST")
	if !s.Clock.Synchronised {
		clock += ", not synchronised"
	}
	list = append(list, row("Clock", "%s", clock))
	full := ""
	if s.Data.Full() {
		full = ": FULL, nothing new is stored"
	}
	list = append(list, row("Data", "%d MiB free of %d MiB%s", s.Data.Free>>20, s.Data.Size>>20, full), row("Slot", "%s, Secure Boot: %s", s.Slot, cmp.Or(s.SecureBoot, "unknown")))
	for i, a := range v.Addresses {
		label := "Addresses"
		if i > 0 {
			label = ""
		}
		list = append(list, row(label, "%-12s %s", a.Interface, a.Address))
	}
	if len(v.Addresses) == 0 {
		list = append(list, row("Addresses", "none"))
	}
	if server := v.server(); server != "" {
		list = append(list, row("Clients", "in ~/.walt/config:  walt: { server: %s }", server))
	}
	if s.Refused != "" {
		list = append(list, nil, line{{" REFUSED configuration; " + s.Configuration + " is used instead", bad}})
		list = append(list, indented(s.Refused, "   ")...)
	}
	for _, d := range v.Failed {
		list = append(list, nil, line{{fmt.Sprintf(" %s is %s since %s: %s", d.Name, d.State, d.Since.Format("15:04:05"), console.Clean(d.Reason)), bad}})
		for _, r := range d.Log[max(0, len(d.Log)-failedLines):] {
			list = append(list, line{{"   | " + console.Clean(r.Text), normal}})
		}
	}
	return list
}

// failedLines is how many last lines are shown of a unit that has failed.
const failedLines = 4

// server is the address that clients should use: on the way out, else the first.
func (v View) server() string {
	for _, want := range []bool{true, false} {
		for _, a := range v.Addresses {
			if a.Default == want && !strings.Contains(a.Address, ":") {
				address, _, _ := strings.Cut(a.Address, "/")
				return address
			}
		}
	}
	return ""
}

func (v View) failure() []line {
	f := v.Failure
	list := []line{
		{{" WalT: the boot has FAILED", bad}}, nil,
		row("Step", "%s", console.Clean(f.What)), {{" Cause", faint}},
	}
	list = append(list, indented(f.Cause, "   ")...)
	list = append(list, nil, line{{" What to do", faint}})
	list = append(list, indented(f.Advice, "   ")...)
	list = append(list, nil)
	if f.Reboot.IsZero() {
		return append(list, line{{" The machine stays like this.", normal}})
	}
	return append(list, line{{fmt.Sprintf(" The machine reboots at %s unless a key is pressed.", f.Reboot.Format("15:04:05")), normal}})
}

// wrapWidth is where long texts of failures are broken.
const wrapWidth = 74

func indented(text, indent string) []line {
	var list []line
	for part := range strings.Lines(text) {
		runes := []rune(console.Clean(part))
		for first := true; first || len(runes) > 0; first = false {
			n := min(len(runes), wrapWidth)
			if n < len(runes) {
				if space := slices.Index(runes[n/2:n], ' '); space >= 0 {
					for n = min(len(runes), wrapWidth); runes[n-1] != ' '; n-- {
					}
				}
			}
			list = append(list, line{{indent + string(runes[:n]), normal}})
			runes = runes[n:]
		}
	}
	return list
}

// roughly is a duration in its largest unit, so that it changes seldom.
func roughly(d time.Duration) string {
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if n := int(d / unit.length); n == 1 {
			return "1 " + unit.name
		} else if n > 1 {
			return fmt.Sprintf("%d %ss", n, unit.name)
		}
	}
	return "less than a minute"
}
