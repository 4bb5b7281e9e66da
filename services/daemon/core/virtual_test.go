package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	remote "github.com/waltos/waltos/services/daemon/blocking/registry"
	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/vnodes"
)

// hypervisor is a Machines that remembers what it was asked.
type hypervisor struct {
	mu      sync.Mutex
	wanted  []vnodes.Node
	asked   []string
	failure error
	printed chan vnodes.Batch
	taken   []uint64
}

func newHypervisor() *hypervisor { return &hypervisor{printed: make(chan vnodes.Batch, 10)} }

// with makes a platform use it.
func (h *hypervisor) with(c *Config) {
	c.Machines, c.Acceleration = h, func() string { return "tcg" }
}

func (h *hypervisor) say(format string, args ...any) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, fmt.Sprintf(format, args...))
	return h.failure
}

func (h *hypervisor) Reconcile(_ context.Context, wanted []vnodes.Node) error {
	names := make([]string, len(wanted))
	for i, n := range wanted {
		names[i] = n.Settings.Name
	}
	h.mu.Lock()
	h.wanted = wanted
	h.mu.Unlock()
	return h.say("run %s", strings.Join(names, ","))
}

func (h *hypervisor) Kill(_ context.Context, mac string) error { return h.say("kill %s", mac) }
func (h *hypervisor) Input(_ context.Context, mac string, data []byte) error {
	return h.say("type %s %q", mac, data)
}

func (h *hypervisor) Console(ctx context.Context, taken uint64) (vnodes.Batch, error) {
	h.mu.Lock()
	h.taken = append(h.taken, taken)
	h.mu.Unlock()
	select {
	case batch := <-h.printed:
		if batch.Number == 0 {
			return batch, errors.New("the service is away")
		}
		return batch, nil
	case <-ctx.Done():
		return vnodes.Batch{}, ctx.Err()
	}
}

// take returns what was asked since the last time.
func (h *hypervisor) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	asked := h.asked
	h.asked = nil
	return asked
}

// expect compares what was asked since the last time.
func (h *hypervisor) expect(t *testing.T, want ...string) {
	t.Helper()
	if asked := h.take(); !slices.Equal(asked, want) {
		t.Errorf("asked %q\nwant  %q", asked, want)
	}
}

func TestCreateVnode(t *testing.T) {
	h := newHypervisor()
	p := start(t, h.with)
	p.populate(t)
	p.lines.take()
	u := newUser("alice")
	const booting = "busy:Registering virtual node\nout:Node %s is now booting your image \"pc-x86-64-default\".\n" +
		"out:Use `walt node boot %[1]s <other-image>` if needed.\n"
	p.expectSteps(t, u, []step{
		{"create_vnode", []any{"pc"}, "false", "err:Failed: a device with name 'pc' already exists.\n"},
		{"create_vnode", []any{"1"}, "false", "err:" + text.InvalidDeviceName},
		{"create_vnode", []any{"vn1"}, "true", "out:Default image for pc-x86-64 was saved as \"pc-x86-64-default\" in your working set.\n" + fmt.Sprintf(booting, "vn1")},
		{"create_vnode", []any{"vn2"}, "true", fmt.Sprintf(booting, "vn2")},
		{"create_vnode", []any{"vn2"}, "false", "err:Failed: a device with name 'vn2' already exists.\n"},
	})
	h.expect(t, "run vn1", "run vn1,vn2")
	d := p.registry.View().ByName("vn1")
	want := db.Device{MAC: d.MAC, IP: "192.168.152.2", Name: "vn1", Type: "node", Virtual: true, Conf: map[string]any{}, Image: "alice/pc-x86-64-default:latest", Model: "pc-x86-64"}
	if fmt.Sprint(d.Device) != fmt.Sprint(want) || d.Kind() != "virtual" || !strings.HasPrefix(d.MAC, "52:54:00:") {
		t.Errorf("recorded %+v, want %+v", d.Device, want)
	}
	if stored := p.store.all[d.MAC]; fmt.Sprint(stored) != fmt.Sprint(want) {
		t.Errorf("stored %+v", stored)
	}
	if lines := p.lines.take(); lines[0] != "platform.devices: new node name=vn1 model=pc-x86-64 mac="+d.MAC+" ip=192.168.152.2" {
		t.Errorf("logged %q", lines)
	}
	wanted := vnodes.Node{
		MAC: d.MAC, IP: "192.168.152.2", Model: "pc-x86-64", ServerIP: "192.168.152.1", Netmask: "255.255.255.0", Acceleration: "tcg",
		Settings: vnodes.Settings{Name: "vn1", CPUCores: "4", RAM: "512M", Disks: "none", Networks: "walt-net", BootDelay: "random"},
	}
	if h.wanted[0] != wanted || h.wanted[1].IP != "192.168.152.3" {
		t.Errorf("runs %+v\nwant %+v", h.wanted, wanted)
	}
}

