package native

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// insideVariable tells a process that it runs in the namespaces, and what it has.
	insideVariable = "WALT_TEST_INSIDE"
	// exitRefused says that the machine does not let the namespaces be set up.
	exitRefused = 77
)

// hidden are folders of the machine that the tests see empty, and write to as on an
// appliance.
var hidden = []string{"/root", "/run", "/var/lib"}

// refused is why there are no namespaces; "" if there are.
var refused string

// Run runs the tests of a package in namespaces of their own: as root, whoever runs the
// tests, with a network that has but the loopback, where all ports and addresses are
// free, and with empty folders in the place of those that an appliance writes to. What
// the tests need of the machine is got ready before. It returns what main exits with.
//
// On a machine that refuses user namespaces the tests run without; Start skips each.
func Run(m *testing.M) int {
	if text, inside := os.LookupEnv(insideVariable); inside {
		os.Unsetenv(insideVariable)
		if err := json.Unmarshal([]byte(text), &supplies); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return exitRefused
		}
		return m.Run()
	}
	code, err := enter()
	switch {
	case err == nil && code != exitRefused:
		return code
	case err == nil:
		err = errors.New("the machine refuses what was said above")
	}
	refused = err.Error()
	return m.Run()
}

// enter runs this program again, in new namespaces.
func enter() (int, error) {
	folder, err := os.MkdirTemp("", "walt-native")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(folder)
	if err := supplies.get(folder); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, nil
	}
	text, err := json.Marshal(supplies)
	if err != nil {
		return 0, err
	}
	program, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(program, os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVariable+"="+string(text), "WALT_POSTGRES_BIN="+supplies.Postgres,
		"PATH="+supplies.Bin+":"+os.Getenv("PATH"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	// The tests end with this process: the kernel sends this signal at the end of the
	// thread that started them, which is kept.
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	// What outlives its parent in the tests comes to this process, and ends at their end.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("cannot adopt what the tests leave: %w", err)
	}
	defer endOrphans()
	runtime.LockOSThread()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("cannot make namespaces: %w", err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		for s := range signals {
			cmd.Process.Signal(s)
		}
	}()
	err = cmd.Wait()
	signal.Stop(signals)
	close(signals)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil // -1: ended by a signal
	}
	return 0, err
}

// orphanLimit bounds the end of what tests have left.
const orphanLimit = 10 * time.Second

// endOrphans ends the processes that tests have left, if they did not end in order.
func endOrphans() {
	for deadline := time.Now().Add(orphanLimit); time.Now().Before(deadline); {
		lists, _ := filepath.Glob("/proc/self/task/*/children")
		for _, list := range lists {
			pids, _ := os.ReadFile(list) // a kernel without this file leaves them alone
			for pid := range strings.FieldsSeq(string(pids)) {
				if number, err := strconv.Atoi(pid); err == nil {
					_ = unix.Kill(number, unix.SIGKILL)
				}
			}
		}
		// The children of what has ended come next.
		if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err == unix.ECHILD {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// furnish makes the namespaces look like an appliance.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot keep mounts apart: %w", err)
	}
	// What the tests need below a hidden folder is opened before, and shown again after.
	kept := map[string]*os.File{}
	for _, path := range supplies.Keep {
		if !slices.ContainsFunc(hidden, func(dir string) bool { return strings.HasPrefix(path, dir+"/") }) {
			continue
		}
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot keep %s: %w", path, err)
		}
		kept[path] = os.NewFile(uintptr(fd), path)
		defer kept[path].Close()
	}
	working, err := os.Getwd()
	if err != nil {
		return err
	}
	for _, dir := range hidden {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("cannot hide %s: %w", dir, err)
		}
	}
	for path, file := range kept {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", file.Fd()), path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("cannot show %s: %w", path, err)
		}
	}
	if err := os.Chdir(working); err != nil {
		return err
	}
	if err := os.Setenv("HOME", "/root"); err != nil {
		return err
	}
	return raiseLoopback()
}

// raiseLoopback makes all addresses of walt-net addresses of this machine: processes can
// be its devices.
func raiseLoopback() error {
	link, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("cannot find the loopback: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("cannot raise the loopback: %w", err)
	}
	for host := 1; host <= devices; host++ {
		address := &net.IPNet{IP: net.IPv4(192, 168, 152, byte(host)), Mask: net.CIDRMask(24, 32)}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: address}); err != nil {
			return fmt.Errorf("cannot add %v to the loopback: %w", address, err)
		}
	}
	return nil
}

// devices is how many addresses of walt-net are there, beginning with the server's.
const devices = 40

// absolute returns the real path of a file, "" if there is none.
func absolute(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return ""
	}
	return path
}
