package process

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/notify"
	"github.com/waltos/waltos/supervisor/cgroup"
	"github.com/waltos/waltos/supervisor/reap"
	"github.com/waltos/waltos/supervisor/unit"
	"golang.org/x/sys/unix"
)

// TestMain lets this program be the shim, and a service that speaks with its
// supervisor.
func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == ShimName:
		os.Exit(Shim(os.Args))
	case len(os.Args) > 1 && os.Args[1] == "act":
		if err := act(os.Args[2:]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	case len(os.Args) > 1 && os.Args[1] == "service":
		if err := service(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	case len(os.Args) > 1 && os.Args[1] == "probe":
		for _, what := range os.Args[2:] {
			fmt.Println(probeKernel(what))
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// service answers each connection to its socket with what it has got, and stores one
// end of a pipe under the name that it reads.
func service() error {
	ln, err := notify.Listener("door")
	if err != nil {
		return err
	}
	if err := notify.Ready(); err != nil {
		return err
	}
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		var line string
		if _, err := fmt.Fscanln(conn, &line); err != nil {
			return err
		}
		switch {
		case strings.HasPrefix(line, "store:"):
			raw, err := conn.(*net.UnixConn).File()
			if err != nil {
				return err
			}
			if err := notify.StoreFD(line[len("store:"):], raw); err != nil {
				return err
			}
			raw.Close()
			fmt.Fprintln(conn, "stored")
		case strings.HasPrefix(line, "answer:"):
			for _, f := range notify.Files()[line[len("answer:"):]] {
				fmt.Fprintln(f, "still here")
			}
		case strings.HasPrefix(line, "remove:"):
			if err := notify.RemoveFD(line[len("remove:"):]); err != nil {
				return err
			}
		default:
			fmt.Fprintln(conn, "pid", os.Getpid())
		}
		conn.Close()
	}
}

// bench is a launcher with what it reports.
type bench struct {
	t        testing.TB
	launcher *Launcher
	dir      string
	reaper   *reap.Reaper

	mu    sync.Mutex
	lines []string
}

func newBench(t testing.TB, cgroups string) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a unit is given its own files, which takes root")
	}
	b := &bench{t: t, dir: t.TempDir(), reaper: reap.New()}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-children:
				b.reaper.Reap()
			case <-done:
				return
			}
		}
	}()
	t.Cleanup(func() { signal.Stop(children); close(done) })
	b.launcher = New(Config{
		Reaper: b.reaper, CgroupRoot: cgroups, RunDir: filepath.Join(b.dir, "run"), StateDir: filepath.Join(b.dir, "lib"),
		Shim: "/proc/self/exe",
		Log: func(_, line string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.lines = append(b.lines, line)
		},
	})
	return b
}

func (b *bench) output() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.lines, "\n")
}

func (b *bench) parse(text string) *hcl.Unit {
	b.t.Helper()
	units, err := hcl.ParseUnits([]byte(strings.ReplaceAll(text, "DIR", b.dir)), "test.hcl")
	if err != nil {
		b.t.Fatal(err)
	}
	return units[0]
}

// life is a run and its events.
type life struct {
	b      *bench
	run    unit.Run
	events chan unit.Event
}

func (b *bench) launch(u *hcl.Unit, task unit.Task) *life {
	l := &life{b: b, events: make(chan unit.Event, 100)}
	l.run = b.launcher.Launch(u, task, func(e unit.Event) { l.events <- e })
	return l
}

// await returns the next event of a kind.
func (l *life) await(kind unit.EventKind) unit.Event {
	l.b.t.Helper()
	limit := time.After(30 * time.Second)
	for {
		select {
		case e := <-l.events:
			if e.Kind == kind {
				return e
			}
			if e.Kind == unit.Exited {
				l.b.t.Fatalf("it ended: %s\n%s", e.Text, l.b.output())
			}
		case <-limit:
			l.b.t.Fatalf("no event %d\n%s", kind, l.b.output())
		}
	}
}

func (l *life) end(how string) {
	l.b.t.Helper()
	if e := l.await(unit.Exited); e.Text != how {
		l.b.t.Fatalf("it %s, want %s\n%s", e.Text, how, l.b.output())
	}
}

