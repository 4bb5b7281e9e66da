package netconfig

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/dhcp"
	"github.com/waltos/waltos/services/internal/nettest"
	"github.com/waltos/waltos/services/state"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func site(t *testing.T, text string) *hcl.Site {
	t.Helper()
	s, err := hcl.ParseSite([]byte(text), "walt.hcl")
	must(t, err)
	return s
}

// fakeState is a state that the test changes.
type fakeState struct {
	current *state.Snapshot
	changed chan struct{}
}

func (f *fakeState) Current() *state.Snapshot { return f.current }
func (f *fakeState) Changed() <-chan struct{} { return f.changed }

// service is a running netconfig.
type service struct {
	dir    string
	cancel context.CancelFunc
	done   chan error
}

// start runs netconfig and returns when it is ready.
func start(t *testing.T, s *hcl.Site, dir string, st *fakeState) *service {
	t.Helper()
	if st == nil {
		st = &fakeState{current: &state.Snapshot{}}
	}
	ctx, cancel := context.WithCancel(t.Context())
	svc := &service{dir: dir, cancel: cancel, done: make(chan error, 1)}
	ready := make(chan struct{})
	go func() {
		svc.done <- Run(ctx, Config{
			Site: s, MACFile: filepath.Join(dir, "mac"), Resolvers: filepath.Join(dir, "run/resolv.conf"),
			Wait: 50 * time.Millisecond, State: st,
		}, func() error { close(ready); return nil })
	}()
	select {
	case <-ready:
	case err := <-svc.done:
		t.Fatalf("netconfig ended: %v", err)
	}
	return svc
}

func (s *service) stop(t *testing.T) {
	t.Helper()
	s.cancel()
	must(t, <-s.done)
}

// until waits until the kernel shows a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
		select { // the kernel tells nobody of what is looked at here
		case <-time.After(5 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
}

func link(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return l
}

func addresses(t *testing.T, name string) string {
	t.Helper()
	list, err := netlink.AddrList(link(t, name), netlink.FAMILY_V4)
	must(t, err)
	var texts []string
	for _, a := range list {
		texts = append(texts, a.IPNet.String())
	}
	return strings.Join(texts, " ")
}

// cable makes a pair of connected interfaces.
func cable(t *testing.T, a, b string) {
	t.Helper()
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs(a), PeerName: b}))
	must(t, netlink.LinkSetUp(link(t, b)))
}

// needBridge skips the test where the kernel has no bridge, and tells whether it has
// dummy interfaces.
func needBridge(t *testing.T) (dummy bool) {
	t.Helper()
	probe := &netlink.Bridge{LinkAttrs: attrs("probe")}
	if err := netlink.LinkAdd(probe); err != nil {
		t.Skipf("this kernel has no bridge: %v", err)
	}
	must(t, netlink.LinkDel(probe))
	if err := netlink.LinkAdd(&netlink.Dummy{LinkAttrs: attrs("probe")}); err != nil {
		t.Logf("this kernel has no dummy interface, tried without: %v", err)
		return false
	}
	must(t, netlink.LinkDel(link(t, "probe")))
	return true
}

// inBridge tells whether an interface is a port of the bridge.
func inBridge(t *testing.T, name string) bool {
	t.Helper()
	return link(t, name).Attrs().MasterIndex == link(t, "walt-net").Attrs().Index
}

const virtualOnly = `network "walt-net" { ip = "192.168.152.1/24" }`

