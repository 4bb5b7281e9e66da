package registry

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/waltos/waltos/services/daemon/db"
)

func platform() *Registry {
	r := New(netip.MustParsePrefix("192.168.152.1/24"))
	r.Put(
		db.Device{MAC: "02:00:00:00:00:01", IP: "192.168.152.1", Name: "walt-server", Type: Server},
		db.Device{MAC: "02:00:00:00:00:02", IP: "192.168.152.2", Name: "vn1", Type: Node, Model: "pc-x86-64",
			Image: "alice/img:latest"},
		db.Device{MAC: "02:00:00:00:00:03", IP: "192.168.152.3", Name: "rpi", Type: Node, Model: "rpi-b",
			Image: "waltplatform/rpi-b-default:latest"},
		db.Device{MAC: "02:00:00:00:00:04", IP: "192.168.152.4", Name: "odd", Type: Node, Model: "rpi-b",
			Image: "waltplatform/other:latest"},
		db.Device{MAC: "02:00:00:00:00:05", IP: "10.0.0.5", Name: "sw", Type: Switch,
			Conf: map[string]any{"lldp.explore": true}},
		db.Device{MAC: "02:00:00:00:00:06", Name: "unknown-000006", Type: Unknown},
	)
	return r
}

func alice() (string, error) { return "alice", nil }

func TestResolve(t *testing.T) {
	v := platform().View()
	tests := []struct {
		set, allowed string
		want         string // names, or the refusal
	}{
		{"server", "", "walt-server"},
		{"my-nodes", "", "vn1"},
		{"all-nodes", "", "odd rpi vn1"},
		{"free-nodes", "", "rpi"},
		{"all-switches", "", "sw"},
		{"explorable-switches", "", "sw"},
		{"all-devices", "", "odd rpi sw unknown-000006 vn1 walt-server"},
		{"vn1,rpi,vn1,my-nodes", "", "rpi vn1"},
		{"x", "", "No device with name 'x' found.\n"},
		{"", "", "No device with name '' found.\n"},
		{"vn1,,x", "", "No device with name '' found.\n"},
		{"vn1,sw", "server,all-nodes", "Invalid value 'vn1,sw'; allowed devices belong to 'server,all-nodes'\n"},
		{"server,vn1", "server,all-nodes", "vn1 walt-server"},
	}
	for _, test := range tests {
		devices, err := v.ResolveWithin(test.set, test.allowed, alice)
		got := strings.Join(Names(devices), " ")
		if err != nil {
			got = err.Error() + "\n"
		}
		if got != test.want {
			t.Errorf("ResolveWithin(%q, %q) = %q, want %q", test.set, test.allowed, got, test.want)
		}
	}
	nobody := func() (string, error) { return "bob", nil }
	if _, err := v.Resolve("my-nodes", nobody); err == nil || !strings.HasPrefix(err.Error(), "No matching devices found!") {
		t.Errorf("an empty set gives %v", err)
	}
	if _, err := v.ResolveNodes("all-devices", alice); err == nil || err.Error() != "sw is not a node, it is a switch." {
		t.Errorf("a switch in a node set gives %v", err)
	}
	gone := errors.New("gone")
	if _, err := v.Resolve("rpi,my-nodes", func() (string, error) { return "", gone }); err != gone {
		t.Errorf("a client that left gives %v", err)
	}
	if _, err := New(v.Network).View().ResolveWithin("my-nodes", "all-nodes", alice); err == nil {
		t.Error("an empty platform resolves")
	}
}

func TestNodesAreSortedByOwnerThenName(t *testing.T) {
	if got, want := Names(platform().View().Nodes()), []string{"vn1", "odd", "rpi"}; !reflect.DeepEqual(got, want) {
		t.Errorf("Nodes = %q, want %q", got, want)
	}
}