func TestCommandsAndEnds(t *testing.T) {
	b := newBench(t, "")
	for _, c := range []struct{ unit, how, output string }{
		{`exec = ["/bin/sh", "-c", "echo out; echo err >&2; printf last"]`, "exited with status 0", "out\nerr\nlast"},
		{`exec = ["/bin/sh", "-c", "exit 3"]`, "exited with status 3", ""},
		{`exec = ["/bin/sh", "-c", "kill -SEGV $$"]`, "killed by signal SIGSEGV", ""},
		{`exec = ["/nonexistent/program"]`, "cannot execute /nonexistent/program: no such file or directory", ""},
		{`exec = ["/bin/true"]
		  directory = "/nonexistent"`, "cannot enter folder /nonexistent: no such file or directory", ""},
		{`pre = [["/bin/echo", "one"], ["/bin/echo", "two"]]
		  exec = ["/bin/echo", "three"]`, "exited with status 0", "one\ntwo\nthree"},
		{`pre = [["/bin/false"]]
		  exec = ["/bin/echo", "no"]`, "pre command /bin/false exited with status 1", ""},
		{`exec = ["/bin/sh", "-c", "echo $A; pwd; ulimit -n"]
		  environment = { A = "b c" }
		  directory = "/usr"
		  limits { files = 77 }`, "exited with status 0", "b c\n/usr\n77"},
		{`exec = ["/bin/true"]
		  user = "no-such-user"`, "cannot run as user no-such-user: user: unknown user no-such-user", ""},
		{`exec = ["/bin/true"]
		  capabilities = ["CAP_NONSENSE"]`, `cannot give capability "CAP_NONSENSE": no such capability`, ""},
	} {
		b.lines = nil
		b.launch(b.parse(fmt.Sprintf("unit \"u\" {\n type = \"oneshot\"\n%s\n}", c.unit)), unit.Main).end(c.how)
		if got := b.output(); got != c.output {
			t.Errorf("%s: output %q, want %q", c.unit, got, c.output)
		}
	}
}

func TestFolders(t *testing.T) {
	b := newBench(t, "")
	b.launch(b.parse(`unit "u" {
		exec = ["/bin/true"]
		runtime_directories = ["a/b"]
		state_directories = ["c"]
	}`), unit.Main).end("exited with status 0")
	for _, path := range []string{"run/a/b", "lib/c"} {
		if info, err := os.Stat(filepath.Join(b.dir, path)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
}

func TestStopAndKill(t *testing.T) {
	b := newBench(t, "")
	l := b.launch(b.parse(`unit "u" { exec = ["/bin/sleep", "1000"] }`), unit.Main)
	l.await(unit.Ready)
	l.run.Signal(syscall.SIGTERM)
	l.end("killed by signal SIGTERM")

	l = b.launch(b.parse(`unit "u" {
		exec = ["/bin/sh", "-c", "trap '' TERM; echo deaf; while true; do sleep 1000; done"]
		ready { exec = ["/bin/sh", "-c", "true"] }
	}`), unit.Main)
	l.await(unit.Ready)
	for !strings.Contains(b.output(), "deaf") {
		time.Sleep(time.Millisecond)
	}
	l.run.Signal(syscall.SIGTERM)
	l.run.Kill()
	l.end("killed by signal SIGKILL")

	// A stop that comes before the main process does.
	l = b.launch(b.parse(`unit "u" {
		pre = [["/bin/sleep", "1000"]]
		exec = ["/bin/echo", "never"]
	}`), unit.Main)
	for running := false; !running; time.Sleep(time.Millisecond) {
		r := l.run.(*run)
		r.mu.Lock()
		running = r.child != nil
		r.mu.Unlock()
	}
	l.run.Signal(syscall.SIGTERM)
	l.end("pre command /bin/sleep killed by signal SIGTERM")
	if strings.Contains(b.output(), "never") {
		t.Error("the main command was run")
	}
}

func TestReadinessByNetwork(t *testing.T) {
	b := newBench(t, "")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	l := b.launch(b.parse(fmt.Sprintf(`unit "u" {
		exec = ["/bin/sleep", "1000"]
		ready { tcp = %q }
	}`, ln.Addr())), unit.Main)
	l.await(unit.Ready)
	l.run.Kill()
	l.end("killed by signal SIGKILL")
}

// talk sends a line to the service and returns its answer and the connection.
func talk(t *testing.T, path, line string) (string, net.Conn) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintln(conn, line)
	var answer string
	if !strings.HasPrefix(line, "answer:") && !strings.HasPrefix(line, "remove:") {
		buffer := make([]byte, 100)
		n, err := conn.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		answer = strings.TrimSpace(string(buffer[:n]))
	}
	return answer, conn
}

// TestSocketsAndDescriptorsOutliveTheProcess: a client that connects while the service
// is dead is served by the next one, and a stored connection is not cut by kill -9.
func TestSocketsAndDescriptorsOutliveTheProcess(t *testing.T) {
	b := newBench(t, "")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	u := b.parse(fmt.Sprintf(`unit "u" {
		exec = [%q, "service"]
		file_descriptors = 1
		socket "door" { listen = "unix:DIR/door" }
		ready { notify = true }
	}`, self))
	door := filepath.Join(b.dir, "door")
	l := b.launch(u, unit.Main)
	pid := l.await(unit.Started).PID
	l.await(unit.Ready)
	if answer, _ := talk(t, door, "hello"); answer != "pid "+strconv.Itoa(pid) {
		t.Errorf("answer %q of process %d", answer, pid)
	}
	answer, kept := talk(t, door, "store:node:10.0.0.7")
	if answer != "stored" {
		t.Fatalf("answer %q", answer)
	}
	refusedAnswer, refused := talk(t, door, "store:second")
	if refusedAnswer != "stored" {
		t.Fatalf("answer %q", refusedAnswer)
	}
	l.run.Kill()
	l.end("killed by signal SIGKILL")
	if n := b.launcher.Stored("u"); n != 1 {
		t.Fatalf("%d descriptors stored", n)
	}
	if !strings.Contains(b.output(), `descriptor "second" was refused: the unit may store 1`) {
		t.Errorf("output %s", b.output())
	}
	if _, err := refused.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the refused descriptor is still open: %v", err)
	}

	// Nobody serves the socket now, yet it takes connections.
	waiting, err := net.Dial("unix", door)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(waiting, "hello")
	l = b.launch(u, unit.Main)
	pid = l.await(unit.Started).PID
	l.await(unit.Ready)
	waiting.SetDeadline(time.Now().Add(30 * time.Second))
	if got, err := io.ReadAll(waiting); err != nil || strings.TrimSpace(string(got)) != "pid "+strconv.Itoa(pid) {
		t.Errorf("answer %q, %v", got, err)
	}
	talk(t, door, "answer:node:10.0.0.7")
	buffer := make([]byte, 100)
	if n, err := kept.Read(buffer); err != nil || string(buffer[:n]) != "still here\n" {
		t.Errorf("read %q, %v", buffer[:n], err)
	}
	talk(t, door, "remove:node:10.0.0.7")
	for b.launcher.Stored("u") != 0 {
		time.Sleep(time.Millisecond)
	}
	l.run.Kill()
	l.end("killed by signal SIGKILL")
	b.launcher.Release(u)
	if conn, err := net.Dial("unix", door); err == nil {
		conn.Close()
		t.Error("a stopped unit still takes connections")
	}
}