func TestVirtualOnly(t *testing.T) {
	if !nettest.Enter(t) {
		return
	}
	dummy := needBridge(t)
	dir := t.TempDir()
	svc := start(t, site(t, virtualOnly), dir, nil)
	bridge := link(t, "walt-net")
	mac := bridge.Attrs().HardwareAddr.String()
	if !strings.HasPrefix(mac, "52:54:00:") || bridge.Attrs().HardwareAddr[3] > 0x7f {
		t.Errorf("address %s", mac)
	}
	if got := addresses(t, "walt-net"); got != "192.168.152.1/24" {
		t.Errorf("addresses %s", got)
	}
	if dummy && !inBridge(t, dummyName) {
		t.Error("the dummy is not in the bridge")
	}
	forward, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	must(t, err)
	if strings.TrimSpace(string(forward)) != "1" {
		t.Errorf("ip_forward is %s", forward)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "run/resolv.conf")); err != nil || strings.Contains(string(text), "nameserver") {
		t.Errorf("resolv.conf %q, %v", text, err)
	}
	svc.stop(t)
	if addresses(t, "walt-net") == "" {
		t.Error("the end of the service took the network down")
	}

	// Again, and with another address: the same bridge.
	svc = start(t, site(t, virtualOnly), dir, nil)
	svc.stop(t)
	svc = start(t, site(t, `network "walt-net" { ip = "10.5.0.1/16" }`), dir, nil)
	if again := link(t, "walt-net"); again.Attrs().Index != bridge.Attrs().Index || again.Attrs().HardwareAddr.String() != mac {
		t.Error("a second start made another bridge")
	}
	if got := addresses(t, "walt-net"); got != "10.5.0.1/16" {
		t.Errorf("addresses %s", got)
	}
	svc.stop(t)

	must(t, Down())
	must(t, Down())
	if exists("walt-net") || exists(dummyName) {
		t.Error("down leaves interfaces behind")
	}
	svc = start(t, site(t, virtualOnly), dir, nil)
	if got := link(t, "walt-net").Attrs().HardwareAddr.String(); got != mac {
		t.Errorf("after down and up the bridge has %s instead of %s", got, mac)
	}
	svc.stop(t)
}

// A bridge whose address cannot be kept, as on a full disk, comes up all the same.
func TestAddressCannotBeKept(t *testing.T) {
	if !nettest.Enter(t) {
		return
	}
	needBridge(t)
	l := &links{site: site(t, virtualOnly), macFile: filepath.Join(t.TempDir(), "none", "mac")}
	up, _, err := l.apply()
	if err != nil || up[hcl.WaltNet] == nil {
		t.Fatalf("%v, %v", up, err)
	}
	mac := link(t, "walt-net").Attrs().HardwareAddr.String()
	if _, _, err = l.apply(); err != nil {
		t.Fatal(err)
	}
	if now := link(t, "walt-net").Attrs().HardwareAddr.String(); now != mac {
		t.Errorf("the bridge had %s, and now has %s", mac, now)
	}
}

func TestWired(t *testing.T) {
	if !nettest.Enter(t) {
		return
	}
	needBridge(t)
	cable(t, "eth1", "far1")
	cable(t, "eth2", "far2")
	vlan := "vlan = 7"
	if err := netlink.LinkAdd(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "probe", ParentIndex: link(t, "eth1").Attrs().Index}, VlanId: 9, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}); err != nil {
		t.Logf("this kernel has no VLAN, tried without: %v", err)
		vlan = ""
	}
	config := `
		network "walt-net" {
			interface = "eth1"
			ip        = "192.168.152.1/24"
			` + vlan + `
		}
		network "walt-adm" {
			interface = "eth2"
			ip        = "192.168.9.1/24"
			gateway   = "192.168.9.254"
		}
		dns { forwarders = ["9.9.9.9", "9.9.9.9", "1.1.1.1"] }`
	dir := t.TempDir()
	for range 2 {
		svc := start(t, site(t, config), dir, nil)
		port := "eth1"
		if vlan != "" {
			port = "eth1.7"
		}
		if !inBridge(t, port) || exists(dummyName) {
			t.Errorf("%s is not the port of the bridge", port)
		}
		if got := addresses(t, "eth2"); got != "192.168.9.1/24" {
			t.Errorf("addresses of walt-adm: %s", got)
		}
		if l := link(t, "walt-adm"); l.Attrs().Name != "eth2" {
			t.Errorf("walt-adm is %s", l.Attrs().Name)
		}
		routes, err := netlink.RouteGet(net.IPv4(8, 8, 8, 8))
		if err != nil || routes[0].Gw.String() != "192.168.9.254" {
			t.Errorf("default route: %v, %v", routes, err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "run/resolv.conf"))
		must(t, err)
		if !strings.HasSuffix(string(text), "\nnameserver 9.9.9.9\nnameserver 1.1.1.1\n") {
			t.Errorf("resolv.conf %q", text)
		}
		svc.stop(t)
	}
	// What is not wanted any more goes; what is not ours stays.
	svc := start(t, site(t, virtualOnly), dir, nil)
	if exists("eth1.7") || !exists("eth1") || vlan != "" && !exists("probe") {
		t.Error("wrong interfaces were removed")
	}
	svc.stop(t)
}

