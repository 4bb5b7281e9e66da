package network

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/internal/nettest"
)

func TestParse(t *testing.T) {
	for text, want := range map[string][]Spec{
		"walt-net":                         {{Name: "walt-net"}},
		"a-b,walt-net[lat=8ms,bw=100Mbps]": {{Name: "a-b"}, {"walt-net", 8 * time.Millisecond, 100}},
		"walt-net[BW=2GBPS],b[Lat=5US]":    {{"walt-net", 0, 2000}, {"b", 5 * time.Microsecond, 0}},
	} {
		if got, err := Parse(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q has the networks %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "home", "walt-net,walt-net", "walt-net,", "walt-net,Home", "walt-net[]", "walt-net[x]", "walt-net[lat=1s]",
		"walt-net[lat=1ms", "walt-net[bw=1]", "walt-net[lat=99999999ms]", "walt-net,0a", "walt-net,abcdefghijklmnop", "walt-net,a b", "walt-net,a/b",
		"walt-net" + strings.Repeat(",a", 30)} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%q was accepted as %v", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"walt-net", "walt-net,home[lat=8ms,bw=1Gbps]", "walt-net[]"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		specs, err := Parse(text)
		if err != nil {
			return
		}
		for _, s := range specs {
			if s.Name == "" || len(s.Name) > maxName || s.Bandwidth < 0 || s.Latency < 0 || filepath.Base(s.Name) != s.Name {
				t.Errorf("%q has network %v", text, s)
			}
		}
	})
}

// enter is nettest.Enter for tests that need taps.
func enter(t *testing.T) bool {
	t.Helper()
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("this machine lets this user make no taps: %v", err)
	}
	f.Close()
	return nettest.Enter(t)
}

