package tests

import (
	"context"
	"regexp"

	"github.com/hinshun/vt10x"
)

// terminal is a person with a terminal at the serial line of the appliance.
type terminal struct {
	l      *lab
	screen vt10x.Terminal
	grown  chan struct{}
	detach func()
}

// terminal sits down at the serial line; the caller leaves it.
func (l *lab) terminal() *terminal {
	console := l.Appliance.Console()
	s := &terminal{l: l, grown: make(chan struct{}, 1), screen: vt10x.New(vt10x.WithWriter(console), vt10x.WithSize(100, 30))}
	output, detach := console.Attach()
	s.detach = detach
	go func() {
		for part := range output {
			_, _ = s.screen.Write(part)
			select {
			case s.grown <- struct{}{}:
			default:
			}
		}
	}()
	return s
}

// keys types.
func (s *terminal) keys(text string) {
	s.l.t.Helper()
	if _, err := s.l.Appliance.Console().Write([]byte(text)); err != nil {
		s.l.t.Fatal(err)
	}
}

// await waits until the terminal shows something.
func (s *terminal) await(want string) {
	s.l.t.Helper()
	pattern := regexp.MustCompile(want)
	ctx, cancel := context.WithTimeout(s.l.t.Context(), patience)
	defer cancel()
	for !pattern.MatchString(s.screen.String()) {
		select {
		case <-s.grown:
		case <-ctx.Done():
			s.l.t.Fatalf("%q did not come; the terminal shows\n%s", want, s.screen)
		}
	}
}
