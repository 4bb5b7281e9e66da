package core

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waltos/waltos/services/daemon/blocking"
	"github.com/waltos/waltos/services/daemon/blocking/snmp"
	"github.com/waltos/waltos/services/daemon/blocking/snmptest"
	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/wire/pickle"
)

// lab is a platform with a server-blocking and switches that are agents on loopback:
// sw1, next to the server, and sw2 behind its port 8.
type lab struct {
	*platform
	sw1, sw2 *snmptest.Switch
}

const (
	serverMAC = "02:00:00:00:00:01"
	sw1MAC    = "02:aa:00:00:00:01"
	sw2MAC    = "02:aa:00:00:00:02"
)

func startLab(t *testing.T, make1, make2 snmptest.Make) *lab {
	l := &lab{}
	agents := map[string]*snmptest.Switch{}
	for i, m := range []snmptest.Make{make1, make2} {
		sw, err := snmptest.NewSwitch(snmptest.Loopback, []string{sw1MAC, sw2MAC}[i], "private", m)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(sw.Close)
		agents[fmt.Sprint("192.168.152.", 2+i)] = sw
	}
	l.sw1, l.sw2 = agents["192.168.152.2"], agents["192.168.152.3"]
	client := serveBlocking(t, agents)
	l.platform = start(t, func(c *Config) {
		c.Explorer, c.PoE, c.PortLabels = client, Switches{client}, Switches{client}.PortLabels
		store := c.Store.(*memory)
		for i, version := range []int64{1, 2} {
			mac := []string{sw1MAC, sw2MAC}[i]
			store.all[mac] = db.Device{
				MAC: mac, IP: fmt.Sprint("192.168.152.", 2+i), Name: fmt.Sprint("sw", i+1), Type: registry.Switch,
				Conf: map[string]any{"lldp.explore": true, "poe.reboots": true, "snmp.version": version, "snmp.community": "private"},
			}
		}
		image := registry.DefaultImage("pc-x86-64")
		store.images[image] = true
		for n := 1; n <= 5; n++ {
			mac := nodeMAC(n)
			store.all[mac] = db.Device{
				MAC: mac, IP: fmt.Sprint("192.168.152.1", n), Name: fmt.Sprint("n", n), Type: registry.Node, Image: image, Model: "pc-x86-64",
				Conf: map[string]any{"boot.timeout": nil},
			}
		}
	})
	// Each switch hears the other; the first one, the server too. Nodes do not speak LLDP.
	l.sw1.Neighbor(1, "02:99:00:00:00:01", "192.168.152.1", "walt-server")
	l.sw1.Neighbor(8, sw2MAC, "192.168.152.3", "sw2")
	l.sw2.Neighbor(7, sw1MAC, "192.168.152.2", "sw1")
	l.sw1.Station(1, serverMAC)
	l.sw1.Station(2, nodeMAC(1))
	l.sw1.Station(3, nodeMAC(2))
	l.sw1.Station(8, sw2MAC, nodeMAC(3))
	l.sw2.Station(7, sw1MAC, serverMAC, nodeMAC(1), nodeMAC(2))
	l.sw2.Station(4, nodeMAC(3))
	return l
}

