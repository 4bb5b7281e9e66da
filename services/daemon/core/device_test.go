package core

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/wire/pickle"
)

// trap is a client that makes the daemon panic.
type trap struct{ *user }

func (trap) Callback(context.Context, string, ...any) (any, error) { panic("oops") }

// TestDefectS8FailedCallsAreAnswered: an internal error ends its call only, with words.
func TestDefectS8FailedCallsAreAnswered(t *testing.T) {
	p := start(t, nil)
	_, err := p.serve(t.Context(), &call{client: trap{newUser("alice")}, api: "CSAPI"}, "has_image", pickle.Tuple{"x"}, nil)
	if err == nil || err.Error() != "internal error in has_image" {
		t.Errorf("has_image: %v", err)
	}
	if _, err := p.do(t, newUser("alice"), "device_show"); err != nil {
		t.Errorf("device_show: %v", err)
	}
}

// TestDefectS9LiveBootSettings: settings of boots reach the monitor at once, also after a
// device was forgotten.
func TestDefectS9LiveBootSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, nil)
		p.populate(t)
		u := newUser("alice")
		if result, err := p.do(t, u, "forget", "rpi"); result != true || err != nil {
			t.Fatalf("forget = %v, %v", result, err)
		}
		p.do(t, u, "set_device_config", "pc", pickle.Tuple{"boot.timeout=60", "boot.retries=2"})
		if said := u.said(); said != "out:Done.\n" {
			t.Errorf("set_device_config says %q", said)
		}
		p.lines.take()
		time.Sleep(61 * time.Second)
		p.expectLines(t, "after 60 s",
			"platform.nodes: pc: boot timeout reached, trying hard-reboot (1 retries left).",
			"platform.nodes: Node pc: failed poe-reboot (unknown lldp network position)")
		p.do(t, u, "set_device_config", "pc", pickle.Tuple{"boot.timeout=none"})
		time.Sleep(time.Hour)
		p.expectLines(t, "without timeout")
		p.do(t, u, "set_device_config", "pc", pickle.Tuple{"boot.timeout=60", "boot.retries=1"})
		time.Sleep(time.Hour)
		p.expectLines(t, "no retries left")
	})
}

// TestDefectS10 shows what 10.0 lets users do to their platform.
func TestDefectS10ServerAndKeywords(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	u := newUser("alice")
	p.expectSteps(t, u, []step{
		{"forget", []any{"walt-server"}, "false", "err:Failed: walt-server is the WALT server itself.\n"},
		{"get_node_ip", []any{"pc"}, "192.168.152.10", ""},
	})
	for _, name := range []string{"server", "my-nodes", "all-nodes", "free-nodes", "all-switches", "explorable-switches", "all-devices", "booted-image"} {
		p.expectSteps(t, u, []step{{"rename", []any{"pc", name}, "false", "err:" + text.InvalidDeviceName}})
		p.register(t, registry.Sighting{MAC: "02:00:00:00:01:01", Name: name})
		if d := p.registry.View().ByMAC("02:00:00:00:01:01"); d.Name != "unknown-000101" {
			t.Errorf("a device named %s", d.Name)
		}
		p.expectSteps(t, u, []step{{"forget", []any{"unknown-000101"}, "true", ""}})
	}
}

// TestCN23NodeWithoutAddress also is the last part of defect S10.
func TestCN23NodeWithoutAddress(t *testing.T) {
	p := start(t, nil)
	p.register(t, registry.Sighting{UCI: "walt.node.pc-x86-64", MAC: "02:00:00:00:00:10", Name: "pc"})
	p.expectSteps(t, newUser("alice"), []step{
		{"get_node_ip", []any{"pc"}, "None", "err:Sorry, IP address of pc in unknown.\n"},
		{"get_device_ip", []any{"pc"}, "None", "err:Sorry, IP address of pc in unknown.\n"},
		{"get_nodes_ip", []any{"pc"}, "(None)", ""},
		{"blink", []any{"pc", true}, "false", "err:Blink request to pc failed: Unknown IP address\n"},
	})
}

