package process

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/waltos/waltos/supervisor/unit"
	"golang.org/x/sys/unix"
)

// TestNoDescriptors: a unit that cannot be started for want of descriptors fails with that
// reason, every time, and starts once there are some.
func TestNoDescriptors(t *testing.T) {
	b := newBench(t, "")
	u := b.parse(`unit "u" {
 type = "oneshot"
 exec = ["/bin/true"]
}`)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: min(256, before.Max), Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &before) }()
	failures := 0
	for free, ok := 0, false; !ok; free++ {
		func() {
			held := exhaust(t, free)
			defer closeAll(held)
			e := b.launch(u, unit.Main).await(unit.Exited)
			if ok = e.OK; ok {
				return
			}
			failures++
			if !strings.Contains(e.Text, "too many open files") {
				t.Errorf("with %d free descriptors it ended: %s", free, e.Text)
			}
		}()
		// Nothing is left open: it starts now.
		b.launch(u, unit.Main).end("exited with status 0")
	}
	if failures < 3 {
		t.Errorf("it has failed %d times only", failures)
	}
}

// exhaust takes all descriptors but some.
func exhaust(t *testing.T, free int) (held []int) {
	t.Helper()
	for {
		fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			break
		}
		held = append(held, fd)
	}
	closeAll(held[len(held)-free:])
	return held[:len(held)-free]
}

// TestNoProcesses: the kernel refuses another process (EAGAIN), which a limit makes it do to
// every user but root: the test goes on as root of a namespace, who is another user outside.
func TestNoProcesses(t *testing.T) {
	if os.Getenv("WALT_TEST_NO_PROCESSES") != "" {
		withoutProcesses(t)
		return
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestNoProcesses$", "-test.v")
	cmd.Env = append(os.Environ(), "WALT_TEST_NO_PROCESSES=1")
	cmd.Dir = "/"
	user, group := os.Getuid(), os.Getgid()
	if user == 0 {
		user, group = 65534, 65534
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: user, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: group, Size: 1}},
		Credential:  &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EINVAL) {
		t.Skipf("this machine does not allow a namespace of users: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: TestNoProcesses") {
		t.Errorf("%v\n%s", err, out)
	}
}

func withoutProcesses(t *testing.T) {
	b := newBench(t, "")
	u := b.parse(`unit "u" {
 type = "oneshot"
 exec = ["/bin/true"]
}`)
	b.launch(u, unit.Main).end("exited with status 0")
	KeepThreads(30)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: 0, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if e := b.launch(u, unit.Main).await(unit.Exited); e.OK || !strings.Contains(e.Text, "resource temporarily unavailable") {
			t.Errorf("without processes it ended: %s", e.Text)
		}
	}
	occupyThreads(t, 20)
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &before); err != nil {
		t.Fatal(err)
	}
	b.launch(u, unit.Main).end("exited with status 0")
}

// occupyThreads keeps so many threads in the kernel at once.
func occupyThreads(t *testing.T, n int) {
	t.Helper()
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	var entered, left sync.WaitGroup
	entered.Add(n)
	for range n {
		left.Go(func() {
			entered.Done()
			_, _ = unix.Read(ends[0], make([]byte, 1))
		})
	}
	entered.Wait()
	unix.Close(ends[1])
	left.Wait()
	unix.Close(ends[0])
}

// TestFloodOfLines: a unit that writes without end is slowed down by who reads, which holds no
// more than a line.
func TestFloodOfLines(t *testing.T) {
	reading, writing, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reading.Close()
	go func() {
		defer writing.Close()
		for range 1000 {
			_, _ = writing.WriteString(strings.Repeat("x", 100_000)) // no newline at all
		}
	}()
	longest, lines := 0, 0
	readLines(reading, func(line string) {
		longest = max(longest, len(line))
		lines++
	})
	if longest > lineLimit || lines < 1000*100_000/lineLimit {
		t.Errorf("%d lines of %d bytes at most", lines, longest)
	}
}
