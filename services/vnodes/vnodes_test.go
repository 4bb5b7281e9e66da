package vnodes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/internal/pidfile"
)

// standIn makes this program speak the protocol of walt-virtual-node, without a machine.
const standIn = "stand-in"

// serve makes this program the service.
const serve = "serve"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case standIn:
			playNode()
			return
		case serve:
			ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
			defer cancel()
			if err := Main(ctx, os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	os.Exit(m.Run())
}

// playNode is a walt-virtual-node that prints what it is asked. Its name says what is wrong
// with it.
func playNode() {
	name := os.Args[slices.Index(os.Args, "--hostname")+1]
	fmt.Printf("%d runs %s\r\n", os.Getpid(), strings.Join(os.Args[2:], " "))
	pidFile := os.Args[slices.Index(os.Args, "--pid-path")+1]
	if name == "late" { // to say who runs
		for {
			if _, err := os.Stat(filepath.Join(filepath.Dir(pidFile), "now")); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	pid, err := pidfile.Hold(pidFile)
	if err != nil {
		fmt.Printf("%v\r\n", err)
		os.Exit(1)
	}
	defer pid.Close()
	switch name {
	case "dies":
		os.Exit(3)
	case "loud":
		go func() {
			for line := bytes.Repeat([]byte("loud "), 800); ; {
				os.Stdout.Write(line)
			}
		}()
	case "deaf":
		select {}
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Print("stays\r\n")
		select {}
	case "leaves-machine": // behind
		machine := exec.Command("sleep", "1000")
		machine.Stdout = os.Stdout
		if err := machine.Start(); err != nil {
			panic(err)
		}
		fmt.Printf("child %d left\r\n", machine.Process.Pid)
		os.Exit(0)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		command, argument, _ := strings.Cut(lines.Text(), " ")
		switch command {
		case "INPUT":
			data, err := base64.StdEncoding.DecodeString(argument)
			fmt.Printf("typed %q %v\r\n", data, err)
		case "EXIT":
			fmt.Print("exits\r\n")
			return
		default:
			fmt.Printf("%s\r\n", lines.Text())
		}
	}
	fmt.Print("is alone\r\n")
}

// bench is a service with its client.
type bench struct {
	t       *testing.T
	service *Service
	client  *Client
	taken   uint64
	printed map[string]string // by MAC
	mu      sync.Mutex
	warned  []string
}

func start(t *testing.T, times Times) *bench {
	b := &bench{t: t, printed: map[string]string{}}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b.service = NewService(Config{Program: []string{program, standIn}, Runtime: t.TempDir(), Times: times, Warn: func(format string, args ...any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.warned = append(b.warned, fmt.Sprintf(format, args...))
	}})
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- connector.Listen(ctx, ln, b.service.Handle) }()
	b.client = Dial(ln.Addr().String())
	t.Cleanup(func() {
		b.client.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := b.service.Reconcile(nil); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) warnings() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.warned, "\n")
}

// limit bounds what a test waits for.
const limit = 20 * time.Second

// see waits until a console has printed a text, and returns all that it has printed.
func (b *bench) see(mac, want string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), limit)
	defer cancel()
	for !strings.Contains(b.printed[mac], want) {
		batch, err := b.client.Console(ctx, b.taken)
		if err != nil {
			b.t.Fatalf("the console of %s shows %q, not %q: %v", mac, b.printed[mac], want, err)
		}
		b.taken = batch.Number
		for _, c := range batch.Chunks {
			b.printed[c.MAC] += string(c.Data)
		}
	}
	return b.printed[mac]
}

func (b *bench) reconcile(nodes ...Node) {
	b.t.Helper()
	if err := b.client.Reconcile(b.t.Context(), nodes); err != nil {
		b.t.Error(err)
	}
}

// node is a virtual node.
func node(host int, name string) Node {
	return Node{
		MAC: fmt.Sprintf("52:54:00:00:00:%02x", host), IP: fmt.Sprintf("192.168.152.%d", host), Model: "pc-x86-64",
		ServerIP: "192.168.152.1", Netmask: "255.255.255.0", Acceleration: "tcg",
		Settings: Settings{Name: name, CPUCores: "4", RAM: "512M", Disks: "none", Networks: "walt-net", BootDelay: "random"},
	}
}

func pid(t *testing.T, printed string) (pid int) {
	t.Helper()
	if _, err := fmt.Sscanf(printed, "%d runs", &pid); err != nil {
		t.Fatalf("%q: %v", printed, err)
	}
	return pid
}

func gone(pid int) bool { return syscall.Kill(pid, 0) == syscall.ESRCH }

