package process

import (
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/supervisor/unit"
	"golang.org/x/sys/unix"
)

// listening is a run that waits for the first peer of a unit on demand.
type listening struct {
	end  sync.Once
	done chan struct{} // closed when it is to end
}

// listen opens the sockets of a unit and reports Ready, then Exited once a peer is there: OK,
// or why not.
func (l *Launcher) listen(u *hcl.Unit, report func(unit.Event)) unit.Run {
	run := &listening{done: make(chan struct{})}
	go func() {
		exited := unit.Event{Kind: unit.Exited}
		files, err := l.keeper(u.Name).duplicates(u)
		if err != nil {
			exited.Text = err.Error()
			report(exited)
			return
		}
		report(unit.Event{Kind: unit.Ready})
		came := make(chan struct{}, len(files))
		var watchers sync.WaitGroup
		for _, f := range files {
			watchers.Go(func() {
				if readable(f) {
					came <- struct{}{}
				}
			})
		}
		select {
		case <-came:
			exited.OK = true
		case <-run.done:
			exited.Text = "ended by request"
		}
		for _, f := range files {
			_ = f.SetReadDeadline(time.Now()) // ends its watcher
		}
		watchers.Wait()
		for _, f := range files {
			f.Close()
		}
		report(exited)
	}()
	return run
}

// readable waits until something can be read or accepted, or the deadline.
func readable(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	return raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err == nil && n > 0
	}) == nil
}

// Signal ends the wait.
func (r *listening) Signal(syscall.Signal) { r.Kill() }

// Kill ends the wait.
func (r *listening) Kill() { r.end.Do(func() { close(r.done) }) }

// Probe has nothing to probe.
func (r *listening) Probe(hcl.Probe, time.Duration) {}

// Reload has nothing to reload.
func (r *listening) Reload(syscall.Signal, []string, time.Duration) {}