// serveBlocking runs a server-blocking whose switches are agents, by their address.
func serveBlocking(t *testing.T, agents map[string]*snmptest.Switch) *blocking.Client {
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	talker := &snmp.Client{Timeout: time.Second, Retries: 2, Dial: func(ctx context.Context, address netip.Addr) (net.Conn, error) {
		sw := agents[address.String()]
		if sw == nil {
			return nil, errors.New("no such switch")
		}
		var d net.Dialer
		return d.DialContext(ctx, "udp", sw.Address().String())
	}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- connector.Listen(ctx, ln, blocking.NewService(talker, "").Handle) }()
	client := blocking.Dial(socket)
	t.Cleanup(func() {
		client.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return client
}

// rescan scans and returns what is printed.
func (p *platform) rescan(t *testing.T, set string) string {
	t.Helper()
	u := newUser("alice")
	u.hooks = func(path string, _ []any) any {
		if path != "stdout.flush" && path != "stderr.flush" {
			t.Errorf("the client is called back for %s", path)
		}
		return nil
	}
	if result, err := p.do(t, u, "device_rescan", set); result != nil || err != nil {
		t.Errorf("device_rescan = %v, %v", result, err)
	}
	return u.said()
}

// links returns the links that are stored, by names, as "sw1:2 n1", with "?" after it if
// unconfirmed.
func (p *platform) linkTexts(t *testing.T) []string {
	t.Helper()
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	v := p.Daemon.registry.View()
	var list []string
	for _, l := range p.store.topology {
		end := func(mac string, port int) string {
			if port == 0 {
				return v.ByMAC(mac).Name
			}
			return fmt.Sprint(v.ByMAC(mac).Name, ":", port)
		}
		ends := []string{end(l.MAC1, l.Port1), end(l.MAC2, l.Port2)}
		slices.SortFunc(ends, func(a, b string) int { return strings.Compare(b, a) })
		text := strings.Join(ends, " ")
		if !l.Confirmed {
			text += "?"
		}
		if l.LastSeen == nil {
			t.Errorf("%s has no time", text)
		}
		list = append(list, text)
	}
	slices.Sort(list)
	return list
}

func (p *platform) expectLinks(t *testing.T, what string, want ...string) {
	t.Helper()
	if got := p.linkTexts(t); !slices.Equal(got, want) {
		t.Errorf("%s: links\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

const bothExplored = "out:Querying sw1                       OK\nout:Querying sw2                       OK\n"

func TestRescanOfEachMake(t *testing.T) {
	for name, makes := range map[string][2]snmptest.Make{
		"netgear, tplink":  {snmptest.Netgear, snmptest.TPLink},
		"tplink, standard": {snmptest.TPLink, snmptest.Standard},
		"offset, netgear":  {snmptest.Offset, snmptest.Netgear},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := startLab(t, makes[0], makes[1])
			if makes[0] == snmptest.TPLink { // whose tables have no addresses
				l.sw1.Unplug(1)
				l.sw1.Station(1, serverMAC)
			}
			if said := l.rescan(t, "explorable-switches"); said != bothExplored {
				t.Errorf("said\n%s", said)
			}
			l.expectLinks(t, "scan", "sw1:2 n1", "sw1:3 n2", "sw2:4 n3", "sw2:7 sw1:8", "walt-server sw1:1")
		})
	}
}

func TestRescanFollowsChanges(t *testing.T) {
	l := startLab(t, snmptest.Netgear, snmptest.Netgear)
	said := l.rescan(t, "server,explorable-switches,n1")
	if want := "out:Querying n1                        INVALID (can only scan switches or the server)\n" +
		bothExplored + "out:Querying walt server               FAILED (LLDP SNMP issue)\n"; said != want {
		t.Errorf("said\n%s\nwant\n%s", said, want)
	}
	all := []string{"sw1:2 n1", "sw1:3 n2", "sw2:4 n3", "sw2:7 sw1:8", "walt-server sw1:1"}
	l.expectLinks(t, "first scan", all...)
	l.rescan(t, "explorable-switches")
	l.expectLinks(t, "same scan", all...)

	l.sw1.Unplug(2) // n1 moves behind sw2, n2 is switched off
	l.sw1.Unplug(3)
	l.sw1.Station(8, nodeMAC(1))
	l.sw2.Station(5, nodeMAC(1))
	l.rescan(t, "sw2,sw1")
	l.expectLinks(t, "after a move", "sw1:3 n2?", "sw2:4 n3", "sw2:5 n1", "sw2:7 sw1:8", "walt-server sw1:1")

	l.sw1.Neighbor(3, "02:bb:00:00:00:07", "10.9.8.7", "Kitchen-Switch.example")
	l.sw2.Mute(true)
	l.lines.take()
	if said := l.rescan(t, "explorable-switches"); said != "out:Querying sw1                       OK\n"+
		"out:Querying sw2                       FAILED (LLDP and BRIDGE SNMP issues)\n" {
		t.Errorf("with a mute switch:\n%s", said)
	}
	l.expectLinks(t, "with a mute switch", "sw1:3 kitchen-switch", "sw2:4 n3", "sw2:5 n1", "sw2:7 sw1:8", "walt-server sw1:1")
	l.expectLines(t, "new neighbour", "platform.devices: new device name=kitchen-switch type=unknown mac=02:bb:00:00:00:07 ip=10.9.8.7")
	if tree, err := l.do(t, newUser("alice"), "device_tree", false); err != nil || !strings.Contains(tree.(string), ", issued 1 second ago") {
		t.Errorf("tree %v, %v", tree, err)
	}
}

func TestRescanOfOthers(t *testing.T) {
	l := startLab(t, snmptest.Netgear, snmptest.Netgear)
	conf := func(args ...any) {
		t.Helper()
		if _, err := l.do(t, newUser("alice"), "set_device_config", "sw2", pickle.Tuple(args)); err != nil {
			t.Error(err)
		}
	}
	conf("poe.reboots=false")
	conf("lldp.explore=false")
	if said, want := l.rescan(t, "all-switches"), "out:Querying sw1                       OK\n"+
		"out:Querying sw2                       FORBIDDEN (see: walt help show device-config)\n"; said != want {
		t.Errorf("said\n%s", said)
	}
	// sw2 is not asked: what is behind it is there, but where is not known.
	l.expectLinks(t, "one switch", "sw1:2 n1", "sw1:3 n2", "sw2 sw1:8", "walt-server sw1:1")
	without := snmptest.Netgear
	without.FDB = false
	l.sw1.Turn(without)
	if said := l.rescan(t, "sw1"); said != "out:Querying sw1                       OK (LLDP-only data)\n" {
		t.Errorf("said\n%s", said)
	}
	without = snmptest.Netgear
	without.LLDP = ""
	l.sw1.Turn(without)
	if said := l.rescan(t, "sw1"); said != "out:Querying sw1                       OK (BRIDGE-only data)\n" {
		t.Errorf("said\n%s", said)
	}
	err := l.locked(func() error {
		d := l.Daemon.registry.View().ByName("sw1").Device
		d.IP = ""
		return l.saveDevices(t.Context(), d)
	})
	if err != nil {
		t.Fatal(err)
	}
	if said := l.rescan(t, "sw1"); said != "out:Querying sw1                       FAILED (unknown management IP!)\n" {
		t.Errorf("said\n%s", said)
	}
	for set, want := range map[string]string{
		"nowhere": "err:No device with name 'nowhere' found.\n", "my-nodes": "err:No matching devices found! (tip: walt help show node-ownership)\n",
	} {
		if said := l.rescan(t, set); said != want {
			t.Errorf("set %s: said %q", set, said)
		}
	}
}

func TestRescanRestoresPowerFirst(t *testing.T) {
	l := startLab(t, snmptest.Netgear, snmptest.Netgear)
	l.sw1.Feed(2)
	l.sw2.Feed(4)
	l.rescan(t, "explorable-switches")
	sw1 := l.Daemon.registry.View().ByName("sw1").Device
	sw2 := l.Daemon.registry.View().ByName("sw2").Device
	for _, err := range l.cut(t.Context(), []PoEPort{{sw1, 2}, {sw2, 4}}, offForPowersave) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if l.sw1.Powered(2) || l.sw2.Powered(4) {
		t.Fatal("ports are not off")
	}
	const note = "err:NOTE: WALT previously turned off PoE on some switch ports for automatic powersaving.\n" +
		"NOTE: This command will re-enable PoE on these ports.\n" +
		"NOTE: However, devices connected there may not be re-detected before a little time.\n" +
		"NOTE: Re-running a scan in 10 minutes may give better results.\n\n"
	if said, want := l.rescan(t, "sw1"), note+"out:Querying sw1                       OK\n"; said != want {
		t.Errorf("said\n%s", said)
	}
	if !l.sw1.Powered(2) || l.sw2.Powered(4) {
		t.Error("not the ports of the scanned switch are on")
	}
	l.sw2.Stick()
	if said, want := l.rescan(t, "explorable-switches"), note+"err:WARNING: Failed to restore PoE on switch sw2 port 4 -- SNMP issue!\n"+bothExplored; said != want {
		t.Errorf("said\n%s\nwant\n%s", said, want)
	}
	if off := l.tables.off(); len(off) != 1 || off[0].MAC != sw2MAC {
		t.Errorf("off: %v", off)
	}
}

func TestPoERebootThroughSwitch(t *testing.T) {
	l := startLab(t, snmptest.Netgear, snmptest.TPLink)
	var mu sync.Mutex
	var events []string
	for name, sw := range map[string]*snmptest.Switch{"sw1": l.sw1, "sw2": l.sw2} {
		sw.OnPower(func(port int, on bool) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, fmt.Sprint(name, " ", port, " ", on))
		})
	}
	l.sw2.Feed(4)
	l.rescan(t, "explorable-switches")
	u := newUser("alice")
	result, err := l.do(t, u, "reboot_nodes", "n1,n3", true)
	if result != "FAILED" || err != nil {
		t.Errorf("reboot_nodes = %v, %v", result, err)
	}
	if said, want := u.said(), "out:Node n3: rebooted ok.\nerr:Node n1: failed poe-reboot (node seems not poe-powered)\n"; said != want {
		t.Errorf("said\n%s", said)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"sw2 4 false", "sw2 4 true"}; !slices.Equal(events, want) {
		t.Errorf("power: %q", events)
	}
}

// A switch that does not tell the labels of its ports is scanned once to find a node that
// reports one; then the label is known.
func TestLabelLearntByScan(t *testing.T) {
	mute := snmptest.Netgear
	mute.LLDP = ""
	l := startLab(t, mute, snmptest.Netgear)
	report := func(label string) {
		t.Helper()
		c := &call{client: newUser(nil), api: "NSAPI", peer: netip.MustParseAddr("192.168.152.11")}
		if result, err := l.serve(t.Context(), c, "report_lldp_neighbor", pickle.Tuple{sw1MAC, label}, nil); result != nil || err != nil {
			t.Errorf("report_lldp_neighbor = %v, %v", result, err)
		}
	}
	l.lines.take()
	report("port two")
	l.expectLines(t, "first report", "platform.devices: Node n1 is now connected on sw1 port 2")
	if at := l.tables.places()[nodeMAC(1)]; at != (place{sw1MAC, 2}) {
		t.Errorf("n1 is at %v", at)
	}
	before := l.sw1.Requests()
	report("port two")
	l.expectLines(t, "second report")
	if n := l.sw1.Requests() - before; n != 0 {
		t.Errorf("the switch is sent %d requests for a label that is known", n)
	}
}

// In 10.0 the result is an object of a class of the server, which clients cannot read.
func TestCN09RescanAnswersNone(t *testing.T) {
	l := startLab(t, snmptest.Netgear, snmptest.Netgear)
	for _, set := range []string{"sw1", "server", "server,explorable-switches", "all-devices", "nowhere", "my-nodes", ""} {
		if result, err := l.do(t, newUser("alice"), "device_rescan", set); result != nil || err != nil {
			t.Errorf("device_rescan of %q = %v, %v", set, result, err)
		}
	}
}

// Scans, reports of nodes and removals at the same time leave links that are consistent.
func TestRescansAtTheSameTime(t *testing.T) {
	l := startLab(t, snmptest.Netgear, snmptest.Netgear)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { l.rescan(t, "explorable-switches") })
	}
	all.Go(func() {
		c := &call{client: newUser(nil), api: "NSAPI", peer: netip.MustParseAddr("192.168.152.12")}
		if _, err := l.serve(t.Context(), c, "report_lldp_neighbor", pickle.Tuple{sw1MAC, "g3"}, nil); err != nil {
			t.Error(err)
		}
	})
	all.Go(func() {
		if _, err := l.do(t, newUser("alice"), "forget", "n3"); err != nil {
			t.Error(err)
		}
	})
	all.Wait()
	l.rescan(t, "explorable-switches")
	l.expectLinks(t, "scans", "sw1:2 n1", "sw1:3 n2", "sw2:7 sw1:8", "walt-server sw1:1")
}

