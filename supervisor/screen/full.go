package screen

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/gdamore/tcell/v2"
	"github.com/gdamore/tcell/v2/terminfo"
	"github.com/waltos/waltos/supervisor/console"
)

// errLeft: nobody is at the screen any more.
var errLeft = errors.New("nobody is at the console")

// full is a face of a whole screen. It draws again only what has changed, and all of it
// after a message of the kernel, which went over it.
type full struct {
	console  *Console
	screen   tcell.Screen
	events   chan tcell.Event
	views    <-chan View
	messages <-chan struct{} // the kernel has printed
	idle     time.Duration   // 0: for ever
	view     View
	leaves   bool      // Q leaves the screen
	pressed  func()    // somebody is there
	busy     func(int) // a program has the terminal (1), or no longer (-1)
	err      error
}

var styles = map[style]tcell.Style{
	normal: tcell.StyleDefault,
	title:  tcell.StyleDefault.Bold(true),
	good:   tcell.StyleDefault.Foreground(tcell.ColorGreen),
	bad:    tcell.StyleDefault.Foreground(tcell.ColorRed).Bold(true),
	faint:  tcell.StyleDefault.Foreground(tcell.ColorTeal),
	key:    tcell.StyleDefault.Reverse(true),
}

// openScreen starts tcell on a terminal that is open.
func openScreen(t *Terminal) (tcell.Screen, error) {
	kind, err := terminfo.LookupTerminfo(t.name())
	if err != nil {
		return nil, fmt.Errorf("cannot draw on console %s: %w", t.Path, err)
	}
	screen, err := tcell.NewTerminfoScreenFromTtyTerminfo(t, kind)
	if err != nil {
		return nil, fmt.Errorf("cannot draw on console %s: %w", t.Path, err)
	}
	if err := screen.Init(); err != nil {
		return nil, fmt.Errorf("cannot draw on console %s: %w", t.Path, err)
	}
	return screen, nil
}

// pump hands events on until the screen ends. It never waits: tcell does not let go of a
// terminal while an event of its is not taken.
func (f *full) pump() {
	for {
		event := f.screen.PollEvent()
		if event == nil {
			return
		}
		select {
		case f.events <- event:
		default: // nobody types that fast
		}
	}
}

// run shows the view and obeys keys until the person leaves, or is gone. It ends the screen.
func (f *full) run(ctx context.Context) error {
	defer f.screen.Fini()
	defer func() { _ = f.screen.Suspend() }() // while events are still taken
	f.events = make(chan tcell.Event, maxEvents)
	go f.pump()
	for {
		f.draw(f.view.lines)
		pressed, err := f.next(ctx, func() { f.draw(f.view.lines) })
		if err != nil {
			return err
		}
		switch letter := letterOf(pressed); {
		case pressed.Key() == tcell.KeyCtrlL:
			f.screen.Sync()
		case f.leaves && (letter == 'q' || letter == 'Q'):
			return errLeft
		default:
			f.console.do(letter, f)
		}
		if f.err != nil {
			return f.err
		}
	}
}

// maxEvents is how many keys wait to be obeyed.
const maxEvents = 256

// letterOf is the letter that was typed, alone; 0: another key.
func letterOf(pressed *tcell.EventKey) rune {
	if pressed.Key() != tcell.KeyRune || pressed.Modifiers()&^tcell.ModShift != 0 {
		return 0
	}
	return pressed.Rune()
}

// repairTime is how long after a message of the kernel it is waited for more of them.
const repairTime = 300 * time.Millisecond

// next waits for a key; changed is called when there is something new to draw.
func (f *full) next(ctx context.Context, changed func()) (*tcell.EventKey, error) {
	var gone, repair <-chan time.Time
	if f.idle > 0 {
		timer := time.NewTimer(f.idle)
		defer timer.Stop()
		gone = timer.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-gone:
			f.err = errLeft
			return nil, errLeft
		case f.view = <-f.views:
			changed()
		case <-f.messages:
			if repair == nil {
				repair = time.After(repairTime)
			}
		case <-repair:
			repair = nil
			f.screen.Sync()
		case event := <-f.events:
			switch event := event.(type) {
			case *tcell.EventInterrupt: // news for the pager
				changed()
			case *tcell.EventResize:
				changed()
				f.screen.Sync()
			case *tcell.EventError:
				f.err = errors.Join(errLeft, event)
				return nil, f.err
			case *tcell.EventKey:
				f.pressed()
				return event, nil
			}
		}
	}
}

// draw fills the screen with lines. tcell sends again what has been another thing in
// between, which a slow line would feel: it is told only what is another than before. The
// spaces within a line are sent too: to jump over them takes longer.
func (f *full) draw(make func(width, height int) []line) {
	width, height := f.screen.Size()
	lines := make(width, height)
	for y := range height {
		x := 0
		put := func(r rune, look tcell.Style, within bool) {
			now, was, _ := f.screen.Get(x, y)
			if now != string(r) || was != look || within && r == ' ' {
				f.screen.SetContent(x, y, r, nil, look)
			}
			x++
		}
		if y < len(lines) {
			for _, s := range lines[y] {
				for _, r := range s.text {
					put(r, styles[s.style], true)
				}
			}
		}
		for x < width {
			put(' ', tcell.StyleDefault, false)
		}
	}
	f.screen.HideCursor()
	f.screen.Show()
}

