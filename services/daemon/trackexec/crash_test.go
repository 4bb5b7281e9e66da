package trackexec

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/waltos/waltos/services/daemon/trackexec/format"
	"github.com/waltos/waltos/services/daemon/trackexec/timeline"
	"github.com/waltos/waltos/services/internal/nettest"
)

// wait returns when a condition holds.
func wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 seconds", what)
		}
	}
}

// all returns the events of a folder, as the tools read them, while it may be written.
func all(t *testing.T, folder string) (events []timeline.Event) {
	t.Helper()
	line, err := timeline.Open(folder, t.Logf)
	if err != nil {
		return nil
	}
	line.Each(func(e timeline.Event) { events = append(events, e) })
	return events
}

// named returns the events with a name.
func named(events []timeline.Event, name string) (found []timeline.Event) {
	for _, e := range events {
		if e.Name == name {
			found = append(found, e)
		}
	}
	return found
}

// TestKilled kills a process that traces; what it was doing can be read.
func TestKilled(t *testing.T) {
	const variable = "WALT_TEST_TRACE"
	if root := os.Getenv(variable); root != "" {
		r := Open(Config{Root: root, Process: Beginner, Period: 10 * time.Millisecond, Reserve: -1})
		ctx, _ := r.Begin(context.Background(), Task, "hang")
		for i := 0; ; i++ {
			_, span := r.Begin(ctx, SQL, fmt.Sprintf("statement %d", i%10))
			span.End(nil)
			time.Sleep(50 * time.Microsecond)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	cmd := exec.Command(self, "-test.run", "^TestKilled$")
	cmd.Env = append(os.Environ(), variable+"="+root)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(root, latestName, Beginner)
	wait(t, "a trace with the operation that lasts", func() bool {
		if _, err := os.Stat(filepath.Join(folder, format.IndexName)); err != nil {
			return false
		}
		events := all(t, folder)
		return len(named(events, "hang")) > 0 && len(named(events, "statement 7")) > 0
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	events := all(t, folder)
	hang := named(events, "hang")
	if len(hang) != 1 || hang[0].State != format.Open {
		t.Errorf("what it was doing: %+v", hang)
	}
	pid, err := os.ReadFile(filepath.Join(folder, format.PIDName))
	if err != nil || string(pid) != fmt.Sprintln(cmd.Process.Pid) {
		t.Errorf("pid: %q, %v", pid, err)
	}

	// Its next life begins another run, and that of another process goes on in its own.
	for range 2 {
		r := Open(Config{Root: root, Process: Beginner, Warn: t.Errorf, Reserve: -1})
		r.Close()
	}
	runs, err := filepath.Glob(filepath.Join(root, "[0-9]*"))
	if err != nil || len(runs) != 3 {
		t.Errorf("runs %q, %v", runs, err)
	}
}

// TestProcessesShareARun starts the others before server-main, and again.
func TestProcessesShareARun(t *testing.T) {
	root := t.TempDir()
	config := func(process string) Config {
		return Config{Root: root, Process: process, Warn: t.Errorf, Period: 5 * time.Millisecond, Reserve: -1}
	}
	do := func(r *Recorder, name string) {
		_, span := r.Begin(t.Context(), Request, name)
		span.End(nil)
	}
	hub := Open(config("server-hub"))
	do(hub, "before")
	main := Open(config(Beginner))
	latest := filepath.Join(root, latestName)
	hubFolder := filepath.Join(latest, "server-hub")
	wait(t, "the hub in its folder", func() bool { _, err := os.Stat(filepath.Join(hubFolder, format.IndexName)); return err == nil })
	hub.Close()
	hub = Open(config("server-hub"))
	do(hub, "second life")
	wait(t, "the hub in its folder again", func() bool { return len(named(all(t, hubFolder), "second life")) == 1 })
	events := all(t, hubFolder)
	if len(named(events, "before")) != 1 || len(named(events, "server-hub")) != 2 {
		t.Errorf("the trace of two lives: %+v", events)
	}
	first, err := os.Readlink(latest)
	if err != nil {
		t.Fatal(err)
	}
	main.Close()
	main = Open(config(Beginner))
	wait(t, "another run", func() bool { name, err := os.Readlink(latest); return err == nil && name != first })
	wait(t, "the hub in the other run", func() bool {
		do(hub, "other run") // the first ones may still go to the earlier run
		_, err := os.Stat(filepath.Join(hubFolder, format.IndexName))
		return err == nil && len(named(all(t, hubFolder), "other run")) > 0
	})
	main.Close()
	hub.Close()
	both, err := timeline.Open(latest, t.Errorf)
	if err != nil || strings.Join(both.Processes(), " ") != "server-hub server-main" {
		t.Errorf("processes %v, %v", both.Processes(), err)
	}
}

// TestOldestPartIsDropped writes more than a trace may have.
func TestOldestPartIsDropped(t *testing.T) {
	root := t.TempDir()
	r := Open(Config{Root: root, Process: Beginner, Warn: t.Errorf, Period: time.Millisecond, Segment: 1 << 10, Size: 4 << 10, Reserve: -1})
	folder := filepath.Join(root, latestName, Beginner)
	last := 0
	wait(t, "segment 20", func() bool {
		for range 100 {
			last++
			_, span := r.Begin(t.Context(), Task, fmt.Sprintf("task %d", last))
			span.End(nil)
		}
		_, err := os.Stat(format.SegmentPath(folder, 20))
		return err == nil
	})
	r.Close()
	numbers, err := segments(folder)
	if err != nil || len(numbers) > 4 {
		t.Errorf("segments %v, %v", numbers, err)
	}
	events := all(t, folder)
	if len(named(events, fmt.Sprintf("task %d", last))) != 1 || len(named(events, "task 1")) != 0 {
		t.Errorf("%d events are left, of %d", len(events), last)
	}
}

// TestSlowWriterLosesEvents: what cannot be held is counted.
func TestSlowWriterLosesEvents(t *testing.T) {
	root := t.TempDir()
	hub := Open(Config{Root: root, Process: "server-hub", Warn: t.Errorf, Period: 5 * time.Millisecond, Reserve: -1})
	const calls = 400_000 // take more than all blocks that are held
	for range calls {
		hub.Request(time.Now(), "CSAPI", "get_time", 1).End(nil)
	}
	main := Open(Config{Root: root, Process: Beginner, Warn: t.Errorf, Reserve: -1})
	defer main.Close()
	folder := filepath.Join(root, latestName, "server-hub")
	wait(t, "the folder of the hub", func() bool { _, err := os.Stat(filepath.Join(folder, format.IndexName)); return err == nil })
	hub.Close()
	written, lost := 0, int64(0)
	for _, e := range all(t, folder) {
		switch e.Kind {
		case format.Lost:
			lost += e.Number
		case format.Request:
			written++
		}
	}
	if lost == 0 || written+int(lost) < calls { // idle times may be lost, too
		t.Errorf("%d are written, %d lost", written, lost)
	}
}

// TestFullDisk: tracing stops with one message, and what is traced goes on.
func TestFullDisk(t *testing.T) {
	if !nettest.Enter(t) {
		return
	}
	root := nettest.SmallDisk(t, 256)
	messages := make(chan string, 10)
	warn := func(format string, args ...any) { messages <- fmt.Sprintf(format, args...) }
	r := Open(Config{Root: root, Process: Beginner, Warn: warn, Period: time.Millisecond, Reserve: -1})
	for i := 0; ; i++ {
		_, span := r.Begin(t.Context(), Task, fmt.Sprintf("%x", i*i*i)) // hard to compress
		if span == (Span{}) {
			break
		}
		span.End(nil)
	}
	r.Close()
	if text := <-messages; !strings.Contains(text, "no space left on device") || len(messages) > 0 {
		t.Errorf("message %q, and %d others", text, len(messages))
	}
	lines, damaged := 0, 0
	line, err := timeline.Open(filepath.Join(root, latestName), func(string, ...any) { damaged++ })
	if err != nil {
		t.Fatal(err)
	}
	line.Each(func(timeline.Event) { lines++ })
	if lines == 0 || damaged > 1 {
		t.Errorf("%d events, %d messages", lines, damaged)
	}

	// A disk that has only its reserve left is not used at all.
	other := Open(Config{Root: root, Process: Beginner, Warn: warn, Period: time.Millisecond})
	if text := <-messages; !strings.Contains(text, "reserved") && !strings.Contains(text, "no space") {
		t.Errorf("message %q", text)
	}
	other.Close()
}

// TestConcurrentUse is for the race detector.
func TestConcurrentUse(t *testing.T) {
	root := t.TempDir()
	r := Open(Config{Root: root, Process: Beginner, Warn: t.Errorf, Period: time.Millisecond, Reserve: -1})
	var all sync.WaitGroup
	const tasks, steps = 8, 200
	for range tasks {
		all.Go(func() {
			for i := range steps {
				ctx, request := r.Begin(t.Context(), Request, "request")
				var parts sync.WaitGroup
				for range 2 {
					parts.Go(func() {
						_, step := Begin(ctx, Task, "step")
						step.Note("detail", int64(i))
						step.End(nil)
					})
				}
				request.Note("CSAPI", int64(i))
				parts.Wait()
				request.End(nil)
			}
		})
	}
	all.Wait()
	r.Close()
	counts := map[string]int{}
	for _, e := range events(t, filepath.Join(root, latestName, Beginner)) {
		if e.State != format.Open { // one that lasts is told twice
			counts[e.Name]++
		}
	}
	if counts["request"] != tasks*steps || counts["step"] != 2*tasks*steps {
		t.Errorf("got %v", counts)
	}
}

// TestFoldersAreGiven: the user of a process owns its folder and can reach it, whatever the
// administrator made.
func TestFoldersAreGiven(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives folders away")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skipf("this machine has no other user: %v", err)
	}
	root := t.TempDir()
	if err := os.Chmod(root, 0o700); err != nil {
		t.Fatal(err)
	}
	run, err := beginRun(root, 8, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	for _, path := range []string{root, run.Name()} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o111 != 0o111 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	given := filepath.Join(root, "given")
	if err := makeFolder(given, "nobody"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(given)
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; fmt.Sprint(owner) != nobody.Uid {
		t.Errorf("it belongs to %d", owner)
	}
}

// TestOldRunsAreRemoved keeps the latest ones, and what is no run.
func TestOldRunsAreRemoved(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "mine"), 0o700); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for _, second := range []int{0, 0, 3, 4, 5, -9} { // two at once, and one with a clock that is late
		run, err := beginRun(root, 3, now.Add(time.Duration(second)*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		run.Close()
	}
	files, err := filepath.Glob(filepath.Join(root, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, filepath.Base(f))
	}
	latest, err := os.Readlink(filepath.Join(root, latestName))
	if want := "261122-095951 261122-100004 261122-100005 latest mine"; strings.Join(names, " ") != want || latest != "261122-095951" {
		t.Errorf("%s is the latest of %q, %v; want %s", latest, names, err, want)
	}
}