func addBridge(t *testing.T, name string) netlink.Link {
	t.Helper()
	b := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	b.Name = name
	if err := netlink.LinkAdd(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// names returns those of all interfaces but the loopback.
func names(t *testing.T) []string {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, l := range links {
		if l.Attrs().Name != "lo" {
			found = append(found, l.Attrs().Name)
		}
	}
	slices.Sort(found)
	return found
}

func specs(t *testing.T, text string) []Spec {
	t.Helper()
	s, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestPlug has two nodes share a network: it is there as long as one of them is.
func TestPlug(t *testing.T) {
	if !enter(t) {
		return
	}
	platform := addBridge(t, Platform)
	folder := filepath.Join(t.TempDir(), "networks")
	const mac = "52:54:00:aa:bb:cc"
	first, err := Plug(folder, "vn1", mac, specs(t, "walt-net,home-net"))
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t); !slices.Equal(got, []string{"home-net", "vnode0", "vnode1", "walt-net"}) {
		t.Errorf("there are the interfaces %v", got)
	}
	for i, alias := range []string{"tap to walt-net of vn1", "tap to home-net of vn1"} {
		tap, err := netlink.LinkByName([]string{"vnode0", "vnode1"}[i])
		if err != nil {
			t.Fatal(err)
		}
		if a := tap.Attrs(); a.Alias != alias || a.Flags&1 == 0 || (a.MasterIndex == platform.Attrs().Index) != (i == 0) {
			t.Errorf("the tap is %+v", a)
		}
	}
	if first[0].MAC != mac || !strings.HasPrefix(first[1].MAC, "52:54:00:") || first[1].MAC[9] > '7' {
		t.Errorf("the cards are %v", first)
	}
	second, err := Plug(t.TempDir(), "vn2", "52:54:00:aa:bb:cd", specs(t, "home-net,walt-net"))
	if err != nil {
		t.Fatal(err)
	}
	if second[0].MAC == first[1].MAC {
		t.Error("two nodes have the same MAC")
	}
	Close(first)
	if err := Unplug(); err != nil {
		t.Fatal(err)
	}
	if got := names(t); !slices.Equal(got, []string{"home-net", "vnode2", "vnode3", "walt-net"}) {
		t.Errorf("after the first there are the interfaces %v", got)
	}
	Close(second)
	if err := Unplug(); err != nil {
		t.Fatal(err)
	}
	if got := names(t); !slices.Equal(got, []string{"walt-net"}) {
		t.Errorf("after both there are the interfaces %v", got)
	}
	again, err := Plug(folder, "vn1", mac, specs(t, "walt-net,home-net"))
	if err != nil {
		t.Fatal(err)
	}
	defer Close(again)
	if again[1].MAC != first[1].MAC {
		t.Errorf("the MAC was %s, and is %s", first[1].MAC, again[1].MAC)
	}
}

// TestLeftovers has a bridge of a node that was killed, and an empty one of somebody else.
func TestLeftovers(t *testing.T) {
	if !enter(t) {
		return
	}
	addBridge(t, "other")
	if err := netlink.LinkSetAlias(addBridge(t, "home-net"), ownAlias); err != nil {
		t.Fatal(err)
	}
	// Nothing can be plugged: the platform is not there.
	_, err := Plug(t.TempDir(), "vn1", "52:54:00:aa:bb:cc", specs(t, "new-net,walt-net"))
	if err == nil || !strings.Contains(err.Error(), "this machine has no bridge walt-net") {
		t.Errorf("the node was plugged in: %v", err)
	}
	if got := names(t); !slices.Equal(got, []string{"other"}) {
		t.Errorf("there are the interfaces %v", got)
	}
}

// TestForeignInterface does not touch an interface that happens to have the name.
func TestForeignInterface(t *testing.T) {
	if !enter(t) {
		return
	}
	addBridge(t, Platform)
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "peer"}
	veth.Name = "home-net"
	if err := netlink.LinkAdd(veth); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("this kernel has no such interfaces: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	_, err := Plug(t.TempDir(), "vn1", "52:54:00:aa:bb:cc", specs(t, "walt-net,home-net"))
	if err == nil || !strings.Contains(err.Error(), "is no bridge") {
		t.Errorf("the node was plugged in: %v", err)
	}
	if got := names(t); !slices.Equal(got, []string{"home-net", "peer", "walt-net"}) {
		t.Errorf("there are the interfaces %v", got)
	}
}

// TestRestrictions reads from the kernel what restricts a tap (node-protocols 6.3).
func TestRestrictions(t *testing.T) {
	if !enter(t) {
		return
	}
	addBridge(t, Platform)
	cards, err := Plug(t.TempDir(), "vn1", "52:54:00:aa:bb:cc", specs(t, "walt-net[lat=8ms,bw=100Mbps],fast[lat=100us],narrow[bw=1Gbps]"))
	if err != nil && strings.Contains(err.Error(), "the kernel has no module") {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer Close(cards)
	for name, want := range map[string]struct {
		delay uint32 // µs
		rate  uint64 // bytes per second
	}{"vnode0": {7700, 12_500_000}, "vnode1": {1, 0}, "vnode2": {0, 125_000_000}} {
		tap, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		queues, err := netlink.QdiscList(tap)
		if err != nil {
			t.Fatal(err)
		}
		var delay uint32
		var rate uint64
		for _, q := range queues {
			switch q := q.(type) {
			case *netlink.Netem:
				delay = q.Latency
			case *netlink.Tbf:
				rate = q.Rate
			}
		}
		microseconds := uint32(float64(delay) / netlink.TickInUsec())
		if microseconds > want.delay || microseconds+1 < want.delay || rate != want.rate {
			t.Errorf("%s has a delay of %d µs and a rate of %d/s: %v", name, microseconds, rate, queues)
		}
	}
}

// TestRate is node-protocols 6.3, without a kernel.
func TestRate(t *testing.T) {
	for _, test := range []struct {
		spec        Spec
		delay       time.Duration
		rate, burst uint64
	}{
		{Spec{Latency: 8 * time.Millisecond, Bandwidth: 100}, 7700 * time.Microsecond, 12_500_000, 100_000 + leastBurst},
		{Spec{Latency: 100 * time.Microsecond, Bandwidth: 1000}, time.Microsecond, 125_000_000, 12_500 + leastBurst},
		{Spec{Bandwidth: 100}, time.Microsecond, 12_500_000, 3750 + leastBurst},
	} {
		netem, tbf := test.spec.delay(netlink.QdiscAttrs{}), test.spec.rate(netlink.QdiscAttrs{})
		if got := time.Duration(float64(netem.Latency)/netlink.TickInUsec()+0.5) * time.Microsecond; got != test.delay {
			t.Errorf("%v is delayed by %v", test.spec, got)
		}
		burst := uint64(netlink.Xmitsize(tbf.Rate, tbf.Buffer))
		if tbf.Rate != test.rate || burst > test.burst || burst+test.rate/1e6+100 < test.burst {
			t.Errorf("%v has a rate of %d and a burst of %d, not %d", test.spec, tbf.Rate, burst, test.burst)
		}
	}
}

func TestKeptMAC(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "a.mac")
	for _, text := range []string{"52:54:00:01:02:03\n", " 52:54:00:01:02:03"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if mac, err := keptMAC(folder, "a"); mac != "52:54:00:01:02:03" || err != nil {
			t.Errorf("%q is read as %q, %v", text, mac, err)
		}
	}
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	mac, err := keptMAC(folder, "a")
	again, _ := keptMAC(folder, "a")
	if err != nil || mac != again || !strings.HasPrefix(mac, "52:54:00:") {
		t.Errorf("a damaged file became %q, %v, then %q", mac, err, again)
	}
}