func TestReconcile(t *testing.T) {
	b := start(t, Times{})
	one, two := node(1, "one"), node(2, "two")
	b.reconcile(one, two)
	printed := b.see(one.MAC, "\r\n")
	want := " runs --hostname one --mac 52:54:00:00:00:01 --ip 192.168.152.1 --model pc-x86-64 --server-ip 192.168.152.1 --cpu-cores 4" +
		" --ram 512M --disks none --networks walt-net --netmask 255.255.255.0 --gateway  --boot-delay random --acceleration tcg --managed --pid-path " + b.service.Runtime + "/52:54:00:00:00:01/pid\r\n"
	if got := strings.TrimLeft(printed, "0123456789"); got != want {
		t.Errorf("a node is run as %q\nwant %q", got, want)
	}
	first := pid(t, printed)
	second := pid(t, b.see(two.MAC, "\r\n"))

	// What is the same stays; what differs is told.
	b.reconcile(two, one)
	one.Settings.RAM, one.Settings.Gateway = "1G", "192.168.152.1"
	b.reconcile(one, two)
	one.Settings.Gateway, one.Settings.Name = "", "uno"
	b.reconcile(one, two)
	b.see(one.MAC, "CONF gateway 192.168.152.1\r\nCONF ram 1G\r\nCONF hostname uno\r\nCONF gateway \r\n")
	if err := b.client.Input(t.Context(), two.MAC, []byte{1}); err != nil {
		t.Error(err)
	}
	if err := b.client.Input(t.Context(), two.MAC, []byte("a\x01\r")); err != nil {
		t.Error(err)
	}
	if err := b.client.Kill(t.Context(), two.MAC); err != nil {
		t.Error(err)
	}
	if got := b.see(two.MAC, "KILL_VM\r\n"); !strings.HasSuffix(got, "\r\n"+`typed "\x01\x01" <nil>`+"\r\n"+`typed "a\x01\r" <nil>`+"\r\nKILL_VM\r\n") {
		t.Errorf("the console of two shows %q", got)
	}

	// One that is not wanted ends; the other is the same process as ever.
	b.reconcile(one)
	if !gone(second) || gone(first) {
		t.Errorf("processes: one %v, two %v", gone(first), gone(second))
	}
	for _, err := range []error{b.client.Input(t.Context(), two.MAC, nil), b.client.Kill(t.Context(), two.MAC)} {
		if err == nil || err.Error() != errAbsent.Error() {
			t.Errorf("a command to a node that does not run: %v", err)
		}
	}

	// One that is another node is another process.
	one.IP = "192.168.152.3"
	b.reconcile(one)
	b.see(one.MAC, "exits")
	b.see(one.MAC, "--ip 192.168.152.3")
	if !gone(first) {
		t.Error("the process of another address is still there")
	}
	if said := b.warnings(); said != "" {
		t.Errorf("said %q", said)
	}
}

func TestRefusedNodes(t *testing.T) {
	b := start(t, Times{})
	good := node(1, "good")
	for _, change := range []func(*Node){
		func(n *Node) { n.MAC = "../../etc" },
		func(n *Node) { n.MAC = "52-54-00-00-00-02" },
		func(n *Node) { n.IP = "" },
		func(n *Node) { n.Netmask = "24" },
		func(n *Node) { n.Settings.Name = "" },
		func(n *Node) { n.Settings.Name = "-x" },
		func(n *Node) { n.Settings.RAM = "1G\nEXIT" },
		func(n *Node) { n.Settings.Networks = "a b" },
		func(n *Node) { n.Settings.Disks = "\u00e9" },
	} {
		bad := node(2, "bad")
		change(&bad)
		if err := b.client.Reconcile(t.Context(), []Node{good, bad}); err == nil || !strings.Contains(err.Error(), "cannot run virtual node") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	b.see(good.MAC, "runs")
	if n := len(b.service.present()); n != 1 {
		t.Errorf("%d nodes run", n)
	}
}

// TestDefectS12ProcessIsSupervised: a process that dies is started again, ever more slowly.
func TestDefectS12ProcessIsSupervised(t *testing.T) {
	b := start(t, Times{Pause: time.Millisecond, Longest: 8 * time.Millisecond})
	n := node(1, "dies")
	b.reconcile(n)
	until(t, func() bool { return strings.Count(b.warnings(), "its process has ended") >= 6 })
	for _, want := range []string{"virtual node dies: its process has ended: exit status 3; it starts again in 1ms", "again in 2ms", "again in 4ms", "again in 8ms"} {
		if !strings.Contains(b.warnings(), want) {
			t.Errorf("%q is not said in\n%s", want, b.warnings())
		}
	}
	if strings.Contains(b.warnings(), "again in 16ms") {
		t.Error("pauses grow for ever")
	}
}

// TestKillEndsThePause: a user who reboots a node need not wait for its next process.
func TestKillEndsThePause(t *testing.T) {
	b := start(t, Times{Pause: time.Hour})
	n := node(1, "dies")
	b.reconcile(n)
	until(t, func() bool { return strings.Contains(b.warnings(), "again in 1h") })
	n.Settings.Name = "good"
	b.reconcile(n)
	if err := b.client.Kill(t.Context(), n.MAC); err != nil {
		t.Error(err)
	}
	b.see(n.MAC, "--hostname good")
}

// TestNothingIsLeftBehind: a machine whose process has ended does not go on alone.
func TestNothingIsLeftBehind(t *testing.T) {
	b := start(t, Times{Pause: time.Hour})
	n := node(1, "leaves-machine")
	b.reconcile(n)
	_, rest, _ := strings.Cut(b.see(n.MAC, "left\r\n"), "child ")
	var machine int
	if _, err := fmt.Sscanf(rest, "%d", &machine); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return strings.Contains(b.warnings(), "its process has ended") })
	// Whoever takes orphans over may not have read its exit status yet.
	until(t, func() bool { return gone(machine) || zombie(machine) })
}