func TestInterfaceAppears(t *testing.T) {
	if !nettest.Enter(t) {
		return
	}
	dummy := needBridge(t)
	svc := start(t, site(t, `network "walt-net" {
		interface = "eth1"
		ip        = "192.168.152.1/24"
	}`), t.TempDir(), nil)
	if dummy && !inBridge(t, dummyName) {
		t.Error("no virtual platform without the interface")
	}
	cable(t, "eth1", "far1")
	until(t, "the interface is used", func() bool {
		return inBridge(t, "eth1") && !exists(dummyName)
	})
	svc.stop(t)
}

// TestInterfaceIsNamed: the site file may use a further name, which an interface gets a moment
// after it appears. It may be taken away, and come again as another.
func TestInterfaceIsNamed(t *testing.T) {
	if !nettest.Enter(t) {
		return
	}
	dummy := needBridge(t)
	const name = "enx5254000000ff"
	svc := start(t, site(t, `network "walt-net" {
		interface = "`+name+`"
		ip        = "192.168.152.1/24"
	}`), t.TempDir(), nil)
	defer svc.stop(t)
	for _, card := range []string{"eth1", "eth2"} {
		cable(t, card, "far1")
		must(t, netlink.LinkAddAltName(link(t, card), name))
		until(t, card+" is used", func() bool { return inBridge(t, card) && !exists(dummyName) })
		must(t, netlink.LinkDel(link(t, card)))
		until(t, "the platform is virtual again", func() bool { return exists(dummyName) || !dummy })
	}
}

func TestDHCP(t *testing.T) {
	if !nettest.Enter(t) {
		return
	}
	needBridge(t)
	cable(t, "eth0", "isp")
	server, dir := newProvider(t, "eth0", "isp"), t.TempDir()
	svc := start(t, site(t, virtualOnly+`
		network "walt-out" {
			interface = "eth0"
			ip        = "dhcp"
		}`), dir, nil)
	// The service is ready although nobody has answered so far.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	until(t, "resolv.conf names the server", func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "run/resolv.conf"))
		return err == nil && strings.HasSuffix(string(text), "\nnameserver 10.7.0.1\n")
	})
	if got := addresses(t, "eth0"); got != "10.7.0.42/24" {
		t.Errorf("addresses %s", got)
	}
	routes, err := netlink.RouteList(link(t, "eth0"), netlink.FAMILY_V4)
	must(t, err)
	found := false
	for _, r := range routes {
		found = found || r.Gw.String() == "10.7.0.1" && r.Priority == firstMetric+1
	}
	if !found {
		t.Errorf("no default route: %v", routes)
	}
	svc.stop(t)
	if got := addresses(t, "eth0"); got != "10.7.0.42/24" {
		t.Errorf("after the service: addresses %s", got)
	}
	cancel()
	must(t, <-done)
}

