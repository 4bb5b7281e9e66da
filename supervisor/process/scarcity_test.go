package process

import (
	"os"
	"path/filepath"
	"strings"
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

// TestNoProcesses: the kernel refuses another process (EAGAIN).
func TestNoProcesses(t *testing.T) {
	root := cgroups(t)
	b := newBench(t, root)
	limit := filepath.Join(root, "pids.max")
	if _, err := os.Stat(limit); err != nil {
		t.Skipf("this control group does not limit processes: %v", err)
	}
	u := b.parse(`unit "u" {
 type = "oneshot"
 exec = ["/bin/true"]
}`)
	if err := os.WriteFile(limit, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if e := b.launch(u, unit.Main).await(unit.Exited); e.OK || !strings.Contains(e.Text, "resource temporarily unavailable") {
			t.Errorf("without processes it ended: %s", e.Text)
		}
	}
	if err := os.WriteFile(limit, []byte("max"), 0); err != nil {
		t.Fatal(err)
	}
	b.launch(u, unit.Main).end("exited with status 0")
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