// TestForgetLeavesNoTrace: nothing of a forgotten device is left in memory, nor in tables.
func TestForgetLeavesNoTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := startPowered(t)
		p.do(t, newUser("alice"), "set_device_config", "n1", pickle.Tuple{"boot.timeout=60"})
		p.lines.take()
		for _, name := range []string{"n1", "sw"} {
			if result, err := p.do(t, newUser("alice"), "forget", name); result != true || err != nil {
				t.Fatalf("forget = %v, %v", result, err)
			}
		}
		p.expectLines(t, "forget",
			"platform.devices: forgot node name=n1 mac="+nodeMAC(1)+", with its logs and its persistent files",
			"platform.devices: forgot switch name=sw mac="+switchMAC+", with its logs")
		for _, l := range p.tables.links() {
			if l.MAC1 == switchMAC || l.MAC2 == nodeMAC(1) {
				t.Errorf("a link is left: %v", l)
			}
		}
		time.Sleep(3 * time.Hour)
		p.expectLines(t, "three hours later")

		// Coming back, it is a new device.
		p.register(t, registry.Sighting{UCI: "walt.node.pc-x86-64", IP: "192.168.152.11", MAC: nodeMAC(1)})
		if d := p.registry.View().ByMAC(nodeMAC(1)); d.Name != "node-000011" || len(d.Conf) > 0 {
			t.Errorf("it is %+v", d)
		}
	})
}

// TestDefectN15FilesOfAForgottenNode: that its persistent files are deleted is told.
func TestDefectN15FilesOfAForgottenNode(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	for name, told := range map[string]bool{"pc": true, "sw": false} {
		p.lines.take()
		p.do(t, newUser("alice"), "forget", name)
		if said := strings.Join(p.lines.take(), "\n"); strings.Contains(said, "and its persistent files") != told || !strings.Contains(said, "name="+name) {
			t.Errorf("after forget of %s: %q", name, said)
		}
	}
}

// TestDefectN14UnknownMAC: get_device_info of VSAPI answers None.
func TestDefectN14UnknownMAC(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	for mac, want := range map[string]string{"02:00:00:00:00:99": "", "x": "", "02:00:00:00:00:10": "pc", "6C:B0:CE:00:00:12": "sw"} {
		result, err := p.serve(t.Context(), &call{client: newUser(nil), api: "VSAPI"}, "get_device_info", pickle.Tuple{mac}, nil)
		name := ""
		if record, found := result.(*pickle.Dict); found {
			value, _ := record.Get("name")
			name = value.(string)
		}
		if err != nil || name != want {
			t.Errorf("get_device_info(%q) = %v, %v", mac, show(result), err)
		}
	}
}

// TestDefectN7SwitchesByTheirMAC: known vendors are recognized.
func TestDefectN7SwitchesByTheirMAC(t *testing.T) {
	p := start(t, nil)
	for _, mac := range []string{"6c:b0:ce:00:00:01", "28:c6:8e:00:00:02", "44:94:fc:00:00:03"} {
		p.register(t, registry.Sighting{MAC: mac})
		if d := p.registry.View().ByMAC(mac); d.Type != registry.Switch || d.Model != "netgear" || !strings.HasPrefix(d.Name, "switch-") {
			t.Errorf("%s is %+v", mac, d.Device)
		}
	}
}

// TestCN27OwnershipIsTheClientsBusiness: the server asks nothing more than 10.0 does.
func TestCN27OwnershipIsTheClientsBusiness(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	p.do(t, newUser("alice"), "get_clones_of_default_images", "pc")
	bob := newUser("bob")
	p.expectSteps(t, newUser("alice"), []step{{"set_image", []any{"pc", "pc-x86-64-default"}, "true", "out:Node pc will now boot pc-x86-64-default.\n"}})
	p.expectSteps(t, bob, []step{
		{"filter_ownership", []any{"pc"}, "((), (), (pc), ())", ""},
		{"rename", []any{"pc", "mine"}, "true", ""},
		{"set_image", []any{"mine", "default"}, "true", "out:Node mine will now boot its default image (other users will see it is 'free').\n"},
	})
}

