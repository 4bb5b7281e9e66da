package vnodes

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// enough is what is kept of a console, in bytes.
const enough = 64 << 10

// lives are those of a service, which is a process of its own and may be killed.
type lives struct {
	bench
	folder  string
	cmd     *exec.Cmd
	printed bytes.Buffer
}

func begin(t *testing.T) *lives {
	// Not in t.TempDir, whose path may be longer than a socket's name can be.
	folder, err := os.MkdirTemp("", "walt-vnodes")
	if err != nil {
		t.Fatal(err)
	}
	l := &lives{bench: bench{t: t, printed: map[string]string{}}, folder: folder}
	l.client = Dial(filepath.Join(folder, "vnodes.sock"))
	t.Cleanup(func() {
		l.client.Close()
		l.kill(syscall.SIGKILL)
		l.run("-end")
		os.RemoveAll(folder)
	})
	l.start()
	return l
}

func (l *lives) command(more ...string) *exec.Cmd {
	program, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	args := []string{serve, "-socket-dir", l.folder, "-runtime-dir", l.runtime(), "-program", program + " " + standIn}
	return exec.Command(program, append(args, more...)...)
}

func (l *lives) runtime() string { return filepath.Join(l.folder, "run") }

// place is that of a node.
func (l *lives) place(n Node) place { return place(filepath.Join(l.runtime(), n.MAC)) }

// run runs the service to its end.
func (l *lives) run(more ...string) {
	l.t.Helper()
	if out, err := l.command(more...).CombinedOutput(); err != nil {
		l.t.Errorf("the service with %v: %v\n%s", more, err, out)
	}
}

func (l *lives) start() {
	l.t.Helper()
	l.cmd = l.command()
	l.cmd.Stderr = &l.printed
	if err := l.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.taken = 0
}

// kill ends the service, not its nodes.
func (l *lives) kill(s syscall.Signal) {
	l.t.Helper()
	if l.cmd == nil {
		return
	}
	l.cmd.Process.Signal(s)
	if err := l.cmd.Wait(); err != nil && s != syscall.SIGKILL {
		l.t.Errorf("the service has ended: %v\n%s", err, l.printed.String())
	}
	l.cmd = nil
}

// do makes a call, again while the service is about to start.
func (l *lives) do(call func(context.Context) error) {
	l.t.Helper()
	var err error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if err = call(l.t.Context()); err == nil {
			return
		}
	}
	l.t.Fatal(err)
}

func (l *lives) reconcile(nodes ...Node) {
	l.t.Helper()
	l.do(func(ctx context.Context) error { return l.client.Reconcile(ctx, nodes) })
}

func (l *lives) input(n Node, text string) {
	l.t.Helper()
	l.do(func(ctx context.Context) error { return l.client.Input(ctx, n.MAC, []byte(text)) })
}

// see is that of bench, over the lives of the service.
func (l *lives) see(n Node, want string) string {
	l.t.Helper()
	l.do(func(ctx context.Context) error {
		for !strings.Contains(l.bench.printed[n.MAC], want) {
			ctx, cancel := context.WithTimeout(ctx, limit)
			batch, err := l.client.Console(ctx, l.taken)
			cancel()
			if err != nil {
				return fmt.Errorf("the console of %s shows %q, not %q: %w", n.MAC, l.bench.printed[n.MAC], want, err)
			}
			l.taken = batch.Number
			for _, c := range batch.Chunks {
				if all := l.bench.printed[c.MAC] + string(c.Data); len(all) < enough {
					l.bench.printed[c.MAC] = all
				}
			}
		}
		return nil
	})
	return l.bench.printed[n.MAC]
}

func (l *lives) mustBeEmpty() {
	l.t.Helper()
	if left, err := os.ReadDir(l.runtime()); len(left) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.t.Errorf("left are %v, %v", left, err)
	}
}