func TestInNetwork(t *testing.T) {
	v := platform().View()
	for ip, want := range map[string]bool{
		"192.168.152.0": false, "192.168.152.255": false, "192.168.152.254": true, "192.168.153.1": false, "": false, "x": false,
	} {
		if got := v.InNetwork(ip); got != want {
			t.Errorf("InNetwork(%q) = %v", ip, got)
		}
	}
	if got := v.Netmask(); got != "255.255.255.0" {
		t.Errorf("Netmask = %q", got)
	}
}

func TestRegister(t *testing.T) {
	none := func(string) bool { return false }
	all := func(string) bool { return true }
	tests := []struct {
		name  string
		seen  Sighting
		has   func(string) bool
		want  db.Device
		lines []string
	}{
		{"new node", Sighting{UCI: "walt.node.pc-x86-64", IP: "192.168.152.9", MAC: "52:54:00:F2:67:82", Name: "kitchen.walt"}, all,
			db.Device{MAC: "52:54:00:f2:67:82", IP: "192.168.152.9", Name: "kitchen", Type: Node, Model: "pc-x86-64",
				Image: "waltplatform/pc-x86-64-default:latest"},
			[]string{"new node name=kitchen model=pc-x86-64 mac=52:54:00:f2:67:82 ip=192.168.152.9"}},
		{"user class has priority", Sighting{VCI: "walt.node.a", UCI: "walt.node.b", MAC: "52:54:00:f2:67:82"}, all,
			db.Device{MAC: "52:54:00:f2:67:82", Name: "node-f26782", Type: Node, Model: "b", Image: "waltplatform/b-default:latest"},
			[]string{"new node name=node-f26782 model=b mac=52:54:00:f2:67:82 ip=None"}},
		{"node without image", Sighting{VCI: "walt.node.rpi-b", IP: "192.168.152.9", MAC: "52:54:00:f2:67:82"}, none,
			db.Device{MAC: "52:54:00:f2:67:82", IP: "192.168.152.9", Name: "unknown-f26782", Type: Unknown},
			[]string{"new device name=unknown-f26782 type=unknown mac=52:54:00:f2:67:82 ip=192.168.152.9"}},
		{"known switch vendor, name taken", Sighting{MAC: "6c:b0:ce:00:00:01", Name: "vn1"}, none,
			db.Device{MAC: "6c:b0:ce:00:00:01", Name: "switch-000001", Type: Switch, Model: "netgear"},
			[]string{"new switch name=switch-000001 model=netgear mac=6c:b0:ce:00:00:01 ip=None"}},
		{"unknown becomes node", Sighting{UCI: "walt.node.rpi-b", IP: "192.168.152.9", MAC: "02:00:00:00:00:06"}, all,
			db.Device{MAC: "02:00:00:00:00:06", IP: "192.168.152.9", Name: "node-000006", Type: Node, Model: "rpi-b",
				Image: "waltplatform/rpi-b-default:latest"},
			[]string{"renamed unknown-000006 to node-000006 for clarity",
				"new node (device type previously unknown) name=node-000006 model=rpi-b mac=02:00:00:00:00:06 ip=192.168.152.9"}},
		{"address from outside the network", Sighting{IP: "192.168.152.77", MAC: "02:00:00:00:00:05"}, none,
			db.Device{MAC: "02:00:00:00:00:05", IP: "192.168.152.77", Name: "sw", Type: Switch}, nil},
		{"known address stays", Sighting{IP: "192.168.152.99", MAC: "02:00:00:00:00:02"}, none,
			db.Device{MAC: "02:00:00:00:00:02", IP: "192.168.152.2", Name: "vn1", Type: Node, Model: "pc-x86-64",
				Image: "alice/img:latest"}, nil},
	}
	v := platform().View()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := v.Register(test.seen, test.has)
			if err != nil {
				t.Fatal(err)
			}
			c.Device.Conf = nil
			if !reflect.DeepEqual(c.Device, test.want) {
				t.Errorf("device %+v\nwant %+v", c.Device, test.want)
			}
			if !slices.Equal(c.Lines, test.lines) {
				t.Errorf("lines %q\nwant %q", c.Lines, test.lines)
			}
		})
	}
	for _, bad := range []Sighting{{MAC: "x"}, {MAC: ""}, {MAC: "02:00:00:00:00:09", IP: "fe80::1"}, {MAC: "02:00:00:00:00:09", IP: "1.2"}} {
		if _, err := v.Register(bad, all); err == nil {
			t.Errorf("Register(%+v) is accepted", bad)
		}
	}
}