// TestCN22FreeNodes: the set and the listing mean different things by free.
func TestCN22FreeNodes(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	d := p.registry.View().ByName("rpi").Device
	d.Image = "waltplatform/other:latest"
	p.store.images[d.Image] = true
	if err := p.locked(func() error { return p.saveDevices(t.Context(), d) }); err != nil {
		t.Fatal(err)
	}
	p.expectSteps(t, newUser("alice"), []step{
		{"develop_node_set", []any{"free-nodes"}, "pc", ""},
		{"filter_ownership", []any{"all-nodes"}, "((), (pc, rpi), (), ())", ""},
	})
}

func TestCN33NumericUserName(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	u := newUser(int64(12))
	p.do(t, u, "get_clones_of_default_images", "pc")
	u.said()
	p.expectSteps(t, u, []step{
		{"set_image", []any{"pc", "pc-x86-64-default"}, "true", "out:Node pc will now boot pc-x86-64-default.\n"},
		{"develop_node_set", []any{"my-nodes"}, "pc", ""},
		{"show_nodes", []any{int64(12), false, true}, "pc", ""},
		{"get_images_tabular_data", []any{int64(12), false, pickle.Tuple{"fullname"}}, "[(12/pc-x86-64-default:latest)]", ""},
	})
}

func TestCN35ValuesOfSettings(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	p.expectSteps(t, newUser("alice"), []step{
		{"set_device_config", []any{"pc", pickle.Tuple{"boot.timeout=60"}}, "None", "out:Done.\n"},
		{"set_device_config", []any{"pc", pickle.Tuple{"boot.retries=0", "kexec.allow=FALSE"}}, "None", "out:Done.\n"},
		{"set_device_config", []any{"pc", pickle.Tuple{"netsetup=nat", "boot.timeout=59"}}, "None",
			"err:Failed: A boot timeout of 59s is probably too small for some OS images.\n        Only \"none\" and values higher than 60 are allowed for this setting.\n"},
		{"get_device_config", []any{"pc"}, "None",
			"out:Node pc has the following config applied:\nboot.retries=0\nboot.timeout=60\nexpose=none\nkexec.allow=false\nmount.persist=true\nnetsetup=LAN\n\n"},
	})
}

// TestCN42Wait: the value is 0, True or False; no event is missed, and clients that leave
// are waited for no more.
func TestCN42Wait(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	u := newUser("alice")
	for range 200 { // a boot right at the time of the call
		p.registry.SetBooted("02:00:00:00:00:10", false)
		go p.bootChanged("192.168.152.10", true, false)
		result, err := p.do(t, u, "wait_for_nodes", "pc")
		if err != nil || result != true && result != int64(0) {
			t.Fatalf("wait_for_nodes = %v, %v", result, err)
		}
	}
	if result, err := p.do(t, u, "wait_for_nodes", "sw"); result != false || err != nil {
		t.Errorf("wait_for_nodes = %v, %v", result, err)
	}
	ctx, leave := context.WithCancel(t.Context())
	over := make(chan error)
	go func() {
		_, err := p.serve(ctx, &call{client: u, api: "CSAPI"}, "wait_for_nodes", pickle.Tuple{"rpi"}, nil)
		over <- err
	}()
	leave()
	if err := <-over; err == nil {
		t.Error("a wait outlives its client")
	}
	// A node that is forgotten meanwhile is not waited for.
	go func() {
		_, err := p.serve(t.Context(), &call{client: u, api: "CSAPI"}, "wait_for_nodes", pickle.Tuple{"rpi"}, nil)
		over <- err
	}()
	p.do(t, newUser("alice"), "forget", "rpi")
	if err := <-over; err != nil {
		t.Error(err)
	}
}

