package replay

import (
	"fmt"
	"strings"
	"time"

	"github.com/gdamore/tcell/v2"

	"github.com/waltos/waltos/services/daemon/trackexec/format"
	"github.com/waltos/waltos/services/daemon/trackexec/timeline"
)

// help is shown by the key h.
const help = `q        quit                     h       this help
n        next: step over what is within this event
s        step: the next event     c       continue to a breakpoint or a search hit
b        set or clear a breakpoint on the name of this event
arrows   up, down, sideways       PgUp, PgDn, Home, End   scroll
j        jump to HH:MM:SS.f, YYYY-MM-DD, or ±<n>[smhd] from here
/        search in names, details and failures; empty: no search
f        show only some processes and kinds, as "hub request"; empty: all
`

// browser is the terminal browser of a timeline.
type browser struct {
	screen tcell.Screen
	view   *view
	title  string

	here     place // the event that is selected
	any      bool  // there is one
	line     int   // of the screen where it is
	shift    int   // columns scrolled sideways
	breaks   map[string]bool
	search   string
	message  string
	began    time.Time // of the command under way
	prompt   *prompt   // what is being asked
	helping  bool
	quitting bool
}

// prompt is a question on the last line.
type prompt struct {
	label string
	text  []rune
	done  func(text string)
}

// newBrowser returns a browser at the beginning of a timeline. The screen is initialised.
func newBrowser(screen tcell.Screen, t *timeline.Timeline, title string) *browser {
	b := &browser{screen: screen, view: newView(t), title: title, breaks: map[string]bool{}}
	b.here, b.any = b.view.first()
	if !b.any {
		b.message = "there is no event"
	}
	return b
}

// run serves keys until the user quits.
func (b *browser) run() {
	for !b.quitting {
		b.draw()
		switch event := b.screen.PollEvent().(type) {
		case nil:
			return // the screen has ended
		case *tcell.EventResize:
			b.screen.Sync()
		case *tcell.EventKey:
			b.key(event)
		}
	}
}

// patience is how long a search may take before a key interrupts it.
const patience = 300 * time.Millisecond

// interrupted ends a long search when the user presses another key.
func (b *browser) interrupted() bool {
	return time.Since(b.began) > patience && b.screen.HasPendingEvent()
}

// height is the number of lines with events.
func (b *browser) height() int {
	_, height := b.screen.Size()
	return max(height-4, 1)
}

func (b *browser) key(event *tcell.EventKey) {
	b.message, b.began = "", time.Now()
	switch {
	case event.Key() == tcell.KeyCtrlC:
		b.quitting = true
	case b.helping:
		b.helping = false
	case b.prompt != nil:
		b.answer(event)
	case event.Key() == tcell.KeyRune:
		b.command(event.Rune())
	default:
		b.scroll(event.Key())
	}
}

// answer edits the answer to a question.
func (b *browser) answer(event *tcell.EventKey) {
	p := b.prompt
	switch event.Key() {
	case tcell.KeyEscape:
		b.prompt = nil
	case tcell.KeyEnter:
		b.prompt = nil
		p.done(strings.TrimSpace(string(p.text)))
	case tcell.KeyBackspace, tcell.KeyBackspace2:
		p.text = p.text[:max(len(p.text)-1, 0)]
	case tcell.KeyRune:
		p.text = append(p.text, event.Rune())
	}
}

func (b *browser) ask(label string, done func(text string)) {
	b.prompt = &prompt{label: label, done: done}
}

func (b *browser) command(key rune) {
	switch key {
	case 'q':
		b.quitting = true
		return
	case 'h', '?':
		b.helping = true
		return
	case 'f':
		b.ask("show only: ", b.filter)
		return
	}
	if !b.any {
		b.message = "there is no event"
		return
	}
	switch key {
	case 's':
		b.until("", func(*timeline.Event) bool { return true })
	case 'n':
		e := b.view.at(b.here)
		process, depth := e.Process, e.Depth
		b.until("", func(e *timeline.Event) bool { return e.Process == process && e.Depth <= depth })
	case 'c':
		if b.search == "" && len(b.breaks) == 0 {
			b.message = "there is no breakpoint and no search"
			return
		}
		b.until("nothing further", b.hit)
	case 'b':
		name := b.view.at(b.here).Name
		if b.breaks[name] = !b.breaks[name]; !b.breaks[name] {
			delete(b.breaks, name)
		}
	case 'j':
		b.ask("jump to: ", b.jump)
	case '/':
		b.ask("search: ", func(text string) {
			b.search = strings.ToLower(text)
			if text != "" {
				b.until("not found", b.found)
			}
		})
	default:
		b.message = "h: help"
	}
}

func (b *browser) scroll(key tcell.Key) {
	if !b.any {
		return
	}
	switch key {
	case tcell.KeyDown, tcell.KeyEnter:
		b.move(1)
	case tcell.KeyUp:
		b.move(-1)
	case tcell.KeyPgDn:
		b.move(b.height())
	case tcell.KeyPgUp:
		b.move(-b.height())
	case tcell.KeyLeft:
		b.shift = max(b.shift-8, 0)
	case tcell.KeyRight:
		b.shift += 8
	case tcell.KeyHome:
		b.here, b.any = b.view.first()
		b.line = 0
	case tcell.KeyEnd:
		b.here, b.any = b.view.last()
		b.line = b.height() - 1
	}
}

