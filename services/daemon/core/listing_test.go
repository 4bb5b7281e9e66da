package core

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/db"
)

func nodesOf(count int) *registry.View {
	r := registry.New(netip.MustParsePrefix("10.0.0.1/8"))
	for i := range count {
		r.Put(db.Device{
			MAC: fmt.Sprintf("02:00:00:%02x:%02x:%02x", i>>16, i>>8&255, i&255), IP: fmt.Sprintf("10.1.%d.%d", i>>8, i&255),
			Name: fmt.Sprintf("node-%d", i), Type: registry.Node, Model: "pc-x86-64", Image: fmt.Sprintf("user%d/image:latest", i%10),
		})
	}
	return r.View()
}

func TestListNodes(t *testing.T) {
	bold := func(title string) string { return "\n\x1b[1m" + title + "\n\x1b[0m\n" }
	r := registry.New(netip.MustParsePrefix("192.168.152.1/24"))
	r.Put(
		db.Device{MAC: "52:54:00:00:00:01", IP: "192.168.152.10", Name: "vn1", Type: registry.Node, Virtual: true, Model: "pc-x86-64",
			Image: "alice/myimg:latest", Conf: map[string]any{"netsetup": int64(1)}},
		db.Device{MAC: "02:00:00:00:00:02", IP: "192.168.152.14", Name: "rpi3", Type: registry.Node, Model: "rpi-b", Image: "alice/rpi:v2"},
	)
	r.SetBooted("52:54:00:00:00:01", true)
	own := bold("You currently own the following nodes:") +
		"name  type      model      image   ip              netsetup  booted\n" +
		"----  --------  ---------  ------  --------------  --------  ------\n" +
		"rpi3  physical  rpi-b      rpi:v2  192.168.152.14  LAN       NO    \n" +
		"vn1   virtual   pc-x86-64  myimg   192.168.152.10  NAT       yes   \n\n"
	const help = "Type `walt help show node-ownership` for help."
	// CN-19: a title longer than every cell is cut.
	others := bold("The following nodes currently belong to other users:") +
		"name  type      model      image-owner  clonable-image-li  ip              netsetup  booted\n" +
		"----  --------  ---------  -----------  -----------------  --------------  --------  ------\n" +
		"rpi3  physical  rpi-b      alice        walt:alice/rpi:v2  192.168.152.14  LAN       NO    \n" +
		"vn1   virtual   pc-x86-64  alice        walt:alice/myimg   192.168.152.10  NAT       yes   \n\n"
	tests := []struct {
		user string
		all  bool
		want string
	}{
		{"alice", false, own + "Re-run with --all to see all available nodes.\n" + help},
		{"alice", true, own + "No other nodes were detected (apart from the ones listed above).\n" + help},
		{"bob", false, "You currently do not own any nodes.\nRe-run with --all to see all available nodes.\n" + help},
		{"bob", true, others + help},
	}
	for _, test := range tests {
		if got := listNodes(r.View(), test.user, test.all); got != test.want {
			t.Errorf("%s, %v:\n%s\nwant\n%s", test.user, test.all, got, test.want)
		}
	}
	if got := listNodes(registry.New(r.View().Network).View(), "bob", true); got != "No nodes detected!\n"+help {
		t.Errorf("an empty platform: %q", got)
	}
}