// newProvider makes a DHCP server at the far end of a cable, which gives 10.7.0.42 to the near one.
func newProvider(t *testing.T, near, far string) (server *dhcp.Server) {
	t.Helper()
	us := state.Device{MAC: link(t, near).Attrs().HardwareAddr.String(), IP: "10.7.0.42", Name: "us", Type: "node", NAT: true}
	newWorld(t, far, "10.7.0.1/24", "").run(t, func() {
		var err error
		server, err = dhcp.New(dhcp.Config{
			Interface: far, Network: netip.MustParsePrefix("10.7.0.1/24"), Journal: filepath.Join(t.TempDir(), "leases"),
			State: state.Fixed(state.Snapshot{Devices: []state.Device{us}}),
		})
		must(t, err)
	})
	return server
}

// TestCardIsReplaced: the way out goes on by another card, which has the name of the site file.
func TestCardIsReplaced(t *testing.T) {
	if !nettest.Enter(t) {
		return
	}
	needBridge(t)
	const name = "enx5254000000ff"
	svc := start(t, site(t, virtualOnly+`
		network "walt-out" {
			interface = "`+name+`"
			ip        = "dhcp"
		}`), t.TempDir(), nil)
	defer svc.stop(t)
	for _, card := range []struct{ near, far string }{{"eth0", "isp0"}, {"eth5", "isp5"}} {
		cable(t, card.near, card.far)
		server := newProvider(t, card.near, card.far)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- server.Serve(ctx) }()
		must(t, netlink.LinkAddAltName(link(t, card.near), name))
		until(t, card.near+" has an address", func() bool { return addresses(t, card.near) == "10.7.0.42/24" })
		cancel()
		must(t, <-done)
		must(t, netlink.LinkDel(link(t, card.near)))
	}
}

// world is a network namespace besides the one of the test, with one interface.
type world struct{ ns netns.NsHandle }

// newWorld moves an interface to a new namespace and configures it there.
func newWorld(t *testing.T, name, address, gateway string) *world {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	must(t, err)
	defer home.Close()
	ns, err := netns.New() // also enters it
	must(t, err)
	must(t, netns.Set(home))
	t.Cleanup(func() { ns.Close() })
	must(t, netlink.LinkSetNsFd(link(t, name), int(ns)))
	w := &world{ns}
	w.run(t, func() {
		l := link(t, name)
		must(t, setUp(l))
		must(t, setAddress(l, netip.MustParsePrefix(address)))
		if gateway != "" {
			must(t, setRoute(l, netip.Prefix{}, netip.MustParseAddr(gateway), 1))
		}
	})
	return w
}

// run runs f inside the namespace; sockets opened there stay there.
func (w *world) run(t *testing.T, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	must(t, err)
	defer home.Close()
	must(t, netns.Set(w.ns))
	defer func() { must(t, netns.Set(home)) }()
	f()
}

func (w *world) listen(t *testing.T, address string) (conn *net.UDPConn) {
	t.Helper()
	w.run(t, func() {
		var err error
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
		must(t, err)
	})
	t.Cleanup(func() { conn.Close() })
	return conn
}

// counters returns the packet counts of the rules of a chain.
func counters(t *testing.T, chain string) (counts []uint64) {
	t.Helper()
	c, err := nftables.New()
	must(t, err)
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName}
	rules, err := c.GetRules(table, &nftables.Chain{Table: table, Name: chain})
	must(t, err)
	for _, r := range rules {
		for _, e := range r.Exprs {
			if counter, ok := e.(*expr.Counter); ok {
				counts = append(counts, counter.Packets)
			}
		}
	}
	return counts
}

