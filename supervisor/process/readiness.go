package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/supervisor/reap"
	"github.com/waltos/waltos/supervisor/unit"
)

const (
	// probeTimeout bounds one try of readiness, of which there are many.
	probeTimeout = 2 * time.Second
	firstProbe   = 20 * time.Millisecond
	slowestProbe = 500 * time.Millisecond
)

// hasStarted reports that the main process exists.
func (r *run) hasStarted(pid int) {
	r.report(unit.Event{Kind: unit.Started, PID: pid})
	r.mu.Lock()
	r.started = true
	early := r.early
	r.mu.Unlock()
	if early {
		r.ready()
	}
}

// ready reports readiness, but not before the start: a process may be fast.
func (r *run) ready() {
	r.mu.Lock()
	r.early = !r.started
	early := r.early
	r.mu.Unlock()
	if !early {
		r.readied.Store(true)
		r.report(unit.Event{Kind: unit.Ready})
	}
}

// awaitReadiness reports readiness once what the unit's ready block says holds, or never
// when the main process ends first. The time limit is the manager's.
func (r *run) awaitReadiness(p *preparation) {
	want := r.unit.Ready
	if want.Notify || want.FD != 0 {
		return // said by the process itself
	}
	if want.Probe().Empty() {
		if r.unit.Type == "service" {
			r.ready()
		}
		return
	}
	limit := probeTimeout
	if d, err := time.ParseDuration(want.Timeout); err == nil && len(want.Exec) > 0 {
		limit = d // a command has all the time that there is
	}
	for pause := firstProbe; ; pause = min(2*pause, slowestProbe) {
		select {
		case <-r.ended:
			return
		case <-time.After(pause):
		}
		if r.try(p, want.Probe(), limit) == nil {
			r.ready()
			return
		}
	}
}

// hearReadiness returns where the main process writes a newline when it is ready, as s6 has
// it.
func (r *run) hearReadiness() (said *os.File, err error) {
	reading, writing, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cannot hear of readiness: %w", err)
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		defer reading.Close()
		if _, err := bufio.NewReaderSize(reading, 64).ReadSlice('\n'); err == nil {
			r.ready()
		}
	}()
	go func() {
		select {
		case <-heard:
		case <-r.ended: // a survivor may hold the other end
			_ = reading.SetReadDeadline(time.Now())
		}
	}()
	return writing, nil
}

// putAt puts a file where a new process has it as descriptor number fd.
func putAt(files []*os.File, fd int, file *os.File) ([]*os.File, error) {
	if len(files) > fd {
		return nil, fmt.Errorf("cannot pass descriptor %d: a socket or a stored descriptor has that number", fd)
	}
	for len(files) < fd {
		files = append(files, nil)
	}
	return append(files, file), nil
}

// Probe implements unit.Run.
func (r *run) Probe(what hcl.Probe, limit time.Duration) {
	r.aside(unit.Probed, func(p *preparation) error { return r.try(p, what, limit) })
}

// Reload implements unit.Run.
func (r *run) Reload(signal syscall.Signal, command []string, limit time.Duration) {
	r.aside(unit.Reloaded, func(p *preparation) error {
		if len(command) > 0 {
			return r.succeeds(p, command, limit)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.child == nil {
			return errors.New("it has ended")
		}
		return r.child.Signal(signal)
	})
}

// aside does something beside the main process and reports how it went.
func (r *run) aside(kind unit.EventKind, do func(*preparation) error) {
	r.mu.Lock()
	p := r.prepared
	r.mu.Unlock()
	go func() {
		event := unit.Event{Kind: kind, OK: true}
		if err := do(p); err != nil {
			event.OK, event.Text = false, err.Error()
		}
		r.report(event)
	}()
}

// try makes one probe.
func (r *run) try(p *preparation, what hcl.Probe, limit time.Duration) error {
	switch {
	case what.TCP != "":
		return accepts("tcp", what.TCP, limit)
	case what.Unix != "":
		return accepts("unix", what.Unix, limit)
	case what.HTTP != "":
		return answers(what.HTTP, limit)
	default:
		return r.succeeds(p, what.Exec, limit)
	}
}

func accepts(network, address string, limit time.Duration) error {
	conn, err := net.DialTimeout(network, address, limit)
	if err != nil {
		return err
	}
	return conn.Close()
}

// answers asks a web server; where it sends a browser is of no interest.
func answers(url string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return fmt.Errorf("GET %s: %w", url, err)
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 399 {
		return fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return nil
}

// succeeds runs a command beside the unit, as its user and in its group, within a time limit.
func (r *run) succeeds(p *preparation, command []string, limit time.Duration) error {
	child, launched, err := r.start(p, command, probe)
	if err != nil {
		return err
	}
	if child == nil {
		return errors.New("it is being stopped")
	}
	late := time.AfterFunc(limit, func() { r.killSession(child.PID) })
	failure := launched.outcome()
	status := child.Wait()
	switch inTime := late.Stop(); {
	case failure != nil:
		return failure
	case status.Exited() && status.ExitStatus() == 0:
		return nil
	case !inTime:
		return fmt.Errorf("%s did not end within %v", command[0], limit)
	}
	return fmt.Errorf("%s %s", command[0], reap.Describe(status))
}
