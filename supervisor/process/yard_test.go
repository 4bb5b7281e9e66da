package process

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/notify"
	"github.com/waltos/waltos/supervisor/unit"
	"golang.org/x/sys/unix"
)

// act makes this program a service that does what its arguments say, in order:
//
//	say:TEXT         tells its supervisor that; ";" is a new line
//	newline:FD       writes a newline to a descriptor
//	until:PATH       waits until the path exists
//	note:PATH        adds a line with its process number to a file
//	beat:PATH        gives a sign of life every 20 ms until the path exists
//	hup:PATH         from now on a SIGHUP is noted in a file, with RELOADING and READY
//	deaf             ignores SIGTERM from now on
//	serve:NAME       answers one connection to a socket with its process number
//	child:PATH       starts a child in a session of its own and writes its number
//	exit:STATUS      ends
//	stay             lives on
func act(script []string) error {
	for _, line := range script {
		what, arg, _ := strings.Cut(line, ":")
		switch what {
		case "say":
			if err := say(strings.ReplaceAll(arg, ";", "\n")); err != nil {
				return err
			}
		case "newline":
			fd, err := strconv.Atoi(arg)
			if err != nil {
				return err
			}
			if _, err := unix.Write(fd, []byte("\n")); err != nil {
				return err
			}
		case "until":
			for !exists(arg) {
				time.Sleep(time.Millisecond)
			}
		case "beat":
			for ; !exists(arg); time.Sleep(20 * time.Millisecond) {
				if err := say("WATCHDOG=1"); err != nil {
					return err
				}
			}
		case "note":
			if err := note(arg, strconv.Itoa(os.Getpid())); err != nil {
				return err
			}
		case "hup":
			hups := make(chan os.Signal, 1)
			signal.Notify(hups, syscall.SIGHUP)
			go func() {
				for range hups {
					_ = say("RELOADING=1") // the test sees what is missing
					_ = note(arg, "hup")
					_ = say("READY=1")
				}
			}()
		case "deaf":
			signal.Ignore(syscall.SIGTERM)
		case "serve":
			ln, err := notify.Listener(arg)
			if err != nil {
				return err
			}
			conn, err := ln.Accept()
			if err != nil {
				return err
			}
			fmt.Fprintln(conn, os.Getpid())
			conn.Close()
		case "child":
			child, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}})
			if err != nil {
				return err
			}
			if err := note(arg, strconv.Itoa(child.Pid)); err != nil {
				return err
			}
		case "exit":
			status, err := strconv.Atoi(arg)
			if err != nil {
				return err
			}
			os.Exit(status)
		case "stay":
			select {}
		default:
			return fmt.Errorf("cannot act %q", line)
		}
	}
	return nil
}

// say sends one notification as it is.
func say(text string) error {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.WriteString(conn, text)
	return err
}

func note(path, line string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, line)
	return err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// yard is a manager with a launcher of real processes.
type yard struct {
	*unit.Manager
	*bench
	t testing.TB
}

// newYard makes one of units; in the text DIR is a folder, and ACT a service that does what the
// arguments after it say.
func newYard(t testing.TB, cgroups, text string) *yard {
	b := newBench(t, cgroups)
	y := &yard{bench: b, t: t}
	var err error
	y.Manager, err = unit.New(unit.Config{
		Units: y.units(text), Launcher: b.launcher, Clock: unit.SystemClock{}, Jitter: func() float64 { return 0 },
		Changed: func(unit.Change) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { y.wait("all units stopped", y.StopAll()) })
	return y
}

func (y *yard) units(text string) []*hcl.Unit {
	y.t.Helper()
	self, err := os.Executable()
	if err != nil {
		y.t.Fatal(err)
	}
	text = strings.NewReplacer("DIR", y.dir, "ACT", strconv.Quote(self)+`, "act"`).Replace(text)
	units, err := hcl.ParseUnits([]byte(text), "test.hcl")
	if err != nil {
		y.t.Fatal(err)
	}
	return units
}

func (y *yard) path(name string) string { return filepath.Join(y.dir, name) }

func (y *yard) touch(name string) {
	y.t.Helper()
	if err := os.WriteFile(y.path(name), nil, 0o644); err != nil {
		y.t.Fatal(err)
	}
}

// lines returns what was noted in a file.
func (y *yard) lines(name string) []string {
	text, err := os.ReadFile(y.path(name))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text))
}

func (y *yard) wait(what string, done <-chan struct{}) {
	y.t.Helper()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		y.t.Fatalf("not so: %s\n%s\n%s", what, y.describe(), y.output())
	}
}

