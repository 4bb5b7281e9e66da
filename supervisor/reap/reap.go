// Package reap starts child processes and collects the exit status of every child, as
// PID 1 (or a child subreaper) must: also of orphans, which it inherits.
//
// A status is never taken from whoever waits for it: the dead child is first looked at
// with waitid(2) WNOWAIT, and it is only then decided whose it is. All children of the
// program must be started by [Reaper.Start]; os/exec's Wait would race with it.
package reap

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reaper collects children. Its zero value is not ready; use [New].
type Reaper struct {
	mu       sync.Mutex // held while a child is born, so that its death finds it known
	children map[int]chan syscall.WaitStatus
}

// New returns a Reaper; the program has one.
func New() *Reaper { return &Reaper{children: map[int]chan syscall.WaitStatus{}} }

// Child is a started process.
type Child struct {
	PID    int
	status chan syscall.WaitStatus

	mu      sync.Mutex
	process *os.Process // nil once its end is known
}

// Start starts a process, as os.StartProcess does.
func (r *Reaper) Start(path string, argv []string, attr *os.ProcAttr) (*Child, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	process, err := os.StartProcess(path, argv, attr)
	if err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", path, err)
	}
	c := &Child{PID: process.Pid, process: process, status: make(chan syscall.WaitStatus, 1)}
	r.children[c.PID] = c.status
	return c, nil
}

// Wait returns the exit status; it may be called once.
func (c *Child) Wait() syscall.WaitStatus {
	status := <-c.status
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.process.Release()
	c.process = nil
	return status
}

// Signal sends a signal to the process; one that has ended is no error.
func (c *Child) Signal(signal syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil {
		return nil
	}
	if err := c.process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("cannot send %v to process %d: %w", signal, c.PID, err)
	}
	return nil
}

// Reap collects all children that are dead now. It is called at each SIGCHLD; one
// signal may stand for many deaths. It returns how many were orphans.
func (r *Reaper) Reap() (orphans int) {
	for {
		pid, err := peek()
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid == 0 {
			return orphans
		}
		// The child may have been born a moment ago, by a Start that has not yet noted it.
		r.mu.Lock()
		status, known := r.children[pid]
		delete(r.children, pid)
		r.mu.Unlock()
		var ws syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &ws, syscall.WNOHANG, nil); err != nil {
			return orphans
		}
		if known {
			status <- ws
		} else {
			orphans++
		}
	}
}

// peek returns a dead child, without collecting it, or 0.
func peek() (int, error) {
	// struct siginfo, 128 bytes: si_signo, si_errno, si_code, then on 64-bit machines
	// four bytes of padding before si_pid.
	var info [128]byte
	const pidOffset = 12 + 4*(unsafe.Sizeof(uintptr(0))/8) // 16 or 12
	_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)),
		unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(*(*int32)(unsafe.Pointer(&info[pidOffset]))), nil
}

// Describe says in words how a process ended.
func Describe(ws syscall.WaitStatus) string {
	switch {
	case ws.Exited():
		return fmt.Sprintf("exited with status %d", ws.ExitStatus())
	case ws.Signaled() && ws.CoreDump():
		return fmt.Sprintf("killed by signal %s (core dumped)", unix.SignalName(ws.Signal()))
	case ws.Signaled():
		return "killed by signal " + unix.SignalName(ws.Signal())
	}
	return fmt.Sprintf("ended with wait status %#x", uint32(ws))
}