func zombie(pid int) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	return strings.HasPrefix(rest, "Z")
}

func until(t *testing.T, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
	}
}

// TestEscalation: a process that does not obey is ended.
func TestEscalation(t *testing.T) {
	b := start(t, Times{Exit: time.Millisecond, Term: 10 * time.Millisecond})
	n := node(1, "stubborn")
	b.reconcile(n)
	p := pid(t, b.see(n.MAC, "stays"))
	b.reconcile()
	if !gone(p) {
		t.Error("the process is still there")
	}
}

// TestDeafProcess: a process that does not read is ended, and another one started.
func TestDeafProcess(t *testing.T) {
	b := start(t, Times{Read: 10 * time.Millisecond, Term: 10 * time.Millisecond, Pause: time.Millisecond})
	n := node(1, "deaf")
	b.reconcile(n)
	p := pid(t, b.see(n.MAC, "runs"))
	until(t, func() bool { return b.client.Input(t.Context(), n.MAC, make([]byte, 4096)) != nil })
	until(t, func() bool { return gone(p) })
	until(t, func() bool { return strings.Contains(b.warnings(), "does not read its commands") })
	b.printed[n.MAC] = ""
	if next := pid(t, b.see(n.MAC, "runs")); next == p {
		t.Error("no other process runs")
	}
}

func TestConsoles(t *testing.T) {
	c := newConsoles()
	take := func(taken uint64) (uint64, string) {
		t.Helper()
		batch, err := c.take(t.Context(), taken)
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		var last time.Time
		for _, chunk := range batch.Chunks {
			if !chunk.Time.After(last) {
				t.Errorf("%v is not after %v", chunk.Time, last)
			}
			last = chunk.Time
			all.WriteString(chunk.MAC + ":" + string(chunk.Data) + " ")
		}
		return batch.Number, all.String()
	}
	expect := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	c.add("a", []byte("1"))
	c.add("b", []byte("2"))
	c.add("a", []byte("3"))
	first, got := take(0)
	expect(got, "a:1 b:2 a:3 ")
	c.add("a", []byte("4"))
	_, got = take(0) // who has not received it gets it again
	expect(got, "a:1 b:2 a:3 ")
	second, got := take(first)
	expect(got, "a:4 ")

	// A batch is waited for.
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error)
	go func() { _, err := c.take(ctx, second); waiting <- err }()
	cancel()
	if err := <-waiting; err != context.Canceled {
		t.Errorf("a caller who leaves: %v", err)
	}
	go func() { c.add("b", []byte("5")) }()
	third, got := take(second)
	expect(got, "b:5 ")

	// The oldest is lost of one that prints too much, and only of that one.
	c.add("quiet", []byte("kept"))
	line := make([]byte, chunkSize)
	for i := range 2 * maxConsole / chunkSize {
		line[0] = byte('A' + i%26)
		c.add("loud", line)
	}
	c.add("loud", []byte("last"))
	c.add("gone", []byte("x"))
	c.keep(func(mac string) bool { return mac != "gone" })
	_, got = take(third)
	if !strings.HasPrefix(got, "quiet:kept ") || !strings.HasSuffix(got, "loud:last ") || strings.Contains(got, "gone") {
		t.Errorf("got %.20q ... %.20q", got, got[len(got)-20:])
	}
	if len(got) > maxConsole || len(got) < maxConsole*9/10 || c.lostEver() < maxConsole {
		t.Errorf("%d bytes are kept, %d lost", len(got), c.lostEver())
	}
}

// TestConsoleOfTheNextLife: numbers of an earlier life of the service mean nothing.
func TestConsoleOfTheNextLife(t *testing.T) {
	first := newConsoles()
	first.add("a", []byte("1"))
	batch, err := first.take(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	next := newConsoles()
	next.add("a", []byte("2"))
	if got, err := next.take(t.Context(), batch.Number); err != nil || string(got.Chunks[0].Data) != "2" {
		t.Errorf("got %v, %v", got, err)
	}
}

func FuzzNode(f *testing.F) {
	f.Add("52:54:00:00:00:01", "192.168.152.2", "n", "1G", "walt-net,a[lat=1ms]")
	f.Fuzz(func(t *testing.T, mac, ip, name, ram, networks string) {
		n := node(1, name)
		n.MAC, n.IP, n.Settings.RAM, n.Settings.Networks = mac, ip, ram, networks
		if n.check() != nil {
			return
		}
		for _, argument := range n.arguments() {
			if strings.ContainsAny(argument, "\n\r\x00 ") || strings.HasPrefix(argument, "-") && !strings.HasPrefix(argument, "--") {
				t.Errorf("%q is an argument", argument)
			}
		}
	})
}