func (y *yard) describe() string {
	var text []string
	for _, s := range y.Snapshot() {
		text = append(text, fmt.Sprintf("%s is %s: %s", s.Name, s.State, s.Reason))
	}
	return strings.Join(text, "\n")
}

func (y *yard) get(name string) unit.Snapshot {
	y.t.Helper()
	all := y.Snapshot()
	i := slices.IndexFunc(all, func(s unit.Snapshot) bool { return s.Name == name })
	if i < 0 {
		y.t.Fatalf("no unit %s", name)
	}
	return all[i]
}

// await waits until a unit is in a state.
func (y *yard) await(name string, state unit.State) unit.Snapshot {
	y.t.Helper()
	return y.awaitThat(fmt.Sprintf("%s is %s", name, state), name, func(s unit.Snapshot) bool { return s.State == state })
}

func (y *yard) awaitThat(what, name string, that func(unit.Snapshot) bool) (found unit.Snapshot) {
	y.t.Helper()
	y.wait(what, y.When(func(all []unit.Snapshot) bool {
		return slices.ContainsFunc(all, func(s unit.Snapshot) bool {
			if s.Name == name && that(s) {
				found = s
				return true
			}
			return false
		})
	}))
	return found
}

// awaitLines waits until so many lines are noted in a file.
func (y *yard) awaitLines(name string, count int) []string {
	y.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if lines := y.lines(name); len(lines) >= count {
			return lines
		}
		if time.Now().After(end) {
			y.t.Fatalf("%s has not %d lines\n%s\n%s", name, count, y.describe(), y.output())
		}
	}
}

func (y *yard) must(err error) {
	y.t.Helper()
	if err != nil {
		y.t.Fatal(err)
	}
}

// TestReadinessOfEachKind: a unit is ready when what it waits for holds, and not before.
func TestReadinessOfEachKind(t *testing.T) {
	var healthy atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !healthy.Load() || r.URL.Path != "/health" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	y := newYard(t, "", fmt.Sprintf(`
unit "notify" {
  exec = [ACT, "until:DIR/go", "say:STATUS=soon;READY=1", "stay"]
  ready { notify = true }
}
unit "newline" {
  exec = [ACT, "until:DIR/go", "newline:7", "stay"]
  file_descriptors = 2
  socket "s" { listen = "unix:DIR/s" }
  ready { fd = 7 }
}
unit "http" {
  exec = ["/bin/sleep", "1000"]
  ready { http = "%s/health" }
}
unit "unix" {
  exec = ["/bin/sleep", "1000"]
  ready { unix = "DIR/door" }
}
unit "exec" {
  exec = ["/bin/sleep", "1000"]
  ready { exec = ["/bin/sh", "-c", "test -e DIR/go"] }
}
unit "mute" {
  exec = [ACT, "until:DIR/go", "say:READY=1", "stay"]
  ready {
    unix = "DIR/nobody"
    timeout = "1h"
  }
}`, server.URL))
	y.StartAll()
	kinds := []string{"notify", "newline", "http", "unix", "exec"}
	for _, name := range kinds {
		y.awaitThat(name+" has a process", name, func(s unit.Snapshot) bool { return s.PID != 0 })
		if s := y.get(name); s.State != unit.Starting {
			t.Errorf("%s is %s before its time", name, s.State)
		}
	}
	ln, err := net.Listen("unix", y.path("door"))
	y.must(err)
	defer ln.Close()
	healthy.Store(true)
	y.touch("go")
	for _, name := range kinds {
		y.await(name, unit.Running)
	}
	if s := y.get("mute"); s.State != unit.Starting {
		t.Error("a unit with another kind of readiness is ready by its own word")
	}
}