// explorer answers for switches, as long as block is open.
type explorer struct {
	entered chan bool
	release chan bool
}

func (e *explorer) Explore(ctx context.Context, _ blocking.Switch) (blocking.Exploration, error) {
	e.entered <- true
	select {
	case <-e.release:
		return blocking.Exploration{Neighbors: []snmp.Neighbor{{Port: 1, MAC: "02:cc:00:00:00:01"}}}, nil
	case <-ctx.Done():
		return blocking.Exploration{}, ctx.Err()
	}
}

func TestRescanDelaysNobodyAndEndsWithItsClient(t *testing.T) {
	e := &explorer{make(chan bool), make(chan bool)}
	p := start(t, func(c *Config) {
		c.Explorer = e
		c.Store.(*memory).all[sw1MAC] = db.Device{MAC: sw1MAC, IP: "192.168.152.2", Name: "sw1", Type: registry.Switch, Conf: map[string]any{"lldp.explore": true}}
	})
	ctx, leave := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := p.serve(ctx, &call{client: newUser("alice"), api: "CSAPI"}, "device_rescan", pickle.Tuple{"sw1"}, nil)
		ended <- err
	}()
	<-e.entered
	p.populate(t) // others work meanwhile
	if said := p.rescan(t, "server"); said != "out:Querying walt server               FAILED (LLDP SNMP issue)\n" {
		t.Errorf("said %q", said)
	}
	leave()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if p.Daemon.registry.View().ByMAC("02:cc:00:00:00:01") != nil || len(p.linkTexts(t)) > 0 {
		t.Error("a scan that was given up has an effect")
	}
}