// TestOrphans: thousands of children that leave orphans; every exit status arrives, and
// no zombie is left. It needs this process to adopt, as PID 1 does.
func TestOrphans(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Skipf("cannot adopt orphans: %v", err)
	}
	b := newBench(t, "")
	const rounds, parallel = 40, 10
	var group sync.WaitGroup
	for worker := range parallel {
		group.Go(func() {
			for i := range rounds {
				status := (worker + i) % 50
				script := fmt.Sprintf("(sh -c 'exit 9' &) & (exit 8) & exit %d", status)
				child, err := b.reaper.Start("/bin/sh", []string{"sh", "-c", script}, &os.ProcAttr{})
				if err != nil {
					t.Error(err)
					return
				}
				if got := child.Wait().ExitStatus(); got != status {
					t.Errorf("status %d, want %d", got, status)
				}
			}
		})
	}
	group.Wait()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		b.reaper.Reap()
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
		if err != nil {
			t.Skipf("cannot list children: %v", err)
		}
		if len(strings.Fields(string(text))) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("children are left: %s", text)
		}
	}
}

// cgroups makes a control group for units, or skips.
func cgroups(t *testing.T) (root string) {
	t.Helper()
	mount := ""
	for _, path := range []string{cgroup.Mount, "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(path, "cgroup.controllers")); err == nil {
			mount = path
		}
	}
	if mount == "" {
		t.Skip("no control groups of version 2 here")
	}
	root = filepath.Join(mount, fmt.Sprintf("walt-test-%d", os.Getpid()))
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Skipf("control groups cannot be made here: %v", err)
	}
	t.Cleanup(func() {
		os.Remove(filepath.Join(root, "u"))
		os.Remove(root)
	})
	for _, controller := range []string{"memory", "pids"} { // as far as they are there
		_ = os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+controller), 0)
	}
	return root
}

// TestControlGroup kills what has left the session of the unit, and sets limits.
func TestControlGroup(t *testing.T) {
	root := cgroups(t)
	b := newBench(t, root)
	u := b.parse(`unit "u" {
		exec = ["/bin/sh", "-c", "setsid sleep 1000 & echo started; wait"]
		limits { tasks = 100 }
	}`)
	l := b.launch(u, unit.Main)
	l.await(unit.Ready)
	for !strings.Contains(b.output(), "started") {
		time.Sleep(time.Millisecond)
	}
	l.run.Signal(syscall.SIGTERM)
	l.end("killed by signal SIGTERM")
	// The group was killed; what is started next is not.
	again := b.launch(u, unit.Main)
	again.await(unit.Ready)
	again.run.Signal(syscall.SIGTERM)
	again.end("killed by signal SIGTERM")
	text, err := os.ReadFile(filepath.Join(root, "u", "cgroup.procs"))
	if err != nil || len(text) != 0 {
		t.Errorf("processes left: %q, %v", text, err)
	}
}

func FuzzNotification(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=x\ty\nFDSTORE=1\nFDNAME=a%3Ab"))
	f.Add([]byte("FDNAME=\nSTATUS"))
	f.Fuzz(func(t *testing.T, text []byte) {
		n := parseNotification(text)
		if n.name == "" || len(n.name) > maxFDName || strings.ContainsAny(n.status, "\n\x1b") {
			t.Fatalf("%+v", n)
		}
	})
}

func TestReadLines(t *testing.T) {
	var got []string
	readLines(strings.NewReader("a\r\n\nb"+strings.Repeat("x", 2*lineLimit)+"\nend"), func(line string) { got = append(got, line) })
	if len(got) != 6 || got[0] != "a" || got[1] != "" || got[5] != "end" {
		t.Errorf("%d lines", len(got))
	}
	for _, line := range got {
		if len(line) > lineLimit {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}
