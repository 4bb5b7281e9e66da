// Package machine runs virtual PCs: a QEMU process each, described by a [Spec], with
// its serial console read and watched, and its QMP monitor.
//
// The process inherits socket pairs for console, monitor and network: no name in the
// file system, no port, nothing to clean up. It dies with its parent, however that
// one ends. Nothing here needs a privilege.
package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is a running virtual PC.
type Machine struct {
	Name    string
	Console *Console
	Monitor *Monitor

	process *os.Process
	done    chan struct{}
	err     error // of the process; set before done is closed

	mu     sync.Mutex
	events []string
	asked  bool // the end was asked for by Stop or Kill
}

// startLimit is how long a QEMU may take until its monitor answers; it says nothing
// of the guest.
const startLimit = 60 * time.Second

// Start starts a machine. The sockets are one per card that has no Out, in their
// order; Start closes them in any case. Console lines are written to log.
func Start(ctx context.Context, p Program, spec Spec, log io.Writer, sockets ...*os.File) (*Machine, error) {
	m, err := start(ctx, p, spec, log, sockets)
	for _, f := range sockets {
		f.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot start machine %s: %w", spec.Name, err)
	}
	return m, nil
}

func start(ctx context.Context, p Program, spec Spec, log io.Writer, sockets []*os.File) (*Machine, error) {
	monitor, monitorEnd, err := socketPair("monitor")
	if err != nil {
		return nil, err
	}
	defer monitorEnd.Close()
	console, consoleEnd, err := socketPair("console")
	if err != nil {
		monitor.Close()
		return nil, err
	}
	defer consoleEnd.Close()

	m := &Machine{Name: spec.Name, done: make(chan struct{})}
	var complaints tail
	cmd := p.Command(context.Background(), spec.arguments()...)
	cmd.ExtraFiles = append([]*os.File{monitorEnd, consoleEnd}, sockets...)
	cmd.Stdout, cmd.Stderr = &complaints, &complaints
	m.Console = newConsole(spec.Name, console, log)
	if err := m.launch(cmd, &complaints); err != nil {
		monitor.Close()
		console.Close()
		return nil, err
	}
	// From here on only the machine holds the other ends: they close with it.
	monitorEnd.Close()
	consoleEnd.Close()
	go m.Console.run()

	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	m.Monitor, err = NewMonitor(ctx, monitor, m.event)
	if err != nil {
		m.Kill()
		if words := complaints.String(); words != "" {
			return nil, errors.New(words)
		}
		return nil, err
	}
	return m, nil
}

// launch starts the process and watches it. Pdeathsig concerns the thread that
// started the process, not the whole parent: that thread is kept until the end.
func (m *Machine) launch(cmd *exec.Cmd, complaints *tail) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		m.process = cmd.Process
		started <- nil
		err := cmd.Wait()
		if words := complaints.String(); err != nil && words != "" {
			err = fmt.Errorf("%w: %s", err, words)
		}
		m.err = err
		<-m.Console.done // it has read all that the machine wrote
		m.Console.conn.Close()
		close(m.done)
	}()
	return <-started
}

func (m *Machine) event(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.events = append(m.events, name); len(m.events) > 100 {
		m.events = m.events[50:]
	}
}

// Events returns the names of the last QMP events, as RESET or SHUTDOWN.
func (m *Machine) Events() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.events...)
}

// PID is the number of the QEMU process.
func (m *Machine) PID() int { return m.process.Pid }

// Done is closed when the machine has ended.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Err tells why a machine ended: nil if it was stopped or powered itself off. It is
// nil too while the machine runs.
func (m *Machine) Err() error {
	select {
	case <-m.done:
	default:
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asked || m.err == nil {
		return nil
	}
	return fmt.Errorf("machine %s died: %w", m.Name, m.err)
}

// Kill ends the machine at once, as a cut of its power does, and returns when it is
// gone. What the guest had flushed is on its disks; so may be what it had not,
// because the host keeps written pages: a real disk would lose more.
func (m *Machine) Kill() {
	m.mu.Lock()
	m.asked = true
	m.mu.Unlock()
	m.process.Kill() // fails only if it has ended already
	<-m.done
}

// pressPeriod is between two presses of the power button.
const pressPeriod = 5 * time.Second

// Stop presses the power button, now and then again, as a guest that still loads its
// drivers misses it, and gives the guest until the context ends to power off; then the
// machine is ended all the same. It tells whether the guest obeyed.
func (m *Machine) Stop(ctx context.Context) (obeyed bool) {
	m.mu.Lock()
	m.asked = true
	m.mu.Unlock()
	again := time.NewTicker(pressPeriod)
	defer again.Stop()
	for {
		// In its last moments the machine does not take it any more.
		_ = m.Monitor.Execute(ctx, "system_powerdown", nil, nil)
		select {
		case <-m.done:
			return true
		case <-ctx.Done():
			m.Quit()
			return false
		case <-again.C:
		}
	}
}

// quitLimit is how long QEMU may take to flush and end.
const quitLimit = 10 * time.Second

// Quit ends QEMU in order, without asking the guest.
func (m *Machine) Quit() {
	m.mu.Lock()
	m.asked = true
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), quitLimit)
	defer cancel()
	// The answer may be lost in QEMU's end; what counts is that it ends.
	go m.Monitor.Execute(ctx, "quit", nil, nil)
	select {
	case <-m.done:
	case <-ctx.Done():
		m.Kill()
	}
}

// Reset presses the reset button.
func (m *Machine) Reset(ctx context.Context) error {
	return m.Monitor.Execute(ctx, "system_reset", nil, nil)
}

// Pause stops the guest's time, Resume lets it go on.
func (m *Machine) Pause(ctx context.Context) error { return m.Monitor.Execute(ctx, "stop", nil, nil) }

// Resume lets the guest go on.
func (m *Machine) Resume(ctx context.Context) error { return m.Monitor.Execute(ctx, "cont", nil, nil) }

// Save stores memory, devices and disks as a snapshot of the disks.
func (m *Machine) Save(ctx context.Context, name string) error {
	_, err := m.Monitor.Human(ctx, "savevm "+name)
	return err
}

// Load goes back to a snapshot.
func (m *Machine) Load(ctx context.Context, name string) error {
	_, err := m.Monitor.Human(ctx, "loadvm "+name)
	return err
}

// SetLink plugs the cable of a card in or out, as the guest sees it.
func (m *Machine) SetLink(ctx context.Context, card int, up bool) error {
	return m.Monitor.Execute(ctx, "set_link", map[string]any{"name": fmt.Sprintf("card%d", card), "up": up}, nil)
}

// socketPair returns our end of a stream, and the one a child inherits.
func socketPair(name string) (net.Conn, *os.File, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make the socket of the %s: %w", name, err)
	}
	near, far := os.NewFile(uintptr(ends[0]), name), os.NewFile(uintptr(ends[1]), name)
	defer near.Close()
	conn, err := net.FileConn(near)
	if err != nil {
		far.Close()
		return nil, nil, fmt.Errorf("cannot make the socket of the %s: %w", name, err)
	}
	return conn, far, nil
}

// tail keeps the last words of a process.
type tail struct {
	mu   sync.Mutex
	text bytes.Buffer
}

const tailSize = 4096

func (t *tail) Write(data []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text.Write(data)
	if t.text.Len() > tailSize {
		t.text.Next(t.text.Len() - tailSize)
	}
	return len(data), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(t.text.String())
}
