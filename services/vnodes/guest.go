package vnodes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Times are the pauses and limits of a service.
type Times struct {
	Exit    time.Duration // from EXIT to SIGTERM
	Term    time.Duration // from SIGTERM to SIGKILL
	Read    time.Duration // that a process may take to read a command
	Pause   time.Duration // before a process that has ended starts again; doubles each time
	Longest time.Duration // of these pauses
	Steady  time.Duration // life of a process after which the pause is the first one again
}

func (t Times) complete() Times {
	for _, d := range []struct {
		value  *time.Duration
		absent time.Duration
	}{
		{&t.Exit, 3 * time.Second}, {&t.Term, 5 * time.Second}, {&t.Read, 5 * time.Second},
		{&t.Pause, time.Second}, {&t.Longest, time.Minute}, {&t.Steady, time.Minute},
	} {
		if *d.value == 0 {
			*d.value = d.absent
		}
	}
	return t
}

// drainTime bounds the reading of what a process has left on its console.
const drainTime = time.Second

// guest is the process of one virtual node, and those that follow it.
type guest struct {
	*Service
	mac    string
	place  place
	cancel context.CancelFunc
	ended  chan struct{}
	wake   chan struct{} // ends a pause

	saved bool // wanted is in the record; used by update only

	mu     sync.Mutex
	wanted Node
	input  *os.File // nil: no process runs
	hung   chan struct{}
}

// begin starts a guest, whose place is there.
func (s *Service) begin(n Node) *guest {
	ctx, cancel := context.WithCancel(context.Background())
	g := &guest{Service: s, mac: n.MAC, place: s.place(n.MAC), cancel: cancel, ended: make(chan struct{}), wake: make(chan struct{}, 1), wanted: n, saved: true}
	go func() {
		defer close(g.ended)
		g.run(ctx)
	}()
	return g
}

// end ends a guest, and returns when its process has ended and nothing tells of it.
func (g *guest) end() {
	g.cancel()
	<-g.ended
	if err := g.place.remove(); err != nil {
		g.Warn("virtual node %s: cannot forget it: %v", g.node().Settings.Name, err)
	}
}

func (g *guest) node() Node {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.wanted
}

// run keeps a process running until ctx ends.
func (g *guest) run(ctx context.Context) {
	pause := g.Times.Pause
	for {
		began := time.Now()
		err := g.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) >= g.Times.Steady {
			pause = g.Times.Pause
		}
		g.Warn("virtual node %s: %v; it starts again in %v", g.node().Settings.Name, err, pause)
		select {
		case <-time.After(pause):
		case <-g.wake:
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, g.Times.Longest)
	}
}

// once follows one process to its end; the error says why it has ended. The process is the
// one that runs already, or a new one.
func (g *guest) once(ctx context.Context) error {
	p, err := g.obtain(ctx)
	if err != nil {
		return err
	}
	var printing sync.WaitGroup
	printing.Go(func() { g.read(p.printed) })
	hung := false
	select {
	case <-p.exited:
	case <-g.hung:
		hung = true
		g.terminate(p)
	case <-ctx.Done():
		_ = g.send("EXIT") // if it does not read, it is ended below
		wait(p.exited, g.Times.Exit)
		g.terminate(p)
	}
	p.signal(unix.SIGKILL) // nothing of it is left behind
	<-p.exited
	err = p.result()
	g.mu.Lock()
	g.input = nil
	g.mu.Unlock()
	p.close()
	_ = p.printed.SetReadDeadline(time.Now().Add(drainTime))
	printing.Wait()
	p.printed.Close()
	switch {
	case hung:
		return errors.New("its process does not read its commands any more")
	case err != nil:
		return fmt.Errorf("its process has ended: %w", err)
	}
	return errors.New("its process has ended")
}

// obtain takes over the process that runs, or starts one unless ctx has ended.
func (g *guest) obtain(ctx context.Context) (*process, error) {
	g.mu.Lock() // no change of the settings is missed
	defer g.mu.Unlock()
	p, err := g.place.takeOver()
	if err != nil {
		return nil, fmt.Errorf("cannot take its process over: %w", err)
	}
	found := p != nil
	if !found {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		argv := slices.Concat(g.Program, g.wanted.arguments(), []string{"--pid-path", g.place.pidFile()})
		if p, err = g.place.launch(argv); err != nil {
			return nil, err
		}
		g.running.Add(1)
	}
	g.input, g.hung = p.input, make(chan struct{})
	if found {
		g.greet()
	}
	return p, nil
}

// greet tells a process that an earlier life of the service has left all that it may not
// have been told. It begins with the end of a line of which only a part was written. mu is
// held.
func (g *guest) greet() {
	var text strings.Builder
	for _, now := range g.wanted.Settings.values() {
		text.WriteString("\n" + now.command())
	}
	_ = g.write(text.String()) // one that does not read is ended
}

// read gives what the process prints to those who follow the console.
func (g *guest) read(out *os.File) {
	buf := make([]byte, chunkSize)
	for {
		n, err := out.Read(buf)
		if n > 0 {
			g.consoles.add(g.mac, buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// terminate ends a process that has not ended by itself.
func (g *guest) terminate(p *process) {
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		select {
		case <-p.exited:
			return
		default:
		}
		p.signal(signal)
		wait(p.exited, g.Times.Term)
	}
}

func wait(ended <-chan struct{}, limit time.Duration) {
	select {
	case <-ended:
	case <-time.After(limit):
	}
}

// update tells the process what has changed of its settings.
func (g *guest) update(n Node) error {
	g.mu.Lock()
	old := g.wanted
	g.wanted = n
	g.mu.Unlock()
	if n == old && g.saved {
		return nil
	}
	// Recorded first: the next life of the service tells what this one has not.
	err := g.place.save(n)
	g.saved = err == nil
	before := old.Settings.values()
	for i, now := range n.Settings.values() {
		if now != before[i] {
			// A process that is about to start is given the new value as argument.
			_ = g.send(now.command())
		}
	}
	return err
}

// kill ends the machine. Where no process runs, the next one need not wait any longer.
func (g *guest) kill() error {
	err := g.send("KILL_VM")
	if !errors.Is(err, errAbsent) {
		return err
	}
	select {
	case g.wake <- struct{}{}:
	default:
	}
	return nil
}

// send writes a command.
func (g *guest) send(line string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.write(line)
}

// write writes lines. A process that does not read is ended, since a part of them may have
// been written. mu is held.
func (g *guest) write(lines string) error {
	if g.input == nil {
		return errAbsent
	}
	if err := g.input.SetWriteDeadline(time.Now().Add(g.Times.Read)); err != nil {
		return err
	}
	if _, err := io.WriteString(g.input, lines+"\n"); err != nil {
		g.input = nil
		close(g.hung)
		return fmt.Errorf("cannot reach this virtual node: %w", err)
	}
	return nil
}