// TestFreeMAC: an address is another one than those of devices and of the VPN.
func TestFreeMAC(t *testing.T) {
	p := start(t, nil)
	if mac := p.addVirtual(t, "vn1"); mac != "52:54:00:00:00:00" {
		t.Fatal(mac)
	}
	p.tables.set(db.Everything{VPNMACs: []string{"52:54:00:00:00:03"}})
	for drawn, want := range map[string]string{
		"\x00\x00\x02":                         "52:54:00:00:00:02",
		"\x00\x00\x00\x00\x00\x03\x00\x00\x04": "52:54:00:00:00:04",
	} {
		if got := p.freeMAC(strings.NewReader(drawn)); got != want {
			t.Errorf("from % x: %s, want %s", drawn, got, want)
		}
	}
}

func TestCreateVnodeWhereItCannotRun(t *testing.T) {
	h := newHypervisor()
	var said []string // by worker machines only
	p := start(t, func(c *Config) {
		h.with(c)
		c.Acceleration = func() string { return "" }
		c.Print = func(format string, args ...any) {
			if line := fmt.Sprintf(format, args...); strings.HasPrefix(line, "virtual nodes") {
				said = append(said, line)
			}
		}
	})
	p.populate(t)
	p.expectSteps(t, newUser("alice"), []step{
		{"create_vnode", []any{"pc"}, "false", "err:Failed because virtualization is not enabled on server CPU (missing /dev/kvm).\n"},
	})
	p.addVirtual(t, "vn")
	p.addVirtual(t, "vn2")
	h.expect(t)
	// It is said once.
	if want := "virtual nodes are not started: Failed because virtualization is not enabled on server CPU (missing /dev/kvm)."; !slices.Equal(said, []string{want}) {
		t.Errorf("said %q", said)
	}
}

func TestCreateVnodeOnAFullNetwork(t *testing.T) {
	p := start(t, func(c *Config) {
		newHypervisor().with(c)
		c.Site.Networks[0].IP = "192.168.152.1/30"
		c.Registry = registry.New(c.Site.Server())
	})
	u := newUser("alice")
	if result, err := p.do(t, u, "create_vnode", "vn1"); result != true || err != nil {
		t.Fatal(result, err)
	}
	u.said()
	p.expectSteps(t, u, []step{
		{"create_vnode", []any{"vn2"}, "false", "busy:Registering virtual node\nerr:Failed: no address of the WalT network is free.\n"},
	})
}

func TestCreateVnodeWithoutDefaultImage(t *testing.T) {
	const downloading = "busy:Downloading default image for \"pc-x86-64\"\n"
	gives := &shops{images: map[string][]remote.Image{}}
	p, u, who := market(t, []string{"hub", "own"}, gives, newHypervisor().with)
	p.shelf.images = nil
	who.types["own"] = "secret"
	gives.broken = "hub own"
	p.expectSteps(t, u, []step{
		{"create_vnode", []any{"vn"}, "false", downloading + "err:Failed to download waltplatform/pc-x86-64-default:latest from registries 'hub' or 'own'.\n"},
	})
	expectList(t, "prompts", who.prompted, "own")
	gives.broken = "hub"
	p.expectSteps(t, u, []step{
		{"create_vnode", []any{"vn"}, "true", downloading + "out:Default image for pc-x86-64 was saved as \"pc-x86-64-default\" in your working set.\n" +
			"busy:Registering virtual node\nout:Node vn is now booting your image \"pc-x86-64-default\".\nout:Use `walt node boot vn <other-image>` if needed.\n"},
	})
}