// TestLives: the processes of nodes, and their consoles, outlive the service, which finds
// them again, whatever has become of them meanwhile.
func TestLives(t *testing.T) {
	l := begin(t)
	one, two := node(1, "one"), node(2, "two")
	l.reconcile(one, two)
	first, second := pid(t, l.see(one, "\r\n")), pid(t, l.see(two, "\r\n"))

	// One goes on, though half a command was written; two dies and starts again. Nobody has
	// to ask.
	l.kill(syscall.SIGKILL)
	if commands, console, err := l.place(one).open(); err != nil {
		t.Error(err)
	} else {
		fmt.Fprint(commands, "INPUT YW55Ym9keQ==\nCONF networks walt-n")
		commands.Close()
		console.Close()
	}
	syscall.Kill(second, syscall.SIGKILL)
	until(t, func() bool { return gone(second) || zombie(second) })
	l.bench.printed[two.MAC] = ""
	l.start()
	l.see(one, "typed \"anybody\" <nil>\r\nCONF networks walt-n\r\n")
	l.see(one, "CONF networks walt-net\r\n") // right after
	next := pid(t, l.see(two, "\r\n"))
	if next == second {
		t.Error("the node that has ended does not run again")
	}
	l.input(one, "hello")
	l.see(one, `typed "hello"`)
	if strings.Count(l.see(one, ""), " runs ") != 1 || gone(first) {
		t.Errorf("another process runs: %q", l.see(one, ""))
	}

	// The next life knows what has changed, and what is not wanted any more.
	one.Settings.RAM = "3G"
	l.reconcile(one, two)
	l.see(one, "CONF ram 3G\r\n")
	l.kill(syscall.SIGTERM)
	if gone(first) || gone(next) {
		t.Error("the nodes end with the service")
	}
	l.bench.printed[one.MAC] = ""
	l.start()
	l.see(one, "CONF ram 3G\r\n")
	l.reconcile(two)
	until(t, func() bool { return gone(first) || zombie(first) })
	if _, err := os.Stat(string(l.place(one))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the place of a node that is gone: %v", err)
	}

	// One that dies later, of no child, is noticed.
	l.bench.printed[two.MAC] = ""
	syscall.Kill(next, syscall.SIGKILL)
	if again := pid(t, l.see(two, "\r\n")); again == next {
		t.Error("a process that was taken over has no successor")
	}

	// Another address is another process.
	l.kill(syscall.SIGKILL)
	l.bench.printed[two.MAC] = ""
	two.IP = "192.168.152.9"
	l.start()
	l.reconcile(two)
	l.see(two, "exits")
	last := pid(t, regexp.MustCompile(`\d+ runs .*152\.9`).FindString(l.see(two, "--ip 192.168.152.9")))

	// An end of all.
	l.kill(syscall.SIGTERM)
	l.run("-end")
	until(t, func() bool { return gone(last) || zombie(last) })
	l.mustBeEmpty()
}

// TestStale: what is left of processes that are gone, as before the machine was rebooted,
// is taken for none of those that run now.
func TestStale(t *testing.T) {
	l := begin(t)
	n := node(1, "one")
	l.reconcile(n)
	old := pid(t, l.see(n, "\r\n"))
	l.kill(syscall.SIGKILL)
	syscall.Kill(old, syscall.SIGKILL)
	until(t, func() bool { return gone(old) || zombie(old) })
	bystander := exec.Command("sleep", "1000")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bystander.Process.Kill(); bystander.Wait() })
	if err := os.WriteFile(l.place(n).pidFile(), fmt.Appendln(nil, bystander.Process.Pid), 0o644); err != nil {
		t.Fatal(err)
	}
	l.bench.printed[n.MAC] = ""
	l.start()
	fresh := pid(t, l.see(n, "\r\n"))
	l.reconcile()
	until(t, func() bool { return gone(fresh) || zombie(fresh) })
	if gone(bystander.Process.Pid) || zombie(bystander.Process.Pid) {
		t.Error("a process that has the number of one that is gone was ended")
	}
}

