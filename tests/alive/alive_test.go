// Package alive has the supervisor's own launcher run the services of the appliance on this
// machine, and stops them as no program would notice: the proofs of life of the shipped units
// must find each.
//
// It runs in namespaces of its own, where the interface walt-net is there and all ports are free.
package alive

import (
	"context"
	"fmt"
	"math/rand/v2"
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

	"github.com/vishvananda/netlink"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/daemon/blocking"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/hub"
	"github.com/waltos/waltos/services/dhcp"
	"github.com/waltos/waltos/services/named"
	"github.com/waltos/waltos/services/tftp"
	"github.com/waltos/waltos/services/vnodes"
	"github.com/waltos/waltos/supervisor/process"
	"github.com/waltos/waltos/supervisor/reap"
	"github.com/waltos/waltos/supervisor/unit"
)

// insideVariable tells a process that it runs in the namespaces.
const insideVariable = "WALT_TEST_ALIVE"

// service is one of the services, with its arguments; DIR is a folder of the test.
type service struct {
	main func(context.Context, []string) error
	args []string
}

var (
	socket   = []string{"-socket-dir", "DIR"}
	followed = []string{"-site", "DIR/site.hcl", "-dir", "DIR", "-state", "DIR/state.sock"}
)

// services are those of the units that are tried. What they need of others is away.
var services = map[string]service{
	"walt-server-db":       {db.Main, append([]string{"-dsn", "host=DIR", "-disk", "DIR", "-trackexec", ""}, socket...)},
	"walt-server-blocking": {blocking.Main, append([]string{"-cache", "", "-trackexec", ""}, socket...)},
	"walt-server-hub":      {hub.Main, append([]string{"-site", "DIR/site.hcl", "-trackexec", ""}, socket...)},
	"walt-server-vnodes":   {vnodes.Main, append([]string{"-runtime-dir", "DIR/vnodes"}, socket...)},
	"walt-server-dhcpd":    {dhcp.Main, followed},
	"walt-server-tftpd":    {tftp.Main, followed},
	"walt-server-named":    {named.Main, followed},
}

func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == process.ShimName:
		os.Exit(process.Shim(os.Args))
	case len(os.Args) > 2 && os.Args[1] == "serve":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := services[os.Args[2]].main(ctx, os.Args[3:]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// enter returns true in the process that runs inside the namespaces, which it starts elsewhere.
func enter(t *testing.T) bool {
	if os.Getenv(insideVariable) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v=true")
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	switch {
	case len(out) == 0 && err != nil:
		t.Skipf("skipped: this machine refuses namespaces: %v", err)
	case err != nil:
		t.Errorf("in its namespaces: %v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("skipped in its namespaces:\n%s", out)
	}
	return false
}

// network makes walt-net.
func network(t *testing.T) {
	t.Helper()
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: hcl.WaltNet}}
	if err := netlink.LinkAdd(bridge); err != nil {
		t.Skipf("skipped: this kernel has no bridge: %v", err)
	}
	addr, err := netlink.ParseAddr("192.168.152.1/24")
	must(t, err)
	must(t, netlink.AddrAdd(bridge, addr))
	for _, name := range []string{"lo", hcl.WaltNet} {
		link, err := netlink.LinkByName(name)
		must(t, err)
		must(t, netlink.LinkSetUp(link))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// shipped returns the proofs of life of the units of the appliance for the services of this
// machine, with a shorter period.
func shipped(t *testing.T, dir string) (units []*hcl.Unit) {
	t.Helper()
	all, err := hcl.LoadUnits("../../image/units")
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	for _, u := range all {
		s, tried := services[u.Name]
		if !tried {
			continue
		}
		if u.Alive == nil {
			t.Fatalf("%s has no proof of life", u.Name)
		}
		u.Exec = []string{self, "serve", u.Name}
		for _, arg := range s.args {
			u.Exec = append(u.Exec, strings.ReplaceAll(arg, "DIR", dir))
		}
		u.Alive.Period = "4s"
		u.Shutdown.Timeout = "1s" // it cannot act on its signal
		u.User, u.Sandbox, u.Capabilities, u.Sockets, u.Limits = "root", nil, nil, nil, &hcl.Limits{Files: 1024}
		u.Needs, u.Wants, u.StateDirectories, u.RuntimeDirectories = nil, nil, nil, nil
		units = append(units, u)
	}
	if len(units) != len(services) {
		t.Fatalf("%d of %d units are there", len(units), len(services))
	}
	return units
}

// TestStopped: each service that is stopped (SIGSTOP) is found, and restarted with the reason;
// those that go on are left alone.
func TestStopped(t *testing.T) {
	if !enter(t) {
		return
	}
	network(t)
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "vnodes"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "site.hcl"), []byte(`network "walt-net" { ip = "192.168.152.1/24" }`), 0o644))

	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	reaper := reap.New()
	go func() {
		for range children {
			reaper.Reap()
		}
	}()
	var mu sync.Mutex
	var told []string
	tell := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprintf(format, args...))
	}
	t.Cleanup(func() {
		if t.Failed() {
			mu.Lock()
			defer mu.Unlock()
			t.Log(strings.Join(told, "\n"))
		}
	})
	type end struct{ unit, reason string }
	ends := make(chan end, 100)
	m, err := unit.New(unit.Config{
		Units: shipped(t, dir), Clock: unit.SystemClock{}, Jitter: rand.Float64,
		Launcher: process.New(process.Config{
			Reaper: reaper, RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "lib"), Shim: "/proc/self/exe",
			Log: func(unit, line string) { tell("%s: %s", unit, line) },
		}),
		Changed: func(c unit.Change) {
			tell("%s is %s: %s", c.Unit, c.New, c.Reason)
			if c.Old == unit.Running {
				ends <- end{c.Unit, c.Reason}
			}
		},
	})
	must(t, err)
	wait := func(what string, done <-chan struct{}) {
		t.Helper()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Fatalf("not so after a minute: %s", what)
		}
	}
	running := func(all []unit.Snapshot) bool {
		return !slices.ContainsFunc(all, func(s unit.Snapshot) bool { return s.State != unit.Running })
	}
	t.Cleanup(func() { wait("all have ended", m.StopAll()) })
	m.StartAll()
	wait("all run", m.When(running))

	// The half of them first: the others must outlive some periods meanwhile.
	for round := range 2 {
		stopped := map[string]int{}
		for i, s := range m.Snapshot() {
			if i%2 == round {
				must(t, syscall.Kill(s.PID, syscall.SIGSTOP))
				stopped[s.Name] = s.PID
			}
		}
		for left := len(stopped); left > 0; left-- {
			select {
			case e := <-ends:
				if stopped[e.unit] == 0 || e.reason != "no sign of life within 4s" {
					t.Errorf("%s ends: %s", e.unit, e.reason)
				}
			case <-time.After(time.Minute):
				t.Fatal("no service that is stopped has been found for a minute")
			}
		}
		wait("others run in the place of those that were stopped", m.When(func(all []unit.Snapshot) bool {
			return running(all) && !slices.ContainsFunc(all, func(s unit.Snapshot) bool { return s.PID == stopped[s.Name] })
		}))
	}
	for _, s := range m.Snapshot() {
		if s.Restarts != 1 {
			t.Errorf("%s was restarted %d times", s.Name, s.Restarts)
		}
	}
}