// move selects the event so many lines below.
func (b *browser) move(lines int) {
	step := b.view.next
	if lines < 0 {
		step = b.view.before
	}
	for range max(lines, -lines) {
		p, ok := step(b.here, b.interrupted)
		if !ok {
			return
		}
		b.here = p
		if lines < 0 {
			b.line = max(b.line-1, 0)
		} else {
			b.line = min(b.line+1, b.height()-1)
		}
	}
}

// until selects the next event that is wanted, if there is one.
func (b *browser) until(otherwise string, wanted func(e *timeline.Event) bool) {
	p, lines := b.here, 0
	for {
		next, ok := b.view.next(p, b.interrupted)
		if !ok {
			b.message = otherwise
			if b.interrupted() {
				b.message = "interrupted"
			} else if otherwise == "" {
				b.message = "this is the end"
			}
			return
		}
		p, lines = next, lines+1
		if wanted(b.view.at(p)) {
			b.here = p
			b.line = min(b.line+lines, b.height()-1)
			return
		}
	}
}

// hit tells whether to stop at an event; found whether it is searched for.
func (b *browser) hit(e *timeline.Event) bool { return b.breaks[e.Name] || b.found(e) }

func (b *browser) found(e *timeline.Event) bool {
	return b.search != "" && (strings.Contains(strings.ToLower(e.Name), b.search) ||
		strings.Contains(strings.ToLower(e.Detail), b.search) || strings.Contains(strings.ToLower(e.Failure), b.search))
}

func (b *browser) jump(text string) {
	at, err := parseJump(text, moment(b.view.at(b.here).Time()))
	if err != nil {
		b.message = err.Error()
		return
	}
	b.here, b.any = b.view.find(at.UnixNano())
	b.line = 0
}

// filter shows only what a text tells, from about the same moment.
func (b *browser) filter(text string) {
	now := int64(-1 << 63)
	if b.any {
		now = b.view.at(b.here).Time()
	}
	b.view.setFilter(text)
	b.here, b.any = b.view.find(now)
	b.line = 0
	if !b.any {
		b.message = "no event is of " + text
	}
}

var (
	plain    = tcell.StyleDefault
	selected = plain.Reverse(true)
	frame    = plain.Bold(true)
)

// style is that of an event.
func style(e *timeline.Event) tcell.Style {
	switch {
	case e.State == format.Failed || e.Kind == format.Lost:
		return plain.Foreground(tcell.ColorRed)
	case e.Kind == format.Idle || e.State == format.Cancelled:
		return plain.Foreground(tcell.ColorGray)
	case e.Kind == format.Life:
		return plain.Foreground(tcell.ColorGreen)
	}
	return plain
}

// put writes a text on a line, which it fills.
func (b *browser) put(y int, text string, s tcell.Style) {
	width, _ := b.screen.Size()
	x := 0
	for _, r := range text {
		if x >= width {
			return
		}
		b.screen.SetContent(x, y, r, nil, s)
		x++
	}
	for ; x < width; x++ {
		b.screen.SetContent(x, y, ' ', nil, s)
	}
}

// draw shows the present state.
func (b *browser) draw() {
	b.screen.Clear()
	title := "trackexec " + b.title
	if b.view.filter != "" {
		title += "  only: " + b.view.filter
	}
	if b.search != "" {
		title += "  search: " + b.search
	}
	b.put(0, title, frame)
	if b.helping {
		for i, text := range strings.Split(help, "\n") {
			b.put(1+i, text, plain)
		}
		b.screen.Show()
		return
	}
	_, height := b.screen.Size()
	if b.any {
		b.drawEvents()
		e := b.view.at(b.here)
		b.put(height-3, moment(e.Time()).Format(dateLayout+" "+clockLayout+" -07:00")+"  "+e.Process, frame)
		b.put(height-2, describe(e), plain)
	}
	last := "q quit  h help  n next  s step  c continue  b break  j jump  / search  f filter"
	switch {
	case b.prompt != nil:
		last = b.prompt.label + string(b.prompt.text)
		b.screen.ShowCursor(len([]rune(last)), height-1)
	default:
		b.screen.HideCursor()
		if b.message != "" {
			last = timeline.Printable(b.message)
		}
	}
	b.put(height-1, last, frame)
	b.screen.Show()
}

// drawEvents shows the events around the selected one.
func (b *browser) drawEvents() {
	never := func() bool { return false }
	b.line = min(b.line, b.height()-1)
	top, above := b.here, 0
	for above < b.line {
		p, ok := b.view.before(top, never)
		if !ok {
			break
		}
		top, above = p, above+1
	}
	b.line = above
	for y, p, ok := 0, top, true; ok && y < b.height(); y++ {
		e := b.view.at(p)
		s := style(e)
		if p == b.here {
			s = selected
		}
		b.put(1+y, b.show(e), s)
		p, ok = b.view.next(p, never)
	}
}

// show returns the line of an event.
func (b *browser) show(e *timeline.Event) string {
	mark := ' '
	switch {
	case b.breaks[e.Name]:
		mark = '●'
	case b.found(e):
		mark = '/'
	}
	process := strings.TrimPrefix(e.Process, "server-")
	what := strings.Repeat("  ", int(e.Depth)) + describe(e)
	if runes := []rune(what); b.shift < len(runes) {
		what = string(runes[b.shift:])
	} else {
		what = ""
	}
	return fmt.Sprintf("%c%s %s %s %-8.8s %s", mark, moment(e.Time()).Format(clockLayout), took(e), bar(e), process, what)
}

// showSpan returns the time that a timeline covers, for the title.
func showSpan(t *timeline.Timeline) string {
	first, last, ok := t.Span()
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s, %v", moment(first).Format(dateLayout+" 15:04:05"), time.Duration(last-first).Round(time.Second))
}
