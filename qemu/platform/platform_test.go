package platform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/qemu/machine"
	"github.com/waltos/waltos/qemu/machine/machinetest"
)

// options are those of a lab whose appliance only writes a text. The end-to-end tests
// start real ones.
func options(t *testing.T, text string) Options {
	t.Helper()
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skipf("no QEMU on this machine (the end-to-end tests run the locked one): %v", err)
	}
	return Options{
		Folder:  filepath.Join(t.TempDir(), "lab"),
		Image:   Image{Disk: machinetest.EchoDisk(t), Kernel: machinetest.Kernel(t, text, true)},
		Tools:   Tools{QEMU: machine.Program{Argv: []string{path}}},
		Direct:  true,
		Address: freeAddress(t), Accelerator: machine.TCG, Memory: 64, Growth: 1 << 20,
		Patience: 60 * time.Second, Isolated: true,
	}
}

// freeAddress finds a loopback address whose ports nobody uses.
func freeAddress(t *testing.T) netip.Addr {
	t.Helper()
	for last := byte(2); last < 250; last++ {
		o := Options{Address: netip.AddrFrom4([4]byte{127, 0, 77, last})}
		if _, err := o.forwards(); err == nil {
			return o.Address
		}
	}
	t.Fatal("no loopback address has free ports")
	return netip.Addr{}
}

// progress gathers the lines of a lab.
type progress struct {
	mu    sync.Mutex
	lines []string
}

func (p *progress) say(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, line)
}

func (p *progress) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

func TestFailureEndsTheStart(t *testing.T) {
	o := options(t, "[ 0.1] walt: one\r\n[ 0.2] walt: fatal: no root\r\n[ 0.3] more\r\n")
	var said progress
	o.Progress = said.say
	_, err := Start(context.Background(), o)
	if err == nil || !strings.Contains(err.Error(), "walt: fatal: no root") || !strings.Contains(err.Error(), "console of appliance") {
		t.Errorf("a fatal error was told as: %v", err)
	}
	if !strings.Contains(said.String(), "appliance: walt: one") {
		t.Errorf("the progress was:\n%s", said.String())
	}
	checkDown(t, o)
	console, err := os.ReadFile(filepath.Join(o.Folder, "consoles", "appliance.log"))
	if err != nil || !strings.Contains(string(console), "walt: fatal: no root") {
		t.Errorf("the console file holds %q, %v", console, err)
	}
}

func TestInterruptedStart(t *testing.T) {
	// Ready in words, but no API: the lab waits.
	o := options(t, "walt: ready\r\n")
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	o.Progress = func(line string) {
		if strings.Contains(line, "asking its API") {
			cancel(errors.New("Ctrl-C"))
		}
	}
	if _, err := Start(ctx, o); err == nil || !strings.Contains(err.Error(), "Ctrl-C") {
		t.Errorf("an interrupted start was told as: %v", err)
	}
	checkDown(t, o)
}

func TestPatience(t *testing.T) {
	o := options(t, "walt: starting\r\n")
	o.Patience = 500 * time.Millisecond
	if _, err := Start(context.Background(), o); err == nil || !strings.Contains(err.Error(), "was not ready after 500ms") {
		t.Errorf("an appliance that is never ready was told as: %v", err)
	}
	checkDown(t, o)
}

// checkDown makes sure that nothing of a lab is left: QEMU held its ports.
func checkDown(t *testing.T, o Options) {
	t.Helper()
	if Running(o.Folder) {
		t.Error("the folder is still locked")
	}
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	if _, err := o.forwards(); err != nil {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no folder":      {func(o *Options) { o.Folder = "" }, "folder of the lab is missing"},
		"public address": {func(o *Options) { o.Address = netip.MustParseAddr("0.0.0.0") }, "127.0.0.0/8"},
		"many nodes":     {func(o *Options) { o.Nodes, o.UEFINodes = maxNodes, 1 }, "0 to 200 nodes"},
		"no image":       {func(o *Options) { o.Image.Disk = "/nonexistent/walt.img" }, "/nonexistent/walt.img"},
		"no QEMU":        {func(o *Options) { o.Tools.QEMU.Argv = []string{"/nonexistent/qemu"} }, "/nonexistent/qemu"},
		"no firmware":    {func(o *Options) { o.Direct = false; o.Tools.Variables = "/nonexistent/vars" }, "/nonexistent/vars"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t, "")
			c.change(&o)
			if _, err := Start(context.Background(), o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("told as: %v", err)
			}
		})
	}
}

func TestPortInUse(t *testing.T) {
	o := options(t, "")
	listener, err := net.Listen("tcp", o.endpoint(apiPort))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if _, err := Start(context.Background(), o); err == nil || !strings.Contains(err.Error(), "port 12345 for WalT API") {
		t.Errorf("told as: %v", err)
	}
}

func TestFolderInUse(t *testing.T) {
	o := options(t, "")
	if err := os.MkdirAll(o.Folder, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := lockFolder(o.Folder)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := Start(context.Background(), o); err == nil || !strings.Contains(err.Error(), "running in") {
		t.Errorf("told as: %v", err)
	}
}

// TestTerminate ends a process that holds a lab.
func TestTerminate(t *testing.T) {
	if folder := os.Getenv("PLATFORM_TEST_FOLDER"); folder != "" {
		lock, err := lockFolder(folder)
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		fmt.Println("locked")
		unix.Pause() // until it is killed by the signal
		return
	}
	folder := t.TempDir()
	if found, err := Terminate(folder); found || err != nil {
		t.Errorf("without a lab: %v, %v", found, err)
	}
	holder := exec.Command(os.Args[0], "-test.run=^TestTerminate$")
	holder.Env = append(os.Environ(), "PLATFORM_TEST_FOLDER="+folder)
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer holder.Wait()
	defer holder.Process.Kill()
	if _, err := fmt.Fscanf(out, "locked\n"); err != nil {
		t.Fatal(err)
	}
	if found, err := Terminate(folder); !found || err != nil {
		t.Errorf("with a lab: %v, %v", found, err)
	}
	if Running(folder) {
		t.Error("the lab runs on")
	}
}

func TestOptionsTravel(t *testing.T) {
	o := Options{Folder: "/lab", Address: netip.MustParseAddr("127.0.0.5"), Nodes: 2, Patience: time.Minute, Progress: func(string) {}}
	data, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var got Options
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if got.Address != o.Address || got.Nodes != 2 || got.Patience != o.Patience || got.Folder != o.Folder {
		t.Errorf("arrived as %+v", got)
	}
}

func TestSite(t *testing.T) {
	folder := t.TempDir()
	key, err := ensureKey(folder)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ensureKey(folder)
	if err != nil || again != key {
		t.Errorf("the key was %q, then %q: %v", key, again, err)
	}
	o := Options{}
	text, err := o.site(key)
	if err != nil || !strings.Contains(text, key) {
		t.Errorf("the site file is %q, %v", text, err)
	}
	o.Site = "nonsense @KEY@"
	if text, err := o.site("KEY"); err != nil || text != "nonsense KEY" {
		t.Errorf("the site file is %q, %v", text, err)
	}
}