// TestGarbage: what cannot be understood is ended and forgotten; the rest goes on.
func TestGarbage(t *testing.T) {
	l := begin(t)
	good, bad, moved, deaf := node(1, "good"), node(2, "bad"), node(3, "moved"), node(4, "fifoless")
	l.reconcile(good, bad, moved, deaf)
	var pids []int
	for _, n := range []Node{good, bad, moved, deaf} {
		pids = append(pids, pid(t, l.see(n, "\r\n")))
	}
	l.kill(syscall.SIGKILL)
	for _, step := range []error{
		os.WriteFile(l.place(bad).record(), []byte(`{"MAC": 12`), 0o600),
		os.WriteFile(l.place(moved).record(), []byte(`{"MAC": "52:54:00:00:00:01"}`), 0o600),
		os.Remove(l.place(deaf).commands()),
		os.WriteFile(filepath.Join(l.runtime(), "a file"), nil, 0o600),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	l.start()
	l.input(good, "hello")
	l.see(good, `typed "hello"`)
	for _, p := range pids[1:] {
		until(t, func() bool { return gone(p) || zombie(p) })
	}
	l.bench.printed[bad.MAC], l.bench.printed[deaf.MAC] = "", ""
	l.reconcile(good, bad, moved, deaf)
	if next := pid(t, l.see(bad, "\r\n")); slices.Contains(pids, next) {
		t.Errorf("process %d runs still", next)
	}
	if p := pid(t, l.see(good, "")); p != pids[0] || gone(p) {
		t.Error("the good one was touched")
	}
}

// TestNeverTwice: a process that was started by a service that was killed before anybody
// could know of it goes on, and is the only one.
func TestNeverTwice(t *testing.T) {
	l := begin(t)
	n := node(1, "late")
	l.reconcile(n)
	l.see(n, "\r\n")
	l.kill(syscall.SIGKILL)
	l.start()
	started := regexp.MustCompile(`(?m)^(\d+) runs`)
	var pids []int
	l.do(func(context.Context) error {
		pids = nil
		for _, found := range started.FindAllStringSubmatch(l.see(n, "\r\n"), -1) {
			p, err := strconv.Atoi(found[1])
			if err != nil {
				return err
			}
			pids = append(pids, p)
		}
		if len(pids) < 2 {
			text, err := l.more(n)
			l.bench.printed[n.MAC] += text
			return cmp.Or(err, errors.New("there is no second process"))
		}
		return nil
	})
	if err := os.WriteFile(filepath.Join(string(l.place(n)), "now"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dead := func() (count int) {
		for _, p := range pids {
			if gone(p) || zombie(p) {
				count++
			}
		}
		return count
	}
	until(t, func() bool { return dead() == 1 })
	// The one that has lost says so; the other is the service's again.
	l.see(n, "another process that runs has left it")
	l.input(n, "hello")
	l.see(n, `typed "hello"`)
	if dead() != 1 || len(started.FindAllString(l.see(n, ""), -1)) != 2 {
		t.Errorf("%d of %v have ended; the console shows %q", dead(), pids, l.see(n, ""))
	}
}

// TestMany: a hundred nodes are taken over as one is, and a console that nobody can follow
// keeps none of the others waiting.
func TestMany(t *testing.T) {
	const count = 100
	l := begin(t)
	var nodes []Node
	for i := range count {
		nodes = append(nodes, node(i+1, "quiet"))
	}
	nodes[0].Settings.Name = "loud"
	l.reconcile(nodes...)
	var pids []int
	for _, n := range nodes[1:] {
		pids = append(pids, pid(t, l.see(n, "\r\n")))
	}
	l.kill(syscall.SIGKILL)
	l.start()
	for i, n := range nodes[1:] {
		l.input(n, "hello")
		if text := l.see(n, `typed "hello"`); strings.Count(text, " runs ") != 1 || gone(pids[i]) {
			t.Errorf("%s is not the process that it was", n.MAC)
		}
	}
	l.kill(syscall.SIGTERM)
	l.run("-end")
	for _, p := range pids {
		until(t, func() bool { return gone(p) || zombie(p) })
	}
	l.mustBeEmpty()
}

// more waits for what a console prints next.
func (l *lives) more(n Node) (text string, err error) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), limit)
	defer cancel()
	batch, err := l.client.Console(ctx, l.taken)
	if err != nil {
		return "", err
	}
	l.taken = batch.Number
	for _, c := range batch.Chunks {
		if c.MAC == n.MAC {
			text += string(c.Data)
		}
	}
	return text, nil
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"MAC":"52:54:00:00:00:01","IP":"192.168.152.2","Model":"pc-x86-64","ServerIP":"192.168.152.1","Netmask":"255.255.255.0",` +
		`"Acceleration":"tcg","Settings":{"Name":"one","Gateway":"","CPUCores":"4","RAM":"512M","Disks":"none","Networks":"walt-net","BootDelay":"random"}}`))
	f.Add([]byte(`{"MAC":"../../etc"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := readRecord(text)
		if err == nil && (n.check() != nil || strings.ContainsAny(n.MAC, "/")) {
			t.Errorf("%q is taken", text)
		}
	})
}