// TestFirewall sends packets from two nodes to each other and to the outside, through
// the real rules.
func TestFirewall(t *testing.T) {
	if !nettest.Enter(t) {
		return
	}
	needBridge(t)
	const wantForward = 4
	cable(t, "out", "outside")
	st := &fakeState{changed: make(chan struct{}, 1), current: &state.Snapshot{Devices: []state.Device{
		{MAC: "02:00:00:00:00:02", IP: "192.168.152.2", Name: "nat", Type: "node", NAT: true},
		{MAC: "02:00:00:00:00:03", IP: "192.168.152.3", Name: "lan", Type: "node"},
	}}}
	svc := start(t, site(t, virtualOnly+`
		network "walt-out" {
			interface = "out"
			ip        = "10.0.0.1/24"
		}`), t.TempDir(), st)
	defer svc.stop(t)
	if n, err := nftables.New(); err != nil {
		t.Fatal(err)
	} else if _, err := n.ListTableOfFamily(tableName, nftables.TableFamilyIPv4); err != nil {
		t.Skipf("this kernel does not take the firewall: %v", err)
	}
	if nft, err := exec.LookPath("nft"); err == nil {
		rules, err := exec.CommandContext(t.Context(), nft, "list", "table", "ip", tableName).CombinedOutput()
		t.Logf("%s (%v)", rules, err)
	}
	if got := len(counters(t, "forward")); got != wantForward {
		t.Fatalf("%d rules in chain forward, want %d", got, wantForward)
	}

	outside := newWorld(t, "outside", "10.0.0.2/24", "")
	nodes := map[string]*world{}
	for name, address := range map[string]string{"nat": "192.168.152.2/24", "lan": "192.168.152.3/24"} {
		cable(t, name, name+"-port")
		must(t, netlink.LinkSetMaster(link(t, name+"-port"), link(t, "walt-net")))
		nodes[name] = newWorld(t, name, address, "192.168.152.1")
	}
	echo := outside.listen(t, "10.0.0.2:7000")
	sources := make(chan string, 10)
	go func() {
		buffer := make([]byte, 100)
		for {
			n, from, err := echo.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			sources <- string(buffer[:n]) + " " + from.Addr().String()
			echo.WriteToUDPAddrPort(buffer[:n], from)
		}
	}()
	away := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.2:7000"))
	talk := func(conn *net.UDPConn, to *net.UDPAddr, text string) {
		t.Helper()
		_, err := conn.WriteToUDP([]byte(text), to)
		must(t, err)
	}
	heard := func(conn *net.UDPConn, want string) {
		t.Helper()
		buffer := make([]byte, 100)
		conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, err := conn.Read(buffer)
		must(t, err)
		if string(buffer[:n]) != want {
			t.Errorf("heard %q, want %q", buffer[:n], want)
		}
	}

	nat := nodes["nat"].listen(t, "192.168.152.2:7001")
	lan := nodes["lan"].listen(t, "192.168.152.3:7001")
	talk(nat, away, "hello")
	heard(nat, "hello") // the answer comes back
	if got := <-sources; got != "hello 10.0.0.1" {
		t.Errorf("the outside sees %q", got)
	}
	talk(nat, lan.LocalAddr().(*net.UDPAddr), "neighbour")
	heard(lan, "neighbour")

	talk(lan, away, "forbidden")
	until(t, "the packet of the LAN node is dropped", func() bool { return counters(t, "forward")[2] > 0 })

	// The settings change: it works the other way round, at once.
	st.current = &state.Snapshot{Devices: []state.Device{{MAC: "02:00:00:00:00:03", IP: "192.168.152.3", Name: "lan", Type: "node", NAT: true}}}
	st.changed <- struct{}{}
	until(t, "the LAN node may talk", func() bool {
		talk(lan, away, "allowed")
		lan.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		_, err := lan.Read(make([]byte, 100))
		return !errors.Is(err, os.ErrDeadlineExceeded)
	})
	dropped := counters(t, "forward")[2]
	talk(nat, away, "late")
	until(t, "the packet of the former NAT node is dropped", func() bool { return counters(t, "forward")[2] > dropped })
	for {
		select {
		case got := <-sources:
			if got != "allowed 10.0.0.1" {
				t.Errorf("the outside sees %q", got)
			}
			continue
		default:
		}
		break
	}
}