// TestSyncClockAnswersAtASecond: a node that sets its clock when it is answered is right.
func TestSyncClockAnswersAtASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, nil)
		for _, pause := range []time.Duration{time.Millisecond, 999 * time.Millisecond, 0} {
			time.Sleep(pause)
			asked := time.Now()
			result, err := p.serve(t.Context(), &call{client: newUser(nil), api: "NSAPI"}, "sync_clock", nil, nil)
			now := time.Now()
			if err != nil || result != now.Unix() || now.Nanosecond() != 0 || now.Sub(asked) > time.Second {
				t.Errorf("sync_clock = %v, %v at %v", result, err, now)
			}
		}
	})
}

// TestDHCPRegistrations: the rules by which devices come and change (server-state §2.3).
func TestDHCPRegistrations(t *testing.T) {
	p := start(t, nil)
	p.lines.take()
	see := func(s registry.Sighting, want string, lines ...string) {
		t.Helper()
		p.register(t, s)
		d := p.registry.View().ByMAC(lowerMAC(s.MAC))
		if got := fmt.Sprint(d.Name, " ", d.Type, " ", d.Model, " ", d.IP); got != want {
			t.Errorf("%+v is %s, want %s", s, got, want)
		}
		p.expectLines(t, fmt.Sprint(s), lines...)
	}
	see(registry.Sighting{MAC: "02:00:00:18:D5:5D"}, "unknown-18d55d unknown  ",
		"platform.devices: new device name=unknown-18d55d type=unknown mac=02:00:00:18:d5:5d ip=None")
	see(registry.Sighting{MAC: "02:00:00:18:d5:5d", IP: "10.1.1.1"}, "unknown-18d55d unknown  10.1.1.1")
	see(registry.Sighting{MAC: "02:00:00:18:d5:5d", IP: "10.1.1.2"}, "unknown-18d55d unknown  10.1.1.1")
	see(registry.Sighting{MAC: "02:00:00:18:d5:5d", IP: "192.168.152.33"}, "unknown-18d55d unknown  192.168.152.33")
	see(registry.Sighting{MAC: "02:00:00:18:d5:5d", VCI: "walt.node.rpi-b", IP: "192.168.152.34", Name: "new"}, "node-18d55d node rpi-b 192.168.152.34",
		"platform.devices: renamed unknown-18d55d to node-18d55d for clarity",
		"platform.devices: new node (device type previously unknown) name=node-18d55d model=rpi-b mac=02:00:00:18:d5:5d ip=192.168.152.34")
	see(registry.Sighting{MAC: "02:00:00:18:d5:5d", VCI: "walt.node.rpi-b", IP: "192.168.152.35"}, "node-18d55d node rpi-b 192.168.152.34")
	see(registry.Sighting{MAC: "02:00:00:00:00:02", IP: "192.168.152.2", Name: "my lab_PC.example.org"}, "my-lab-PC unknown  192.168.152.2",
		"platform.devices: new device name=my-lab-PC type=unknown mac=02:00:00:00:00:02 ip=192.168.152.2")
	see(registry.Sighting{MAC: "02:00:00:00:00:03", Name: "my-lab-PC"}, "unknown-000003 unknown  ",
		"platform.devices: new device name=unknown-000003 type=unknown mac=02:00:00:00:00:03 ip=None")
	see(registry.Sighting{MAC: "03:00:00:00:00:03", Name: "7x"}, "unknown-000003-2 unknown  ",
		"platform.devices: new device name=unknown-000003-2 type=unknown mac=03:00:00:00:00:03 ip=None")
	if stored := p.store.all["02:00:00:18:d5:5d"]; stored.IP != "192.168.152.34" || stored.Type != registry.Node {
		t.Errorf("stored %+v", stored)
	}
}

// loopback makes the platform one whose devices are addresses of this machine.
func loopback(t *testing.T) func(*Config) {
	return func(c *Config) {
		site, err := hcl.ParseSite([]byte("network \"walt-net\" { ip = \"127.0.0.5/24\" }\n"), "walt.hcl")
		if err != nil {
			t.Fatal(err)
		}
		c.Site, c.Registry = site, registry.New(site.Server())
	}
}

