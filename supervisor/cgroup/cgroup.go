// Package cgroup keeps one control group (version 2) per unit: limits, memory in use,
// killing of everything in it. Specification: Documentation/admin-guide/cgroup-v2.rst of
// Linux. It needs cgroup.kill (Linux 5.14).
package cgroup

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Mount is where the hierarchy of PID 1 is.
const Mount = "/sys/fs/cgroup"

// controllers are given to units.
var controllers = []string{"cpu", "memory", "pids", "io"}

// Setup prepares the group below which the units' groups are made, and returns its path.
// A controller that the kernel lacks is only reported, by the error that names it.
func Setup(mount string) (root string, err error) {
	root = filepath.Join(mount, "units")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", fmt.Errorf("cannot make control group: %w", err)
	}
	var missing []error
	for _, dir := range []string{mount, root} {
		for _, c := range controllers {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
				missing = append(missing, fmt.Errorf("cannot enable controller %s in %s: %w", c, dir, err))
			}
		}
	}
	return root, errors.Join(append(missing, leaveRoom(root, "/proc/sys/kernel"))...)
}

// leaveRoom keeps a tenth of the processes that the kernel can have from all units together:
// PID 1 dies when it is refused a thread.
func leaveRoom(root, options string) error {
	most := math.MaxInt32
	for _, name := range []string{"pid_max", "threads-max"} {
		text, err := os.ReadFile(filepath.Join(options, name))
		if err != nil {
			return fmt.Errorf("cannot limit the processes of units: %w", err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return fmt.Errorf("cannot limit the processes of units: %w", err)
		}
		most = min(most, n)
	}
	if err := os.WriteFile(filepath.Join(root, "pids.max"), []byte(strconv.Itoa(most-most/10)), 0o644); err != nil {
		return fmt.Errorf("cannot limit the processes of units: %w", err)
	}
	return nil
}

// Group is the control group of one unit.
type Group struct{ dir string }

// Forget removes the group of a unit, unless something is in it. One that was killed once must
// not be used again: Linux since 6.12 kills what is made in it by clone3 with CLONE_INTO_CGROUP,
// because it compares with the number of kills of the wrong group.
func Forget(root, name string) { _ = os.Remove(filepath.Join(root, name)) }

// File opens the folder of the group, for SysProcAttr.CgroupFD.
func (g *Group) File() (*os.File, error) { return os.Open(g.dir) }

// Kill kills every process of the group and of groups below it.
func (g *Group) Kill() error {
	err := os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot kill control group: %w", err)
	}
	return nil
}

// WaitEmpty returns true when no process is left, false after the time limit.
func (g *Group) WaitEmpty(limit time.Duration) bool {
	path := filepath.Join(g.dir, "cgroup.events")
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return errors.Is(err, unix.ENOENT)
	}
	defer unix.Close(fd)
	end := time.Now().Add(limit)
	buffer := make([]byte, 128)
	for {
		n, err := unix.Pread(fd, buffer, 0)
		if err != nil {
			return errors.Is(err, unix.ENODEV)
		}
		if strings.Contains(string(buffer[:n]), "populated 0") {
			return true
		}
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		// The file signals a change by POLLPRI.
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
	}
}

// Memory returns the bytes in use, or 0 if the kernel does not say.
func (g *Group) Memory() int64 {
	text, err := os.ReadFile(filepath.Join(g.dir, "memory.current"))
	if err != nil {
		return 0
	}
	value, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0
	}
	return value
}

// OOMKills returns how many processes of the group the kernel has killed for want of
// memory.
func (g *Group) OOMKills() int {
	text, err := os.ReadFile(filepath.Join(g.dir, "memory.events"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			n, err := strconv.Atoi(value)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}
