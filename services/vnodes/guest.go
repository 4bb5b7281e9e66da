package vnodes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
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

// drainTime bounds the reading of what a process has left in its pipe.
const drainTime = time.Second

// guest is the process of one virtual node, and those that follow it.
type guest struct {
	*Service
	mac    string
	cancel context.CancelFunc
	ended  chan struct{}
	wake   chan struct{} // ends a pause

	mu     sync.Mutex
	wanted Node
	input  *os.File // nil: no process runs
	hung   chan struct{}
}

// begin starts a guest.
func (s *Service) begin(n Node) *guest {
	ctx, cancel := context.WithCancel(context.Background())
	g := &guest{Service: s, mac: n.MAC, cancel: cancel, ended: make(chan struct{}), wake: make(chan struct{}, 1), wanted: n}
	go func() {
		defer close(g.ended)
		g.run(ctx)
	}()
	return g
}

// end ends a guest, and returns when its process has ended.
func (g *guest) end() {
	g.cancel()
	<-g.ended
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

// once runs one process to its end; the error says why it has ended.
func (g *guest) once(ctx context.Context) error {
	cmd, in, out, err := g.start()
	if err != nil {
		return err
	}
	var printing sync.WaitGroup
	printing.Go(func() { g.read(out) })
	exited := make(chan struct{})
	go func() {
		awaitExit(cmd.Process.Pid)
		close(exited)
	}()
	hung := false
	select {
	case <-exited:
	case <-g.hung:
		hung = true
		g.terminate(cmd.Process, exited)
	case <-ctx.Done():
		_ = g.send("EXIT") // if it does not read, it is ended below
		wait(exited, g.Times.Exit)
		g.terminate(cmd.Process, exited)
	}
	// Nothing of it is left behind; its number cannot be another's before Wait.
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	<-exited
	err = cmd.Wait()
	_ = os.Remove(g.pidFile())
	g.mu.Lock()
	g.input = nil
	g.mu.Unlock()
	in.Close()
	_ = out.SetReadDeadline(time.Now().Add(drainTime))
	printing.Wait()
	out.Close()
	switch {
	case hung:
		return errors.New("its process does not read its commands any more")
	case err != nil:
		return fmt.Errorf("its process has ended: %w", err)
	}
	return errors.New("its process has ended")
}

// start starts a process, and returns what its commands are written to and what it prints.
func (g *guest) start() (cmd *exec.Cmd, in, out *os.File, err error) {
	commands, in, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("cannot talk to its process: %w", err)
	}
	defer commands.Close()
	out, printed, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, nil, nil, fmt.Errorf("cannot talk to its process: %w", err)
	}
	defer printed.Close()
	g.mu.Lock() // no change of the settings is missed
	defer g.mu.Unlock()
	cmd = exec.Command(g.Program[0], slices.Concat(g.Program[1:], g.wanted.arguments(), []string{"--pid-path", g.pidFile()})...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = commands, printed, printed
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		in.Close()
		out.Close()
		return nil, nil, nil, fmt.Errorf("cannot start its process: %w", err)
	}
	g.input, g.hung = in, make(chan struct{})
	g.running.Add(1)
	return cmd, in, out, nil
}

// pidFile is where the process says its number.
func (g *guest) pidFile() string { return filepath.Join(g.Runtime, g.mac) }

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
func (g *guest) terminate(p *os.Process, exited <-chan struct{}) {
	for _, step := range []struct {
		signal unix.Signal
		limit  time.Duration
	}{{unix.SIGTERM, g.Times.Term}, {unix.SIGKILL, g.Times.Term}} {
		select {
		case <-exited:
			return
		default:
		}
		_ = unix.Kill(-p.Pid, step.signal)
		wait(exited, step.limit)
	}
}

func wait(ended <-chan struct{}, limit time.Duration) {
	select {
	case <-ended:
	case <-time.After(limit):
	}
}

// awaitExit waits until a child has ended, and leaves its exit status to be read.
func awaitExit(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}

// update tells the process what has changed of its settings.
func (g *guest) update(n Node) {
	g.mu.Lock()
	old := g.wanted
	g.wanted = n
	g.mu.Unlock()
	before := old.Settings.values()
	for i, now := range n.Settings.values() {
		if now != before[i] {
			// A process that is about to start is given the new value as argument.
			_ = g.send("CONF " + now.attribute + " " + now.value)
		}
	}
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

// send writes a command. A process that does not read is ended, since a part of the command
// may have been written.
func (g *guest) send(line string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.input == nil {
		return errAbsent
	}
	if err := g.input.SetWriteDeadline(time.Now().Add(g.Times.Read)); err != nil {
		return err
	}
	if _, err := io.WriteString(g.input, line+"\n"); err != nil {
		g.input = nil
		close(g.hung)
		return fmt.Errorf("cannot reach this virtual node: %w", err)
	}
	return nil
}