func TestRescanSurvivesServerBlocking(t *testing.T) {
	client := serveBlocking(t, nil)
	client.Close()
	p := start(t, func(c *Config) {
		c.Explorer = client
		c.Store.(*memory).all[sw1MAC] = db.Device{MAC: sw1MAC, IP: "192.168.152.2", Name: "sw1", Type: registry.Switch, Conf: map[string]any{"lldp.explore": true}}
	})
	if said := p.rescan(t, "sw1"); said != "out:Querying sw1                       FAILED (LLDP and BRIDGE SNMP issues)\n" {
		t.Errorf("said %q", said)
	}
}

// The neighbours that a switch hears may use an address of the server or of a switch that
// is known by another MAC, or the address of a node.
func TestNeighborsKnownByTheirAddress(t *testing.T) {
	l := startLab(t, snmptest.Netgear, snmptest.Netgear)
	l.Interfaces = func() []string { return []string{serverMAC, "02:99:00:00:00:01"} }
	l.sw1.Neighbor(1, "02:99:00:00:00:01", "", "walt-server") // another MAC of the server
	l.sw1.Station(1, "02:99:00:00:00:01", serverMAC)
	l.sw1.Neighbor(8, "02:99:00:00:00:03", "192.168.152.3", "sw2")   // another MAC of sw2
	l.sw1.Neighbor(5, "02:bb:00:00:00:01", "192.168.152.11", "liar") // the address of n1
	l.sw2.Neighbor(7, "02:99:00:00:00:02", "192.168.152.2", "sw1")
	l.rescan(t, "explorable-switches")
	l.expectLinks(t, "scan", "sw1:2 n1", "sw1:3 n2", "sw1:5 liar", "sw2:4 n3", "sw2:7 sw1:8", "walt-server sw1:1")
	if d := l.Daemon.registry.View().ByName("liar"); d == nil || d.IP != "" {
		t.Errorf("%+v has the address of another", d)
	}
}
