// Package daemontest runs the daemon for tests: its services as processes of this machine,
// with the PostgreSQL of package dbtest. Processes says how they live; Daemon is a whole
// daemon on the loopback, which needs neither root nor namespaces. What also needs the
// addresses and paths of an appliance is in package tests/native.
package daemontest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/waltos/waltos/services/daemon/db/dbtest"
	"github.com/waltos/waltos/services/wire/client"
)

// Processes are services of one platform. They end with the test, in the reverse order of
// their start, and show what they printed if it has failed.
type Processes struct {
	// API is where server-hub is.
	API string

	t         testing.TB
	program   string
	arguments func(service string) []string
	printed   string // folder
	running   map[string]*process
}

type process struct {
	cmd   *exec.Cmd
	ended chan error
}

// New returns no process yet. The program runs the service that its first argument names,
// and gives it the arguments that follow.
func New(t testing.TB, api, program string, arguments func(service string) []string) *Processes {
	p := &Processes{API: api, t: t, program: program, arguments: arguments, printed: t.TempDir(), running: map[string]*process{}}
	t.Cleanup(p.report)
	return p
}

// Launch starts a command that ends with this program at the latest: the kernel sends a
// signal at the end of the thread that started it, which therefore does nothing else. How
// the command has ended comes from the channel.
func Launch(cmd *exec.Cmd) (ended chan error, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	ended = make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	return ended, <-started
}

// Up starts services.
func (p *Processes) Up(services ...string) {
	p.t.Helper()
	for _, service := range services {
		p.up(service)
	}
}

func (p *Processes) up(service string) {
	p.t.Helper()
	printed, err := os.OpenFile(filepath.Join(p.printed, service), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		p.t.Fatal(err)
	}
	defer printed.Close()
	s := &process{cmd: exec.Command(p.program, append([]string{service}, p.arguments(service)...)...)}
	s.cmd.Stdout, s.cmd.Stderr = printed, printed
	if s.ended, err = Launch(s.cmd); err != nil {
		p.t.Fatal(err)
	}
	p.running[service] = s
	p.t.Cleanup(func() {
		if p.running[service] == s {
			p.Down(service)
		}
	})
}

// PID returns the number of a service's process.
func (p *Processes) PID(service string) int { return p.running[service].cmd.Process.Pid }

// Down ends services in order, which they have to do without an error.
func (p *Processes) Down(services ...string) {
	p.t.Helper()
	for _, service := range services {
		if err := p.end(service, syscall.SIGTERM); err != nil {
			p.t.Errorf("%s: %v", service, err)
		}
	}
}

// Kill ends a service without any care.
func (p *Processes) Kill(service string) { _ = p.end(service, syscall.SIGKILL) }

func (p *Processes) end(service string, s syscall.Signal) error {
	ending := p.running[service]
	delete(p.running, service)
	ending.cmd.Process.Signal(s)
	return <-ending.ended
}

// Await waits until a client is served, also what needs the database.
func (p *Processes) Await() { p.t.Helper(); p.AwaitCall("device_show") }

// AwaitCall waits until a call of a client returns.
func (p *Processes) AwaitCall(method string, args ...any) {
	p.t.Helper()
	dbtest.Wait(p.t, "the daemon", func(ctx context.Context) error {
		for service, s := range p.running {
			select {
			case err := <-s.ended:
				s.ended <- err
				p.t.Fatalf("%s has ended: %v", service, err)
			default:
			}
		}
		s, err := client.Dial(ctx, p.API, client.Options{})
		if err != nil {
			return err
		}
		defer s.Close()
		_, err = s.Call(ctx, method, args...)
		return err
	})
}

// report shows what the processes printed, when the test has failed.
func (p *Processes) report() {
	if !p.t.Failed() {
		return
	}
	files, _ := filepath.Glob(filepath.Join(p.printed, "*"))
	for _, file := range files {
		const enough = 4096
		if text, err := os.ReadFile(file); err == nil && len(text) > 0 {
			p.t.Logf("%s printed:\n%s", filepath.Base(file), text[max(0, len(text)-enough):])
		}
	}
}

// FreePort returns an address of the loopback that nothing listens on.
func FreePort(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return fmt.Sprint(ln.Addr())
}