// TestProofOfLife: a service that does not answer any more is restarted, one that does is not.
func TestProofOfLife(t *testing.T) {
	var healthy atomic.Bool
	healthy.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !healthy.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer server.Close()
	y := newYard(t, "", fmt.Sprintf(`
unit "http" {
  exec = ["/bin/sleep", "1000"]
  alive {
    http = "%s/"
    period = "100ms"
    threshold = 2
  }
}
unit "exec" {
  exec = ["/bin/sleep", "1000"]
  alive {
    exec = ["/bin/sh", "-c", "test ! -e DIR/sick"]
    period = "100ms"
  }
}
unit "slow" {
  exec = ["/bin/sleep", "1000"]
  alive {
    exec = ["/bin/sh", "-c", "test ! -e DIR/sick || sleep 1000"]
    period = "300ms"
    timeout = "200ms"
    threshold = 1
  }
}
unit "dog" {
  exec = [ACT, "say:READY=1", "beat:DIR/sick", "stay"]
  ready { notify = true }
  alive {
    notify = true
    period = "3s"
    signal = "ABRT"
  }
}
unit "well" {
  exec = [ACT, "say:READY=1", "beat:DIR/never"]
  ready { notify = true }
  alive {
    notify = true
    period = "3s"
  }
}`, server.URL))
	y.StartAll()
	for _, name := range []string{"http", "exec", "slow", "dog", "well"} {
		y.await(name, unit.Running)
	}
	y.touch("sick")
	healthy.Store(false)
	for name, reason := range map[string]string{
		"http": "2 probes of life in a row failed: GET " + server.URL + "/: 500 Internal Server Error",
		"exec": "3 probes of life in a row failed: /bin/sh exited with status 1",
		"slow": "1 probes of life in a row failed: /bin/sh did not end within 200ms",
		"dog":  "no sign of life within 3s",
	} {
		y.awaitThat(name+" is restarted: "+reason, name, func(s unit.Snapshot) bool { return s.State == unit.Stopping && s.Reason == reason || s.Restarts > 0 })
	}
	y.must(os.Remove(y.path("sick")))
	healthy.Store(true)
	for _, name := range []string{"http", "exec", "slow", "dog", "well"} {
		y.await(name, unit.Running)
	}
	if n := y.get("well").Restarts; n != 0 {
		t.Errorf("the service that is well was restarted %d times", n)
	}
}

// TestReloadOfRealServices by signal, with the words of the service, and by command.
func TestReloadOfRealServices(t *testing.T) {
	y := newYard(t, "", `
unit "hup" {
  exec = [ACT, "hup:DIR/hups", "say:READY=1", "stay"]
  ready { notify = true }
  reload { signal = "HUP" }
}
unit "command" {
  exec = ["/bin/sleep", "1000"]
  reload { exec = ["/bin/sh", "-c", "echo reloaded >>DIR/commands; test ! -e DIR/fail"] }
}`)
	y.StartAll()
	pid := y.awaitThat("hup runs", "hup", func(s unit.Snapshot) bool { return s.State == unit.Running && s.PID != 0 }).PID
	y.await("command", unit.Running)
	for i := range 3 {
		y.must(y.Reload("hup"))
		y.awaitLines("hups", i+1)
		y.await("hup", unit.Running)
	}
	if got := y.get("hup").PID; got != pid {
		t.Errorf("process %d, was %d", got, pid)
	}
	y.must(y.Reload("command"))
	y.awaitLines("commands", 1)
	y.await("command", unit.Running)
	y.touch("fail")
	y.must(y.Reload("command"))
	y.awaitThat("the failure is told", "command", func(s unit.Snapshot) bool {
		return s.State == unit.Running && s.Reason == "the reload failed: /bin/sh exited with status 1"
	})
}

// TestMoreTimeOnRequest: a start that asks for more time has it; one that ends itself, and
// says so, is waited for.
func TestMoreTimeOnRequest(t *testing.T) {
	y := newYard(t, "", `
unit "late" {
  exec = [ACT, "say:EXTEND_TIMEOUT_USEC=60000000", "note:DIR/asked", "until:DIR/go", "say:READY=1", "stay"]
  ready {
    notify = true
    timeout = "3s"
  }
}
unit "never" {
  exec = [ACT, "until:DIR/never"]
  ready {
    notify = true
    timeout = "3s"
  }
  restart { policy = "never" }
}
unit "leaves" {
  exec = [ACT, "say:READY=1", "until:DIR/leave", "say:STOPPING=1", "until:DIR/go", "exit:0"]
  ready { notify = true }
  restart { policy = "on-failure" }
}`)
	y.StartAll()
	y.await("leaves", unit.Running)
	y.touch("leave")
	if s := y.await("leaves", unit.Stopping); s.Reason != "it is ending by itself" {
		t.Errorf("reason %q", s.Reason)
	}
	if s := y.await("never", unit.Failed); s.Reason != "not ready within 3s" {
		t.Errorf("reason %q", s.Reason)
	}
	y.awaitLines("asked", 1)
	if s := y.get("late"); s.State != unit.Starting {
		t.Errorf("late is %s", s.State) // it was started with the one that had the same time
	}
	y.touch("go")
	y.await("late", unit.Running)
	y.await("leaves", unit.Done)
}

