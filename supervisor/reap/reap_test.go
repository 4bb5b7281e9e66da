package reap

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets this program be the reaper of many children.
func TestMain(m *testing.M) {
	if os.Getenv("WALT_REAP") != "" {
		if err := reapMany(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const (
	families = 2000
	starters = 16
)

// reapMany has children of which each leaves an orphan, some of which die at once and some
// after their parent, and compares all statuses.
func reapMany() error {
	if os.Getpid() != 1 {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("cannot inherit orphans: %w", err)
		}
	}
	r := New()
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	orphans := make(chan int, 1)
	end := make(chan struct{})
	go func() {
		count := 0
		defer func() { orphans <- count }()
		for {
			select {
			case <-died:
				count += r.Reap()
			case <-end:
				return
			}
		}
	}()
	numbers := make(chan int)
	failures := make(chan error, starters)
	var all sync.WaitGroup
	for range starters {
		all.Go(func() {
			for n := range numbers {
				if err := family(r, n); err != nil {
					failures <- err
					for range numbers { // the others' too
					}
					return
				}
			}
		})
	}
	for n := range families {
		numbers <- n
	}
	close(numbers)
	all.Wait()
	select {
	case err := <-failures:
		return err
	default:
	}
	// Once all are dead and collected there is nobody left to wait for.
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if errors.Is(err, unix.ECHILD) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(end)
	if count := <-orphans; count != families {
		return fmt.Errorf("%d orphans of %d", count, families)
	}
	return nil
}

func family(r *Reaper, n int) error {
	status, script := n%250, "(exit 3) & exit %d"
	if n%2 == 0 {
		script = "(read x </dev/null; exit 3) & exit %d"
	}
	c, err := r.Start("/bin/sh", []string{"sh", "-c", fmt.Sprintf(script, status)}, &os.ProcAttr{})
	if err != nil {
		return err
	}
	if ws := c.Wait(); !ws.Exited() || ws.ExitStatus() != status {
		return fmt.Errorf("child %d has %s, not %d", n, Describe(ws), status)
	}
	return c.Signal(syscall.SIGTERM) // to a number that may be another's by now: it must not arrive
}

func TestReapMany(t *testing.T) {
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skipf("the children are shells: %v", err)
	}
	for _, test := range []struct {
		name  string
		flags uintptr
	}{{"subreaper", 0}, {"PID 1", unix.CLONE_NEWPID}} {
		t.Run(test.name, func(t *testing.T) {
			if test.flags != 0 && os.Geteuid() != 0 {
				t.Skip("only root makes a PID namespace")
			}
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
			cmd.Env = append(os.Environ(), "WALT_REAP=yes")
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: test.flags, Pdeathsig: syscall.SIGKILL}
			output, err := cmd.CombinedOutput()
			if test.flags != 0 && errors.Is(err, unix.EPERM) {
				t.Skipf("a PID namespace is refused here: %v", err)
			}
			if err != nil {
				t.Errorf("%v\n%s", err, output)
			}
		})
	}
}

// TestStartFailure: what cannot be started is an error with its cause, and leaves nothing.
func TestStartFailure(t *testing.T) {
	r := New()
	if _, err := r.Start("/nonexistent", []string{"x"}, &os.ProcAttr{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if len(r.children) != 0 {
		t.Errorf("children %v", r.children)
	}
}

func TestDescribe(t *testing.T) {
	for ws, want := range map[syscall.WaitStatus]string{
		7 << 8: "exited with status 7", 9: "killed by signal SIGKILL", 6 | 0x80: "killed by signal SIGABRT (core dumped)", 0x7f: "ended with wait status 0x7f",
	} {
		if got := Describe(ws); got != want {
			t.Errorf("%#x: %q, want %q", uint32(ws), got, want)
		}
	}
}