func TestAutomaticNamesDiffer(t *testing.T) {
	r := platform()
	if got := r.View().AutomaticName(Unknown, "03:00:00:00:00:06"); got != "unknown-000006-2" {
		t.Errorf("AutomaticName = %q", got)
	}
}

func TestCheckNewName(t *testing.T) {
	v := platform().View()
	for name, want := range map[string]string{
		"rpi-D327": "", "vn1": "Failed: a device with name 'vn1' already exists.", "a": "Failed: invalid new name.",
		"1a": "Failed: invalid new name.", "a_b": "Failed: invalid new name.", "ab\n": "Failed: invalid new name.",
		"all-nodes": "Failed: invalid new name.",
	} {
		got := ""
		if err := v.CheckNewName(name); err != nil {
			got, _, _ = strings.Cut(err.Error(), "\n")
		}
		if got != want {
			t.Errorf("CheckNewName(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestCheckImageName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "a-b:v2": true, "default": false, "a:": false, ":a": false, "a:b:c": false, "A": false, "": false, "a_b": false,
	} {
		if got := CheckImageName(name) == nil; got != want {
			t.Errorf("CheckImageName(%q) = %v", name, got)
		}
	}
}

func TestBootStateOutlivesChanges(t *testing.T) {
	r := platform()
	mac := "02:00:00:00:00:02"
	before := r.View()
	if !r.SetBooted(mac, true) || r.SetBooted(mac, true) || r.SetBooted("no", true) {
		t.Error("SetBooted does not tell what is a change")
	}
	d := r.View().ByMAC(mac).Device
	d.Name = "other"
	r.Put(d)
	if after := r.View().ByName("other"); after == nil || !after.Booted || r.View().ByName("vn1") != nil {
		t.Errorf("after a rename: %+v", after)
	}
	if before.ByMAC(mac).Booted || before.ByName("vn1") == nil {
		t.Error("a view has changed")
	}
	r.Delete(mac)
	if r.View().ByMAC(mac) != nil {
		t.Error("a deleted device is still there")
	}
}

func TestTypeTexts(t *testing.T) {
	for _, test := range []struct {
		mac        string
		virtual    bool
		kind, text string
	}{
		{"52:54:00:00:00:01", true, "virtual", "node (virtual)"},
		{"02:54:00:00:00:01", true, "vpn", "node (virtual)"},
		{"52:54:00:00:00:01", false, "physical", "node (vpn)"},
		{"02:54:00:00:00:01", false, "physical", "node (physical)"},
	} {
		d := &Device{Device: db.Device{MAC: test.mac, Virtual: test.virtual, Type: Node}}
		if d.Kind() != test.kind || d.TypeText() != test.text {
			t.Errorf("%+v: %q, %q", test, d.Kind(), d.TypeText())
		}
	}
}

func TestTextOfViewIsWrittenOnce(t *testing.T) {
	r := platform()
	written := 0
	write := func(v *View) string { written++; return fmt.Sprint(v.ByName("vn1").Booted) }
	for _, want := range []string{"false", "false"} {
		if got := r.View().Text("key", write); got != want || written != 1 {
			t.Errorf("got %q, written %d times", got, written)
		}
	}
	r.SetBooted("02:00:00:00:00:02", true)
	if got := r.View().Text("key", write); got != "true" {
		t.Errorf("after a boot: %q", got)
	}
	v := r.View()
	for i := range 10 * maxMemo {
		v.Text(i, write)
	}
	if len(v.texts.texts) > maxMemo {
		t.Errorf("%d texts are kept", len(v.texts.texts))
	}
}

// BenchmarkBoot is the boot of one of 10,000 nodes, looked up by its address.
func BenchmarkBoot(b *testing.B) {
	const nodes = 10_000
	r := New(netip.MustParsePrefix("10.0.0.1/8"))
	devices := make([]db.Device, nodes)
	for i := range devices {
		devices[i] = db.Device{MAC: fmt.Sprintf("02:00:00:00:%02x:%02x", i>>8, i&0xff), IP: fmt.Sprintf("10.1.%d.%d", i>>8, i&0xff),
			Name: fmt.Sprint("node", i), Type: Node, Image: "waltplatform/pc-x86-64-default:latest"}
	}
	r.Replace(devices)
	booted := true
	for n := 0; b.Loop(); n++ {
		if n%nodes == 0 && n > 0 {
			booted = !booted
		}
		d := r.View().ByIP(devices[n%nodes].IP)
		if !r.SetBooted(d.MAC, booted) {
			b.Fatal("it was already")
		}
	}
}

// TestDefectS10AddressesInsideTheNetwork: a switch that is given another address of
// walt-net is not lost; the address of a node never changes.
func TestDefectS10AddressesInsideTheNetwork(t *testing.T) {
	r := platform()
	r.Put(db.Device{MAC: "02:00:00:00:00:0a", IP: "192.168.152.20", Name: "sw2", Type: Switch})
	for _, test := range []struct{ mac, ip, want string }{
		{"02:00:00:00:00:0a", "192.168.152.21", "192.168.152.21"},
		{"02:00:00:00:00:0a", "192.168.152.2", "192.168.152.20"}, // of another device
		{"02:00:00:00:00:0a", "10.0.0.9", "192.168.152.20"},
		{"02:00:00:00:00:0a", "192.168.152.255", "192.168.152.20"},
		{"02:00:00:00:00:0a", "", "192.168.152.20"},
		{"02:00:00:00:00:02", "192.168.152.22", "192.168.152.2"}, // a node
		{"02:00:00:00:00:01", "192.168.152.22", "192.168.152.1"}, // the server
	} {
		c, err := r.View().Register(Sighting{MAC: test.mac, IP: test.ip}, func(string) bool { return true })
		if err != nil || c.Device.IP != test.want || c.Changed != (test.ip == test.want) {
			t.Errorf("%s seen at %q is at %q (changed: %v), %v; want %q", test.mac, test.ip, c.Device.IP, c.Changed, err, test.want)
		}
	}
}

// FuzzRegister: whatever a device says of itself, its name is valid and its own.
func FuzzRegister(f *testing.F) {
	f.Add("walt.node.rpi-b", "", "192.168.152.9", "02:00:00:00:00:99", "kitchen.example.org")
	f.Add("", "walt.node", "", "6c:b0:ce:00:00:01", "server")
	f.Add("x", "y", "fe80::1", "02-00-00-00-00-99", "vn1")
	v := platform().View()
	f.Fuzz(func(t *testing.T, vci, uci, ip, mac, name string) {
		for _, known := range []bool{true, false} {
			c, err := v.Register(Sighting{VCI: vci, UCI: uci, IP: ip, MAC: mac, Name: name}, func(string) bool { return known })
			if err != nil {
				continue
			}
			if !ValidName(c.Device.Name) {
				t.Fatalf("a device named %q", c.Device.Name)
			}
			if other := v.ByName(c.Device.Name); other != nil && other.MAC != c.Device.MAC {
				t.Fatalf("two devices named %q", c.Device.Name)
			}
			if c.Device.Type == Node && c.Device.Image == "" {
				t.Fatalf("a node without image: %+v", c.Device)
			}
		}
	})
}