// TestOnDemandWithRealPeers: nothing runs until a peer comes; each one is served, by a new
// process since this service ends after each.
func TestOnDemandWithRealPeers(t *testing.T) {
	y := newYard(t, "", `
unit "lazy" {
  exec = [ACT, "serve:door", "exit:0"]
  on_demand = true
  socket "door" { listen = "unix:DIR/door" }
  socket "other" { listen = "udp:127.0.0.1:0" }
  restart { delay = "1ms" }
}`)
	y.StartAll()
	seen := map[string]bool{}
	for range 3 {
		y.await("lazy", unit.Listening)
		conn, err := net.Dial("unix", y.path("door"))
		y.must(err)
		y.must(conn.SetDeadline(time.Now().Add(30 * time.Second)))
		answer, err := io.ReadAll(conn)
		y.must(err)
		seen[string(answer)] = true
		conn.Close()
	}
	if len(seen) != 3 {
		t.Errorf("answers %v", seen)
	}
	y.await("lazy", unit.Listening)
	y.must(y.Stop("lazy"))
	y.await("lazy", unit.Stopped)
	if _, err := net.Dial("unix", y.path("door")); err == nil {
		t.Error("a stopped unit on demand takes connections")
	}
}

func alive(pid string) bool {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(text), ") Z ")
}

// TestKillMain: what a unit of this manner has started outlives a crash and a restart of its
// main process, and not a stop.
func TestKillMain(t *testing.T) {
	y := newYard(t, cgroups(t), `
unit "holder" {
  exec = [ACT, "child:DIR/children", "say:READY=1", "stay"]
  stop = [ACT, "note:DIR/undone"]
  ready { notify = true }
  shutdown { kill = "main" }
}
unit "usual" {
  exec = [ACT, "child:DIR/others", "say:READY=1", "stay"]
  ready { notify = true }
}`)
	y.StartAll()
	for _, name := range []string{"holder", "usual"} {
		pid := y.awaitThat(name+" runs", name, func(s unit.Snapshot) bool { return s.State == unit.Running && s.PID != 0 }).PID
		y.must(syscall.Kill(pid, syscall.SIGKILL))
		again := y.awaitThat(name+" runs again", name, func(s unit.Snapshot) bool { return s.State == unit.Running && s.PID != pid && s.PID != 0 }).PID
		y.must(y.Restart(name))
		y.awaitThat(name+" runs once more", name, func(s unit.Snapshot) bool { return s.State == unit.Running && s.PID != again && s.PID != pid })
	}
	children, others := y.lines("children"), y.lines("others")
	if len(children) != 3 || len(others) != 3 {
		t.Fatalf("children %v, others %v", children, others)
	}
	for i, pid := range children {
		if !alive(pid) {
			t.Errorf("child %d of the holder is dead", i)
		}
	}
	for i, pid := range others[:2] {
		if alive(pid) {
			t.Errorf("child %d of an ordinary unit is alive", i)
		}
	}
	if exists(y.path("undone")) {
		t.Error("the stop command was run without a stop")
	}
	y.must(y.Stop("holder"))
	y.await("holder", unit.Stopped)
	if undone := y.lines("undone"); len(undone) != 1 {
		t.Errorf("the stop command was run by %v", undone)
	}
	for _, pid := range children {
		for end := time.Now().Add(30 * time.Second); alive(pid); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("process %s outlives the stop", pid)
			}
		}
	}
}

// TestJobsAndConditions: a job runs at its time, notes when, and is skipped where its
// condition does not hold.
func TestJobsAndConditions(t *testing.T) {
	y := newYard(t, "", `
unit "job" {
  type = "oneshot"
  exec = [ACT, "note:DIR/runs"]
  timer {
    every      = "1h"
    after_boot = "10ms"
    persistent = true
  }
}
unit "skipped" {
  exec = ["/bin/sleep", "1000"]
  condition { exists = ["DIR", "DIR/nothing"] }
}
unit "present" {
  exec = ["/bin/sleep", "1000"]
  condition { missing = ["DIR"] }
}
unit "met" {
  exec = ["/bin/sleep", "1000"]
  needs = ["skipped"]
  condition {
    exists  = ["DIR"]
    missing = ["DIR/nothing"]
  }
}`)
	began := time.Now()
	y.StartAll()
	y.awaitLines("runs", 1)
	next := y.awaitThat("the job waits", "job", func(s unit.Snapshot) bool { return s.State == unit.Scheduled && s.Next.After(began.Add(time.Minute)) }).Next
	if d := next.Sub(began); d < 59*time.Minute || d > 61*time.Minute {
		t.Errorf("the next run is in %v", d)
	}
	y.must(y.Start("job"))
	y.awaitLines("runs", 2)
	if last := y.launcher.LastRun(y.units(`unit "job" { exec = ["/x"] }`)[0]); last.Before(began.Add(-time.Second)) {
		t.Errorf("the last run was noted as %v", last)
	}
	if s := y.await("skipped", unit.Done); s.Reason != "skipped: "+y.path("nothing")+" does not exist" {
		t.Errorf("reason %q", s.Reason)
	}
	if s := y.await("present", unit.Done); s.Reason != "skipped: "+y.dir+" exists" {
		t.Errorf("reason %q", s.Reason)
	}
	y.await("met", unit.Running)
}