// echo is a device that says hello, then sends back what it gets.
func echo(t *testing.T, ip string) (port int) {
	ln, err := net.Listen("tcp4", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.WriteString(conn, "hello\n")
				io.Copy(conn, conn)
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}

// freePort is a TCP port that nothing listens on.
func freePort(t *testing.T) int {
	ln, err := net.Listen("tcp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// TestExposedDevices follows redirects from the setting to the forgetting of the device.
func TestExposedDevices(t *testing.T) {
	p := start(t, loopback(t))
	p.register(t, registry.Sighting{MAC: "02:00:00:00:00:10", IP: "127.0.0.9", Name: "cam"})
	p.register(t, registry.Sighting{MAC: "02:00:00:00:00:11", IP: "127.0.0.10", Name: "other"})
	u := newUser("alice")
	device, first, second := echo(t, "127.0.0.9"), freePort(t), freePort(t)
	config := func(name, value, said string) {
		t.Helper()
		p.expectSteps(t, u, []step{{"set_device_config", []any{name, pickle.Tuple{"expose=" + value}}, "None", said}})
	}
	open := func(port int) *bufio.ReadWriter {
		t.Helper()
		conn, err := net.Dial("tcp4", fmt.Sprint("127.0.0.1:", port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		rw := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
		if line, err := rw.ReadString('\n'); line != "hello\n" {
			t.Fatalf("got %q, %v", line, err)
		}
		rw.WriteString("again\n")
		rw.Flush()
		if line, err := rw.ReadString('\n'); line != "again\n" {
			t.Fatalf("got %q, %v", line, err)
		}
		return rw
	}
	closed := func(port int) {
		t.Helper()
		if conn, err := net.Dial("tcp4", fmt.Sprint("127.0.0.1:", port)); err == nil {
			conn.Close()
			t.Errorf("port %d is still open", port)
		}
	}
	config("cam", fmt.Sprintf("%d:%d", device, first), "out:Done.\n")
	kept, cut := open(first), open(first)
	config("other", fmt.Sprintf("80:%d", first), fmt.Sprintf("err:Failed: server port '%d' is already used for another redirect.\n", first))
	taken := echo(t, "0.0.0.0")
	config("other", fmt.Sprintf("80:%d", taken), fmt.Sprintf("err:Failed: cannot use server port '%d': Address already in use.\n", taken))
	config("cam,other", "80:8080", "err:Failed: cannot expose the same server port for several devices.\n")

	// The redirect that stays is not disturbed by one that comes.
	config("cam", fmt.Sprintf("%d:%d,%d:%d", device, first, 1, second), "out:Done.\n")
	kept.WriteString("still\n")
	kept.Flush()
	if line, err := kept.ReadString('\n'); line != "still\n" {
		t.Errorf("got %q, %v", line, err)
	}
	if conn, err := net.Dial("tcp4", fmt.Sprint("127.0.0.1:", second)); err != nil {
		t.Error(err)
	} else if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil { // nothing listens on port 1 of the device
		t.Errorf("read %d, %v", n, err)
	}

	// Forgetting the device closes its ports, and all of their connections.
	p.expectSteps(t, u, []step{{"forget", []any{"cam"}, "true", ""}})
	if err := p.exposes.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, rw := range []*bufio.ReadWriter{kept, cut} {
		if line, err := rw.ReadString('\n'); err == nil {
			t.Errorf("a connection goes on: %q", line)
		}
	}
	closed(first)
	closed(second)
	config("other", fmt.Sprintf("80:%d", first), "out:Done.\n")
	config("other", "none", "out:Done.\n")
	closed(first)
}

// TestExposesAreRestored: redirects are there again when the daemon starts; a port that
// cannot be opened is reported and holds up nothing.
func TestExposesAreRestored(t *testing.T) {
	device, port, taken := echo(t, "127.0.0.9"), freePort(t), echo(t, "0.0.0.0")
	p := start(t, func(c *Config) {
		loopback(t)(c)
		store := c.Store.(*memory)
		store.all["02:00:00:00:00:10"] = db.Device{MAC: "02:00:00:00:00:10", IP: "127.0.0.9", Name: "cam", Type: registry.Unknown,
			Conf: map[string]any{"expose": fmt.Sprintf("%d:%d,%d:%d", device, port, device+1, taken)}}
	})
	p.exposes.poke()
	if err := p.exposes.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp4", fmt.Sprint("127.0.0.1:", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "hello\n" {
		t.Errorf("got %q, %v", line, err)
	}
	want := fmt.Sprintf("platform.expose: cannot redirect server port %d to 127.0.0.9:%d: Address already in use", taken, device+1)
	if got := p.lines.take(); !slices.Contains(got, want) {
		t.Errorf("logged %q", got)
	}
}

// TestPortConfig: every text of client-api §2.10.7 and the checks before it.
func TestPortConfig(t *testing.T) {
	p, _ := startPowered(t)
	p.tables.setOff(db.PoEOff{MAC: switchMAC, Port: 3, Reason: "powersave"})
	p.tables.setOff(db.PoEOff{MAC: switchMAC, Port: 9, Reason: "hard-reboot"})
	u := newUser("alice")
	set := func(port int64, arg, said string) step {
		return step{"set_port_config", []any{"sw", port, pickle.Tuple{arg}}, "None", said}
	}
	const confusing = "err:Failed: to avoid confusion, the only integer allowed for this port name is \"7\", the ID of the port in the switch.\n"
	const badName = "err:Failed: the port name can only be made of digits, letters, and dashes (minus signs).\n"
	p.expectSteps(t, u, []step{
		set(7, "x", "err:"+text.NeedSettings),
		set(7, "x=1", "err:Failed: the only writable config item is `name=<port-name>`.\n"),
		set(7, "name=", badName),
		set(7, "name=a_b", badName),
		set(7, "name=8", confusing),
		set(7, "name=-7", confusing),
		set(7, "name=77777777777777777777777", confusing),
		set(7, "name=SR-7", "out:Done.\n"),
		{"set_port_config", []any{"x", int64(7), pickle.Tuple{"name=a"}}, "None", "err:No device with name 'x' found.\n"},
		{"set_port_config", []any{"n1", int64(7), pickle.Tuple{"name=a"}}, "None", "err:Failed: n1 is not a switch.\n"},
		{"set_port_config", []any{"far", int64(7), pickle.Tuple{"name=a"}}, "None",
			"err:Failed: cannot detect switch ports of far because \"lldp.explore\" config option is not enabled.\nSee: walt help show device-config\n"},
		{"get_port_config", []any{"sw"}, "None", "out:WalT currently uses the following ports of sw:\n" +
			"out:1: name=\"1\" poe=on peer=n1\nout:2: name=\"2\" poe=on peer=n2\nout:3: name=\"3\" poe=off peer=n3  # powersave\n" +
			"out:7: name=\"SR-7\" poe=on peer=unknown\nout:9: name=\"9\" poe=off peer=unknown  # hard-reboot\n" +
			"out:The other switch ports are in their default configuration.\n"},
		{"get_port_config", []any{"sw", int64(2)}, "None", "out:Port 2 of sw has the following config:\nout:2: name=\"2\" poe=on peer=n2\n"},
		set(7, "name=07", "out:Done.\n"), // the number itself: the name is erased
		{"get_port_config", []any{"sw", int64(7)}, "None", "out:Port 7 of sw has the following config:\nout:7: name=\"7\" poe=on peer=unknown\n"},
	})
}

// TestHangup: what others have written in the database is read again.
func TestHangup(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	// The signal may come before anyone waits for it, hence it is ignored until then.
	signal.Ignore(syscall.SIGHUP)
	defer signal.Reset(syscall.SIGHUP)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan bool)
	go func() { p.reloadOnHangup(ctx); close(ended) }()
	p.store.mu.Lock()
	d := p.store.all["02:00:00:00:00:10"]
	d.Name = "renamed"
	p.store.all[d.MAC] = d
	p.store.mu.Unlock()
	for v := p.registry.View(); v.ByName("renamed") == nil; v = p.registry.View() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		select {
		case <-v.Superseded():
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel()
	<-ended
}
