// Package screen is what a person sees and can do at the consoles of the machine: its
// state, addresses and troubles, and keys for logs, the networks, a shell, the end.
//
// It is a program of its own beside PID 1 (a unit, or a child of the failed boot), so that
// nothing that happens at a console harms what runs. Virtual consoles show it always, while
// messages of the kernel go to tty2. A serial line, which others may log, stays a line of
// messages until somebody presses Enter; then the terminal at its far end is asked for its
// size: one that answers (ECMA-48) gets the screen, drawn again where messages of the kernel
// went over it, any other gets lines. Who is silent for a quarter of an hour has left.
//
// Who is at a console is an administrator, unless the site file sets a password
// (console.password_hash). It does not guard a machine whose boot has failed.
package screen

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/supervisor/console"
	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/supervisor/memory"
)

// Name is the name that this program has as the console.
const Name = "walt-console"

const (
	idleTime  = 15 * time.Minute
	againTime = 2 * time.Second // after a failure of a terminal
	otherTTY  = 2               // the virtual console for messages of the kernel

	heapGrowth = 25 // percent between collections: a console has time
)

// station is one terminal and what is shown there.
type station struct {
	terminal *Terminal
	machine  Machine
	source   *Source
	presence *presence
	sizeTime time.Duration // for the terminal to tell its size
	shell    string        // of the root
	self     string        // this program, for the rescue shell
}

// presence knows when somebody was last at a console.
type presence struct {
	mu   sync.Mutex
	last time.Time // zero: never
	busy int       // terminals given to a shell
}

func (p *presence) touch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = time.Now()
}

func (p *presence) use(delta int) {
	p.touch()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy += delta
}

// gone tells whether nobody will come any more: nobody came until a moment, or who came is
// silent.
func (p *presence) gone(until, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy > 0 {
		return false
	}
	if p.last.IsZero() {
		return now.After(until)
	}
	return now.Sub(p.last) > idleTime
}

// Main is this program under the name [Name]: the console of a running system, or, with
// "-what", "-cause", "-advice" and "-reboot", of a boot that has failed; that ends when it
// is time to reboot.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	signal.Ignore(unix.SIGHUP, unix.SIGTTOU, unix.SIGTTIN)
	flags := flag.NewFlagSet(Name, flag.ContinueOnError)
	what, cause, advice := flags.String("what", "", "step that failed"), flags.String("cause", "", "why"), flags.String("advice", "", "what to do")
	reboot := flags.Duration("reboot", 0, "when to reboot if nobody comes; 0: never")
	if err := flags.Parse(args[1:]); err != nil {
		return 2
	}
	debug.SetGCPercent(heapGrowth)
	go memory.Save(ctx)
	client := control.Client{Path: control.Path}
	source, presence := &Source{Client: client}, &presence{}
	var machine Machine = &running{client: client, journal: "/var/log/walt/journal", sites: []string{hcl.SitePath, "/var/lib/walt/config/last-good.hcl", "/run/walt/site.hcl"}}
	if *what != "" {
		f := &Failure{What: *what, Cause: *cause, Advice: *advice}
		if *reboot > 0 {
			f.Reboot = time.Now().Add(*reboot)
			var cancel context.CancelFunc
			ctx, cancel = context.WithCancel(ctx)
			go func() {
				for !presence.gone(f.Reboot, time.Now()) {
					pause(ctx, time.Second)
				}
				cancel()
			}()
		}
		source.Failure, machine = f, stranded{}
	}
	consoles := Consoles()
	switch {
	case len(consoles) > 0:
	case source.Failure != nil:
		return 1 // nobody can come
	default:
		<-ctx.Done()
	}
	var stations sync.WaitGroup
	for _, t := range consoles {
		s := &station{terminal: t, machine: machine, source: source, presence: presence, sizeTime: time.Second, shell: "/bin/bash", self: "/proc/self/exe"}
		stations.Go(func() { s.serve(ctx) })
	}
	stations.Wait()
	return 0
}

// serve shows the console until the context ends.
func (s *station) serve(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.session(ctx)
		if err != nil && !errors.Is(err, errLeft) && ctx.Err() == nil {
			fmt.Fprintf(os.Stderr, "%v\n", err)
			pause(ctx, againTime)
		}
	}
}

// session is one person at the terminal, from coming to leaving.
func (s *station) session(ctx context.Context) error {
	if err := s.terminal.Open(); err != nil {
		return err
	}
	defer s.terminal.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Whoever reads is woken up by the end.
	defer context.AfterFunc(ctx, s.terminal.wake)()
	views := s.source.Watch(ctx)
	c := &Console{Machine: s.machine, Self: s.self, Shell: s.shell, terminal: s.terminal, locked: !s.machine.Admit("")}
	if s.terminal.Serial {
		first := s.await(ctx, views)
		if err := s.terminal.awaitEnter(); err != nil {
			return errors.Join(ctx.Err(), err)
		}
		first()
		s.presence.touch()
		if !s.terminal.probe(s.sizeTime) {
			p := &plain{
				console: c, terminal: s.terminal, idle: idleTime, pressed: s.presence.touch, busy: s.presence.use,
				view: func() View { return s.source.View(ctx) },
			}
			return p.run(ctx)
		}
	}
	defer s.terminal.kernelTo(otherTTY)()
	screen, err := openScreen(s.terminal)
	if err != nil {
		return err
	}
	messages := make(chan struct{}, 1)
	if s.terminal.Serial {
		go watchMessages(ctx, func() {
			select {
			case messages <- struct{}{}:
			default:
			}
		})
	} else {
		messages <- struct{}{} // what was printed before goes
	}
	f := &full{console: c, screen: screen, view: s.source.View(ctx), views: views, leaves: s.terminal.Serial,
		messages: messages, idle: idleTime, pressed: s.presence.touch, busy: s.presence.use}
	return f.run(ctx)
}

// await tells whoever reads a serial line how to get more than messages: once the units
// have had their results, or with the failure of the boot. The function that it returns
// ends that.
func (s *station) await(ctx context.Context, views <-chan View) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ctx.Done():
				return
			case v := <-views:
				if v.Failure == nil && (v.Status == nil || v.Status.State == "starting") {
					continue
				}
				s.terminal.print("\n%s: press Enter for the console, Q leaves it\n", console.Clean(hostName()))
				return
			}
		}
	}()
	return func() { cancel(); <-ended }
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "walt-server"
	}
	return name
}