// TestPlanOfRealUnits: a changed unit is restarted with its new socket, and its old one is
// closed; the others are the same processes, those bound to it are not.
func TestPlanOfRealUnits(t *testing.T) {
	const text = `
unit "a" {
  exec = [ACT, "say:READY=1", "serve:s", "stay"]
  socket "s" { listen = "unix:DIR/SOCKET" }
  socket "kept" { listen = "unix:DIR/kept" }
  ready { notify = true }
}
unit "bound" {
  exec = ["/bin/sleep", "1000"]
  binds = ["a"]
}
unit "needy" {
  exec = ["/bin/sleep", "1000"]
  needs = ["a"]
}
unit "limited" {
  exec = ["/bin/sleep", "1000"]
  limits { tasks = TASKS }
}`
	version := func(socket, tasks string) string {
		return strings.NewReplacer("SOCKET", socket, "TASKS", tasks).Replace(text)
	}
	root := cgroups(t)
	y := newYard(t, root, version("old", "100"))
	y.StartAll()
	pids := map[string]int{}
	for _, name := range []string{"a", "bound", "needy", "limited"} {
		pids[name] = y.awaitThat(name+" runs", name, func(s unit.Snapshot) bool { return s.State == unit.Running && s.PID != 0 }).PID
	}
	kept, err := os.Stat(y.path("kept"))
	y.must(err)
	p, err := y.Plan(y.units(version("new", "50")))
	y.must(err)
	y.must(y.Apply(p))
	for _, name := range []string{"a", "bound"} {
		y.awaitThat(name+" is another process", name, func(s unit.Snapshot) bool { return s.State == unit.Running && s.PID != pids[name] && s.PID != 0 })
	}
	for _, name := range []string{"needy", "limited"} {
		if got := y.get(name); got.PID != pids[name] || got.State != unit.Running {
			t.Errorf("%s was touched", name)
		}
	}
	if _, err := net.Dial("unix", y.path("old")); err == nil {
		t.Error("the old socket takes connections")
	}
	conn, err := net.Dial("unix", y.path("new"))
	y.must(err)
	defer conn.Close()
	if again, err := os.Stat(y.path("kept")); err != nil || !os.SameFile(kept, again) {
		t.Errorf("the socket that has not changed was opened anew: %v", err)
	}
	if limit := filepath.Join(root, "limited", "pids.max"); exists(limit) {
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			if now, err := os.ReadFile(limit); err == nil && strings.TrimSpace(string(now)) == "50" {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the limit was not changed")
			}
		}
	}
	gone, err := y.Plan(y.units(`unit "needy" { exec = ["/bin/sleep", "1000"] }`))
	y.must(err)
	y.must(y.Apply(gone))
	y.wait("only one unit is left", y.When(func(all []unit.Snapshot) bool { return len(all) == 1 }))
	if exists(filepath.Join(root, "limited")) {
		t.Error("the control group of a removed unit is left")
	}
}

// BenchmarkRestart measures from the order to the readiness of the new process: of a program
// that needs nothing, and of one in Go that says so itself and has a socket.
func BenchmarkRestart(b *testing.B) {
	for _, c := range []struct{ name, text string }{
		{"executed", `unit "u" { exec = ["/bin/sleep", "1000"] }`},
		{"notify", `unit "u" {
			exec = [ACT, "say:READY=1", "stay"]
			socket "s" { listen = "unix:DIR/s" }
			ready { notify = true }
		}`},
	} {
		b.Run(c.name, func(b *testing.B) {
			y := newYard(b, "", c.text)
			y.StartAll()
			pid := 0
			y.await("u", unit.Running)
			for b.Loop() {
				y.must(y.Restart("u"))
				pid = y.awaitThat("it runs again", "u", func(s unit.Snapshot) bool { return s.State == unit.Running && s.PID != pid && s.PID != 0 }).PID
			}
		})
	}
}