// ask implements face, in the last line.
func (f *full) ask(question, proposal string) (string, bool) {
	return f.line(question, proposal, func(answer []rune) string { return string(answer) })
}

// secret implements face.
func (f *full) secret(question string) (string, bool) {
	return f.line(question, "", func(answer []rune) string { return strings.Repeat("*", len(answer)) })
}

// line reads a line that is shown in some way.
func (f *full) line(question, proposal string, shown func([]rune) string) (string, bool) {
	answer := []rune(proposal)
	paint := func() {
		f.draw(func(width, height int) []line {
			lines := f.view.lines(width, height)
			lines[len(lines)-1] = line{{" " + question + " ", title}, {shown(answer), normal}}.cut(width)
			return lines
		})
		_, height := f.screen.Size()
		f.screen.ShowCursor(len([]rune(question))+2+len(answer), height-1)
		f.screen.Show()
	}
	for {
		paint()
		pressed, err := f.next(context.Background(), paint)
		if err != nil {
			return "", false
		}
		switch pressed.Key() {
		case tcell.KeyEnter:
			return string(answer), true
		case tcell.KeyEscape, tcell.KeyCtrlC:
			return "", false
		case tcell.KeyBackspace, tcell.KeyBackspace2:
			answer = answer[:max(0, len(answer)-1)]
		case tcell.KeyCtrlU:
			answer = nil
		case tcell.KeyRune:
			if r := letterOf(pressed); unicode.IsPrint(r) && len(answer) < maxAnswer {
				answer = append(answer, r)
			}
		}
	}
}

// maxAnswer bounds what a person types.
const maxAnswer = 200

// pager is a window on lines.
type pager struct {
	mu    sync.Mutex
	title string
	lines []string
	top   int
	end   bool // stay at the end
}

const pagerHelp = " Up Down PageUp PageDown Home End; Q leaves "

// picture makes the screen.
func (p *pager) picture(width, height int) []line {
	p.mu.Lock()
	defer p.mu.Unlock()
	page := max(1, height-1)
	last := max(0, len(p.lines)-page)
	if p.end {
		p.top = last
	}
	p.top = min(max(0, p.top), last)
	out := make([]line, page, page+1)
	for i, text := range p.lines[p.top:min(len(p.lines), p.top+page)] {
		out[i] = line{{console.Clean(text), normal}}.cut(width)
	}
	return append(out, line{{" " + p.title + " ", title}, {pagerHelp, key}}.cut(width))
}

// move obeys a key and tells whether the person stays.
func (p *pager) move(pressed *tcell.EventKey, page int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end = false
	switch pressed.Key() {
	case tcell.KeyUp:
		p.top--
	case tcell.KeyDown, tcell.KeyEnter:
		p.top++
	case tcell.KeyPgUp:
		p.top -= page
	case tcell.KeyPgDn:
		p.top += page
	case tcell.KeyHome:
		p.top = 0
	case tcell.KeyEnd:
		p.end = true
	case tcell.KeyEscape, tcell.KeyCtrlC:
		return false
	case tcell.KeyRune:
		switch letterOf(pressed) {
		case 'q', 'Q':
			return false
		case ' ':
			p.top += page
		case 'b':
			p.top -= page
		case 'g':
			p.top = 0
		case 'G':
			p.end = true
		}
	}
	return true
}

// longText is how many lines are a log, of which the end counts.
const longText = 100

// show implements face.
func (f *full) show(title string, lines []string) {
	f.page(&pager{title: title, lines: lines, end: len(lines) > longText}, nil)
}

// page shows a pager until the person leaves; grown tells that it has more lines.
func (f *full) page(p *pager, grown <-chan struct{}) {
	f.draw(p.picture)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if grown != nil {
		go func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-grown:
					_ = f.screen.PostEvent(tcell.NewEventInterrupt(nil)) // a full queue is news too
				}
			}
		}()
	}
	for {
		pressed, err := f.next(ctx, func() { f.draw(p.picture) })
		if err != nil {
			return
		}
		_, height := f.screen.Size()
		if !p.move(pressed, max(1, height-2)) {
			return
		}
		f.draw(p.picture)
	}
}

// maxFollowed bounds the lines that a pager keeps of what it follows.
const maxFollowed = 5000

// follow implements face.
func (f *full) follow(ctx context.Context, title string, feed func(context.Context, func(string))) {
	ctx, cancel := context.WithCancel(ctx)
	p, grown, ended := &pager{title: title, end: true}, make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		feed(ctx, func(text string) {
			p.mu.Lock()
			if p.lines = append(p.lines, text); len(p.lines) > maxFollowed {
				p.lines = append(p.lines[:0], p.lines[1:]...)
			}
			p.mu.Unlock()
			select {
			case grown <- struct{}{}:
			default:
			}
		})
	}()
	f.page(p, grown)
	cancel()
	<-ended
}

// lend implements face.
func (f *full) lend(use func() error) error {
	if err := f.screen.Suspend(); err != nil {
		return fmt.Errorf("cannot leave the screen: %w", err)
	}
	f.busy(1)
	defer f.busy(-1)
	err := use()
	return errors.Join(err, f.screen.Resume())
}