// TestDownloadForANewNode: the default image of a new model is got for its first node,
// from registries that give it to anybody.
func TestDownloadForANewNode(t *testing.T) {
	gives := &shops{images: map[string][]remote.Image{}}
	p, _, _ := market(t, []string{"own", "hub"}, gives)
	p.shelf.images = nil
	p.lines.take()
	sighting := registry.Sighting{UCI: "walt.node.pc-x86-64", IP: "192.168.152.10", MAC: "02:00:00:00:00:10", Name: "pc"}
	try := func(want ...string) {
		t.Helper()
		p.register(t, sighting)
		if err := p.fetches.settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range want {
			want[i] = "platform.devices: " + want[i]
		}
		expectList(t, "logged", p.lines.take(), want...)
	}
	const trying = "Trying to download a default image for 'pc-x86-64' nodes: waltplatform/pc-x86-64-default:latest..."
	gives.broken = "hub"
	try("new device name=pc type=unknown mac=02:00:00:00:00:10 ip=192.168.152.10", "Device pc is a walt node of type 'pc-x86-64'.", trying,
		"registry 'own' does not allow anonymous pulls, ignored.", "Failed to download waltplatform/pc-x86-64-default:latest from registry 'hub'.",
		"New pc-x86-64 nodes will be seen as devices of type 'unknown' until this is solved.")
	gives.broken = ""
	try("Device pc is a walt node of type 'pc-x86-64'.", trying, "Image waltplatform/pc-x86-64-default:latest was downloaded successfully.",
		"new node (device type previously unknown) name=pc model=pc-x86-64 mac=02:00:00:00:00:10 ip=192.168.152.10")
	if d := p.registry.View().ByName("pc"); d.Type != registry.Node || d.Image != registry.DefaultImage("pc-x86-64") {
		t.Errorf("the node is %+v", d)
	}
}

// addVirtual records a virtual node, as an earlier server would have, and returns its MAC.
func (p *platform) addVirtual(t *testing.T, name string) string {
	t.Helper()
	n := len(p.registry.View().Nodes())
	d := db.Device{MAC: fmt.Sprintf("52:54:00:00:00:%02x", n), IP: fmt.Sprintf("192.168.152.%d", 50+n), Name: name, Type: registry.Node,
		Virtual: true, Model: "pc-x86-64", Image: "waltplatform/pc-x86-64-default:latest", Conf: map[string]any{}}
	p.store.images[d.Image] = true
	if err := p.locked(func() error { return p.saveDevices(t.Context(), d) }); err != nil {
		t.Fatal(err)
	}
	if err := p.machines.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d.MAC
}

// forgetful is a shelf that remembers whose files were deleted, and when.
type forgetful struct {
	*shelf
	h *hypervisor
}

func (f forgetful) Forget(_ context.Context, mac string) error { return f.h.say("delete %s", mac) }

func TestRemoveVnode(t *testing.T) {
	h := newHypervisor()
	p := start(t, func(c *Config) { h.with(c); c.Images = forgetful{c.Images.(*shelf), h} })
	p.populate(t)
	one, two := p.addVirtual(t, "vn1"), p.addVirtual(t, "vn2")
	h.expect(t, "run vn1", "run vn1,vn2")
	p.expectSteps(t, newUser("alice"), []step{
		{"remove_vnode", []any{"x"}, "false", "err:No device with name 'x' found.\n"},
		{"remove_vnode", []any{"sw"}, "false", "err:sw is not a node, it is a switch.\n"},
		{"remove_vnode", []any{"pc"}, "false", "err:FAILED: pc is a real node (not virtual).\n"},
		{"remove_vnode", []any{"vn1"}, "true", ""},
		{"forget", []any{"vn2"}, "true", ""},
		{"forget", []any{"pc"}, "true", ""},
	})
	// The machine has ended before the files that it writes to are deleted.
	h.expect(t, "run vn2", "delete "+one, "run ", "delete "+two, "delete 02:00:00:00:00:10")
	if p.store.all[one].Name != "" || p.registry.View().ByName("vn1") != nil {
		t.Error("the node is still there")
	}
}

