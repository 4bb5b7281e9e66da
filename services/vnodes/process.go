package vnodes

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// process is a process of walt-virtual-node, which leads a process group. It may be that of
// an earlier life of the service, which is no child of this one.
type process struct {
	pid     int
	handle  *os.File      // pidfd: of this process whatever becomes of its number
	exited  chan struct{} // closed when it has ended
	child   *exec.Cmd     // nil if it is of an earlier life
	input   *os.File      // its commands
	printed *os.File      // its console
}

// openProcess returns a process that runs.
func openProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("cannot watch process %d: %w", pid, err)
	}
	p := &process{pid: pid, handle: os.NewFile(uintptr(fd), "process"), exited: make(chan struct{})}
	raw, err := p.handle.SyscallConn()
	if err != nil {
		p.handle.Close()
		return nil, fmt.Errorf("cannot watch process %d: %w", pid, err)
	}
	go func() {
		defer close(p.exited)
		_ = raw.Read(hasEnded) // fails when the handle is closed
	}()
	return p, nil
}

// hasEnded tells whether the process of a pidfd has ended.
func hasEnded(fd uintptr) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return n > 0 && err == nil
}

// launch starts a process in a place.
func (p place) launch(argv []string) (*process, error) {
	commands, console, err := p.openFar()
	if err != nil {
		return nil, err
	}
	defer commands.Close()
	defer console.Close()
	input, printed, err := p.open()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = commands, console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	if err != nil {
		err = fmt.Errorf("cannot start its process: %w", err)
	} else {
		var started *process
		if started, err = openProcess(cmd.Process.Pid); err == nil {
			started.child, started.input, started.printed = cmd, input, printed
			return started, nil
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	input.Close()
	printed.Close()
	return nil, err
}

// takeOver returns the process that an earlier life of the service has left in a place, nil
// if there is none. One that cannot be reached is ended.
func (p place) takeOver() (*process, error) {
	found, err := p.find()
	if found == nil || err != nil {
		return nil, err
	}
	if found.input, found.printed, err = p.open(); err != nil {
		found.signal(unix.SIGKILL)
		<-found.exited
		found.close()
		return nil, err
	}
	return found, nil
}

// signal sends a signal to the process and those that it has started.
func (p *process) signal(s unix.Signal) {
	raw, err := p.handle.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		err = unix.PidfdSendSignal(int(fd), s, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
	})
	if errors.Is(err, unix.EINVAL) { // before Linux 6.9
		_ = unix.Kill(-p.pid, s)
	}
}

// result reads how a process that has ended did so.
func (p *process) result() error {
	if p.child == nil {
		return nil // only its parent is told
	}
	return p.child.Wait()
}

// close closes all but the console.
func (p *process) close() {
	p.handle.Close()
	if p.input != nil {
		p.input.Close()
	}
}
