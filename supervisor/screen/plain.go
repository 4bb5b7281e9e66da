package screen

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"
	"unicode/utf8"

	"github.com/waltos/waltos/supervisor/console"
)

// plain is a face of lines only, for terminals that do not answer: nothing is drawn over.
type plain struct {
	console  *Console
	terminal *Terminal
	idle     time.Duration
	view     func() View
	pressed  func()
	busy     func(int)
	pending  []byte // typed after the last line
	err      error
}

// plainWidth is a width that every terminal has.
const plainWidth = 79

// run prints the view and obeys letters until the person leaves, or is gone.
func (p *plain) run(ctx context.Context) error {
	p.menu()
	for ctx.Err() == nil {
		answer, ok := p.ask("walt>", "")
		switch {
		case p.err != nil:
			return p.err
		case !ok, answer == "q":
			return errLeft
		case answer == "":
			p.menu()
		case len(answer) == 1:
			r, _ := utf8.DecodeRuneInString(answer)
			p.console.do(r, p)
		default:
			p.terminal.print("Type one of the letters and press Enter.\n")
		}
	}
	return ctx.Err()
}

func (p *plain) menu() {
	v := p.view()
	height := 200
	p.terminal.print("\n")
	for _, l := range v.lines(plainWidth, height) {
		if text := l.String(); text != "" {
			p.terminal.print("%s\n", text)
		}
	}
	p.terminal.print(" Press the letter, then Enter; Enter alone shows this again; Q leaves.\n")
}

// ask implements face.
func (p *plain) ask(question, proposal string) (string, bool) {
	return p.line(question, proposal, true)
}

// secret implements face.
func (p *plain) secret(question string) (string, bool) { return p.line(question, "", false) }

// line reads a line, and shows it unless it is a secret.
func (p *plain) line(question, proposal string, shown bool) (string, bool) {
	p.terminal.print("%s ", question)
	if proposal != "" {
		p.terminal.print("[%s] ", proposal)
	}
	var answer []byte
	for {
		b, err := p.byte()
		if err != nil {
			p.err = errLeft
			return "", false
		}
		switch {
		case b == '\r' || b == '\n':
			p.terminal.print("\n")
			p.pressed()
			if text := console.Clean(string(answer)); text != "" {
				return text, true
			}
			return proposal, true
		case b == 3 || b == 4: // Ctrl-C, Ctrl-D
			p.terminal.print("\n")
			return "", false
		case (b == 8 || b == 0x7f) && len(answer) > 0:
			answer = answer[:len(answer)-1]
			if shown {
				p.terminal.print("\b \b")
			}
		case b >= ' ' && b < 0x7f && len(answer) < maxAnswer:
			answer = append(answer, b)
			if shown {
				p.terminal.print("%c", b)
			}
		}
	}
}

// byte reads one byte, or fails when nobody types.
func (p *plain) byte() (byte, error) {
	if len(p.pending) == 0 {
		if p.idle > 0 {
			_ = p.terminal.file.SetReadDeadline(time.Now().Add(p.idle))
		}
		buffer := make([]byte, 64)
		n, err := p.terminal.file.Read(buffer)
		if n == 0 && err == nil {
			err = os.ErrClosed
		}
		if err != nil {
			return 0, fmt.Errorf("cannot read console: %w", err)
		}
		p.pending = buffer[:n]
	}
	b := p.pending[0]
	p.pending = p.pending[1:]
	return b, nil
}

// plainLines is how many lines are shown at once.
const plainLines = 40

// show implements face.
func (p *plain) show(title string, lines []string) {
	if left := len(lines) - plainLines; left > 0 {
		lines = lines[left:]
	}
	p.terminal.print("%s:\n", title)
	for _, text := range lines {
		p.terminal.print("%s\n", console.Clean(text))
	}
}

// follow implements face.
func (p *plain) follow(ctx context.Context, title string, feed func(context.Context, func(string))) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.terminal.print("%s; any key ends it:\n", title)
	go func() {
		defer cancel()
		_ = p.terminal.file.SetReadDeadline(time.Time{})
		_, _ = p.terminal.file.Read(bytes.Repeat([]byte{0}, 64))
	}()
	feed(ctx, func(text string) { p.terminal.print("%s\n", console.Clean(text)) })
	// The reader must be gone before the next question.
	_ = p.terminal.file.SetReadDeadline(time.Now())
	<-ctx.Done()
	_ = p.terminal.file.SetReadDeadline(time.Time{})
}

// lend implements face.
func (p *plain) lend(use func() error) error {
	p.busy(1)
	defer p.busy(-1)
	return use()
}