func TestListDevices(t *testing.T) {
	r := registry.New(netip.MustParsePrefix("192.168.152.1/24"))
	r.Put(
		db.Device{MAC: "02:00:00:00:00:01", IP: "192.168.152.1", Name: "walt-server", Type: registry.Server},
		db.Device{MAC: "52:54:00:00:00:02", IP: "192.168.152.10", Name: "vn", Type: registry.Node, Virtual: true},
		db.Device{MAC: "02:00:00:00:00:03", IP: "10.0.0.1", Name: "far", Type: registry.Node},
		db.Device{MAC: "02:00:00:00:00:04", Name: "x", Type: registry.Unknown},
	)
	want := "\n\x1b[1mThe WalT network contains the following devices:\n\x1b[0m\n" +
		"name         ip              mac                type             netsetup\n" +
		"-----------  --------------  -----------------  ---------------  --------\n" +
		"far          10.0.0.1        02:00:00:00:00:03  node (physical)          \n" +
		"vn           192.168.152.10  52:54:00:00:00:02  node (virtual)   LAN     \n" +
		"walt-server  192.168.152.1   02:00:00:00:00:01  server                   \n\n" +
		"tips:\n- use 'walt device tree' for a tree view of the network\n" +
		"- use 'walt device forget <device_name>' to make WalT forget about an obsolete device\n\n" +
		"\n\x1b[1mWalT also detected the following devices but could not detect their type:\n\x1b[0m\n" +
		"name  mac                type   \n" +
		"----  -----------------  -------\n" +
		"x     02:00:00:00:00:04  unknown\n\n" +
		"If one of them is actually a switch, use 'walt device config <name> type=switch' to fix this.\n\n"
	if got := listDevices(r.View()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestCN21VPNNodes: node show tells virtual machines and nodes of the VPN by other rules
// than device show.
func TestCN21VPNNodes(t *testing.T) {
	r := registry.New(netip.MustParsePrefix("192.168.152.1/24"))
	for mac, want := range map[string][2]string{
		"52:54:00:00:00:02": {"physical", "node (vpn)"},
		"02:00:00:00:00:03": {"physical", "node (physical)"},
	} {
		r.Put(db.Device{MAC: mac, Name: "n", Type: registry.Node, Image: "alice/a:latest"})
		d := r.View().ByMAC(mac)
		if got := [2]string{d.Kind(), d.TypeText()}; got != want {
			t.Errorf("%s: %q, want %q", mac, got, want)
		}
	}
	r.Put(db.Device{MAC: "02:00:00:00:00:04", Name: "v", Type: registry.Node, Virtual: true})
	if d := r.View().ByName("v"); d.Kind() != "vpn" || d.TypeText() != "node (virtual)" {
		t.Errorf("a virtual node with another MAC: %q, %q", d.Kind(), d.TypeText())
	}
}

// TestCN20StableOrder: lists are sorted, whatever the order in which they were filled.
func TestCN20StableOrder(t *testing.T) {
	names := []string{"b", "a", "C", "a-2", "a1"}
	want := ""
	for i := range names {
		r := registry.New(netip.MustParsePrefix("192.168.152.1/24"))
		for j := range names {
			name := names[(i+j)%len(names)]
			r.Put(db.Device{MAC: "02:00:00:00:00:0" + string(rune('1'+(i+j)%len(names))), Name: name, Type: registry.Node, Image: "alice/x:latest"})
		}
		got := listNodes(r.View(), "alice", true) + listDevices(r.View())
		if want == "" {
			want = got
		}
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

func TestListImages(t *testing.T) {
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	all := []*image{
		{User: "alice", Name: "a", Models: []string{"rpi-b", "rpi-2-b"}, Created: created, InUse: true},
		{User: "bob", Name: "b:v1", Created: created},
		{User: "waltplatform", Name: "rpi-b-default", Created: created},
	}
	bold := func(title string) string { return "\n\x1b[1m" + title + "\n\x1b[0m\n" }
	own := bold("Your working set is made of the following images:") +
		"name  in-use  created              compatibility\n" +
		"----  ------  -------------------  -------------\n" +
		"a     True    2026-01-02 03:04:05  rpi-[b|2-b]  \n\n"
	rest := bold("Other users of this platform have created the following images:") +
		"user  name  created              clonable-link\n" +
		"----  ----  -------------------  -------------\n" +
		"bob   b:v1  2026-01-02 03:04:05  walt:bob/b:v1\n\n" +
		bold("The following are default OS images:") +
		"name           created              clonable-link                  \n" +
		"-------------  -------------------  -------------------------------\n" +
		"rpi-b-default  2026-01-02 03:04:05  walt:waltplatform/rpi-b-default\n\n"
	const search = "Use 'walt image search [<keyword>]' to search for images\non remote registries."
	const clone = "Use 'walt image clone <clonable_link>' to clone an image\ninto your working set.\n"
	const more = "Re-run with --all to see all OS images on this platform."
	tests := []struct {
		images  []*image
		user    string
		showAll bool
		want    string
	}{
		{all, "alice", false, own + more},
		{all, "alice", true, own + rest + clone + search},
		{all[:1], "alice", false, own},
		{all[:1], "alice", true, own + search},
		{all, "carol", false, "Your working set is empty.\n" + more},
		{nil, "carol", false, "Your working set is empty."},
		{nil, "carol", true, "No OS images found!"},
	}
	for _, test := range tests {
		if got := listImages(test.images, test.user, test.showAll); got != test.want {
			t.Errorf("%d images, %s, %v:\n%s\nwant\n%s", len(test.images), test.user, test.showAll, got, test.want)
		}
	}
}

func BenchmarkListNodes(b *testing.B) {
	for _, count := range []int{1, 200, 10000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			v := nodesOf(count)
			for b.Loop() {
				listNodes(v, "user1", true)
			}
		})
	}
}