func TestSettingsOfMachines(t *testing.T) {
	h := newHypervisor()
	p := start(t, h.with)
	p.populate(t)
	mac := p.addVirtual(t, "vn")
	h.expect(t, "run vn")
	u := newUser("alice")
	const reboot = "out:Done. Reboot node(s) to see new settings in effect.\n"
	args := []any{"ram=1G", "cpu.cores=2", "disks=8G[template=ext4],1T", "networks=walt-net,net[lat=2ms]", "boot.delay=0", "netsetup=NAT"}
	for _, arg := range args {
		p.expectSteps(t, u, []step{{"set_device_config", []any{"vn", tuple([]string{arg.(string)})}, "None", reboot}})
		if err := p.machines.settle(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	h.expect(t, slices.Repeat([]string{"run vn"}, len(args))...)
	want := vnodes.Settings{Name: "vn", Gateway: "192.168.152.1", CPUCores: "2", RAM: "1G", Disks: "8G[template=ext4],1T", Networks: "walt-net,net[lat=2ms]", BootDelay: "0"}
	if got := h.wanted[0].Settings; got != want {
		t.Errorf("settings %+v, want %+v", got, want)
	}
	p.expectSteps(t, u, []step{{"rename", []any{"vn", "vn2"}, "true", ""}, {"rename", []any{"vn2", "vn"}, "true", ""}})
	if err := p.machines.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h.take(); h.wanted[0].Settings.Name != "vn" {
		t.Errorf("runs %+v", h.wanted)
	}
	// What changes nothing for machines asks nothing of them.
	p.expectSteps(t, u, []step{{"set_device_config", []any{"vn", tuple([]string{"boot.retries=3"})}, "None", "out:Done.\n"}})
	p.register(t, registry.Sighting{MAC: "02:00:00:00:00:14"})
	if err := p.machines.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.expect(t)
	// A service that has begun anew is told all again.
	p.machinesConnected()
	if err := p.machines.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.expect(t, "run vn")
	if h.wanted[0].MAC != mac {
		t.Errorf("runs %+v", h.wanted)
	}
}

func TestConsoleOfVirtualNodes(t *testing.T) {
	h := newHypervisor()
	p := start(t, h.with)
	p.populate(t)
	mac := p.addVirtual(t, "vn")
	h.expect(t, "run vn")
	p.lines.take()
	p.expectSteps(t, newUser("alice"), []step{
		{"vnode_console_input", []any{strings.ToUpper(mac), []byte("a\r")}, "None", ""},
		{"vnode_console_input", []any{"02:00:00:00:00:10", []byte("a")}, "None", ""}, // no virtual one
		{"vnode_console_input", []any{"nowhere", []byte("a")}, "None", ""},
	})
	h.failure = errors.New("no machine runs")
	p.expectSteps(t, newUser("alice"), []step{{"vnode_console_input", []any{mac, []byte("\x01")}, "None", ""}})
	h.expect(t, "type "+mac+` "a\r"`, "type "+mac+` "\x01"`)

	chunk := func(text string) []vnodes.Chunk {
		return []vnodes.Chunk{{MAC: mac, Time: time.Unix(1, 0), Data: []byte(text)}}
	}
	for _, batch := range []vnodes.Batch{{Number: 7, Chunks: chunk("one")}, {}, {Number: 8, Chunks: chunk("two")}} {
		h.printed <- batch
	}
	var lines []string
	for deadline := time.Now().Add(10 * time.Second); len(lines) < 2 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		lines = append(lines, p.lines.take()...)
	}
	if want := []string{"virtualconsole: " + mac + ` "one"`, "virtualconsole: " + mac + ` "two"`}; !slices.Equal(lines, want) {
		t.Errorf("logged %q, want %q", lines, want)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if want := []uint64{0, 7, 7}; !slices.Equal(h.taken[:3], want) {
		t.Errorf("taken: %v, want %v", h.taken, want)
	}
}

func TestRebootOfVirtualNodes(t *testing.T) {
	h := newHypervisor()
	p := start(t, h.with)
	p.populate(t)
	mac := p.addVirtual(t, "vn")
	p.registry.SetBooted(mac, true)
	h.expect(t, "run vn")
	p.lines.take()
	u := newUser("alice")
	u.hooks = func(path string, _ []any) any { return path == "has_hook" && false }
	p.expectSteps(t, u, []step{
		{"reboot_nodes", []any{"vn", true}, "OK", "out:Node vn: rebooted ok.\n"},
		{"reboot_nodes", []any{"vn"}, "OK", "out:Node vn: rebooted ok.\n"}, // it does not answer
	})
	h.expect(t, "kill "+mac, "kill "+mac)
	if lines := p.lines.take(); !slices.Equal(lines, []string{"platform.nodes: node vn is down (cause: reboot requested, method: vnode hard-reboot)"}) {
		t.Errorf("logged %q", lines)
	}
	h.failure = errors.New("its process does not read")
	p.expectSteps(t, u, []step{
		{"reboot_nodes", []any{"vn", true}, "FAILED", "err:Node vn: failed vnode hard-reboot (its process does not read)\n"},
		{"reboot_nodes", []any{"pc,vn"}, "FAILED", "err:Node vn: failed soft-reboot (no such node) and vnode hard-reboot (its process does not read)\n" +
			"err:Node pc: failed soft-reboot (no such node) and poe-reboot (unknown lldp network position)\n"},
	})
}
