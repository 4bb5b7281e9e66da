package blocking

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waltos/waltos/services/daemon/blocking/snmp"
	"github.com/waltos/waltos/services/daemon/blocking/snmptest"
	"github.com/waltos/waltos/services/daemon/connector"
)

// lab is a server-blocking, its client and switches. Switch n has the address 192.0.2.n.
type lab struct {
	*Client
	cache   string
	timeout time.Duration // of a try

	mu       sync.Mutex
	switches map[netip.Addr]*snmptest.Switch
}

func newLab(t *testing.T) *lab {
	l := &lab{switches: map[netip.Addr]*snmptest.Switch{}, cache: filepath.Join(t.TempDir(), "switches.json"), timeout: 500 * time.Millisecond}
	l.start(t)
	return l
}

// start starts a server-blocking, which the client then calls.
func (l *lab) start(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	client := &snmp.Client{Dial: l.dial, Timeout: l.timeout, Retries: 2}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- connector.Listen(ctx, ln, NewService(client, l.cache).Handle) }()
	l.Client = Dial(socket)
	called := l.Client
	t.Cleanup(func() {
		called.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func (l *lab) dial(ctx context.Context, address netip.Addr) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sw := l.switches[address]
	if sw == nil {
		return nil, fmt.Errorf("no switch at %s", address)
	}
	var d net.Dialer
	return d.DialContext(ctx, "udp", sw.Address().String())
}

func mac(n int) string { return fmt.Sprintf("02:aa:00:00:%02x:%02x", n>>8, n&255) }

// add starts switch n.
func (l *lab) add(t *testing.T, n int, m snmptest.Make) (*snmptest.Switch, Switch) {
	t.Helper()
	sw, err := snmptest.NewSwitch(snmptest.Loopback, mac(n), "private", m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sw.Close)
	address := netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.switches[address] = sw
	return sw, Switch{MAC: mac(n), IP: address.String(), Version: 2, Community: "private"}
}

func (l *lab) explore(t *testing.T, sw Switch) Exploration {
	t.Helper()
	found, err := l.Explore(t.Context(), sw)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// power switches ports and returns what users would be told.
func (l *lab) power(t *testing.T, sw Switch, on bool, ports ...int) []string {
	t.Helper()
	errs, err := l.Power(t.Context(), sw, ports, on)
	if err != nil {
		t.Fatal(err)
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		if err != nil {
			texts[i] = err.Error()
		}
	}
	return texts
}

func TestExplore(t *testing.T) {
	t.Parallel() // silence takes its time
	l := newLab(t)
	sim, sw := l.add(t, 1, snmptest.Netgear)
	sim.Neighbor(1, "02:00:00:00:00:01", "192.168.152.1", "walt-server")
	sim.Station(3, "02:00:00:00:00:03")
	want := Exploration{
		Neighbors: []snmp.Neighbor{{Port: 1, MAC: "02:00:00:00:00:01", IP: "192.168.152.1", Name: "walt-server"}},
		Stations:  []snmp.Station{{Port: 3, MAC: "02:00:00:00:00:03"}},
		Addresses: []string{mac(1)},
		Labels:    map[string]int{"g1": 1, "g2": 2, "g3": 3, "g4": 4, "g5": 5, "g6": 6, "g7": 7, "g8": 8, "g9": 9, "g10": 10},
	}
	if d := cmp.Diff(want, l.explore(t, sw)); d != "" {
		t.Error(d)
	}
	sim.Mute(true)
	if found := l.explore(t, sw); found.NeighborsError == "" || found.StationsError == "" || len(found.Neighbors) > 0 {
		t.Errorf("a mute switch gives %+v", found)
	}
	sim.Mute(false)
	sim.Babble([]byte("\x30\x82\xff\xff garbage"))
	if found := l.explore(t, sw); found.NeighborsError == "" || found.StationsError == "" {
		t.Errorf("a switch that babbles gives %+v", found)
	}
	sim.Babble(nil)
	if d := cmp.Diff(want, l.explore(t, sw)); d != "" {
		t.Errorf("afterwards: %s", d)
	}
	sw.Community = "wrong"
	if found := l.explore(t, sw); found.NeighborsError == "" || found.StationsError == "" {
		t.Errorf("the wrong community gives %+v", found)
	}
	half := snmptest.Netgear
	half.FDB = false
	_, sw = l.add(t, 2, half)
	if found := l.explore(t, sw); found.NeighborsError != "" || found.StationsError == "" {
		t.Errorf("LLDP alone gives %+v", found)
	}
	half = snmptest.Netgear
	half.LLDP = ""
	_, sw = l.add(t, 3, half)
	if found := l.explore(t, sw); found.NeighborsError == "" || found.StationsError != "" {
		t.Errorf("a forwarding table alone gives %+v", found)
	}
}

func TestPower(t *testing.T) {
	for i, m := range []snmptest.Make{snmptest.Netgear, snmptest.Standard, snmptest.TPLink, snmptest.Offset} {
		for _, version := range []int{1, 2} {
			t.Run(fmt.Sprint(i, " v", version), func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				sim, sw := l.add(t, 1, m)
				sw.Version = version
				sim.Feed(2)
				if got := l.power(t, sw, false, 2, 3); !slices.Equal(got, []string{"", "node seems not PoE-powered"}) {
					t.Errorf("off: %q", got)
				}
				if sim.Powered(2) || !sim.Powered(3) {
					t.Error("the wrong port is off")
				}
				if got := l.power(t, sw, false, 2); !slices.Equal(got, []string{""}) || sim.Powered(2) {
					t.Errorf("off twice: %q", got)
				}
				if got := l.power(t, sw, true, 2, 2, 99); !slices.Equal(got, []string{"", "", "KeyError"}) || !sim.Powered(2) {
					t.Errorf("on: %q", got)
				}
			})
		}
	}
}

// The power of ports is switched by a command of its own in 10.0, whose line is not
// quoted: a community may hold anything here, and is one.
func TestDefectN11CommunityOfAnyCharacters(t *testing.T) {
	l := newLab(t)
	for _, community := range []string{"; touch /tmp/x", "$(id)", "a b'\"", "é"} {
		sim, err := snmptest.NewSwitch(snmptest.Loopback, mac(1), community, snmptest.Netgear)
		if err != nil {
			t.Fatal(err)
		}
		sim.Feed(1)
		l.switches[netip.MustParseAddr("192.0.2.1")] = sim
		sw := Switch{MAC: mac(1), IP: "192.0.2.1", Version: 2, Community: community}
		if got := l.power(t, sw, false, 1); !slices.Equal(got, []string{""}) || sim.Powered(1) {
			t.Errorf("community %q: %q", community, got)
		}
		sim.Close()
	}
}

func TestPowerThatFails(t *testing.T) {
	t.Parallel() // silence takes its time
	l := newLab(t)
	sim, sw := l.add(t, 1, snmptest.Netgear)
	sim.Feed(1)
	sim.Stick()
	if got := l.power(t, sw, false, 1); !slices.Equal(got, []string{"SNMP issue"}) {
		t.Errorf("a switch that does not follow: %q", got)
	}
	sim.Mute(true)
	if got := l.power(t, sw, true, 1, 2); !slices.Equal(got, []string{"SNMP issue", "SNMP issue"}) {
		t.Errorf("a mute switch: %q", got)
	}
	without := snmptest.Netgear
	without.PoE = ""
	_, sw = l.add(t, 2, without)
	if got := l.power(t, sw, true, 1); !slices.Equal(got, []string{"SNMP issue"}) {
		t.Errorf("a switch without PoE: %q", got)
	}
	sw.IP = ""
	if got := l.power(t, sw, true, 1); !slices.Equal(got, []string{"SNMP issue"}) {
		t.Errorf("no address: %q", got)
	}
}

// 10.0 keeps what it knows of a switch by its address, for ever.
func TestDefectN10CacheOfAReplacedSwitch(t *testing.T) {
	l := newLab(t)
	sim, sw := l.add(t, 1, snmptest.Netgear)
	sim.Feed(3)
	if got := l.power(t, sw, false, 3); got[0] != "" {
		t.Fatal(got)
	}
	before := sim.Requests()
	if got := l.power(t, sw, true, 3); got[0] != "" {
		t.Fatal(got)
	}
	if n := sim.Requests() - before; n != 4 { // who are you, twice; set; read back
		t.Errorf("a switch that is known is sent %d requests", n)
	}
	l.start(t) // with the file that the other has left
	before = sim.Requests()
	if got := l.power(t, sw, true, 3); got[0] != "" {
		t.Fatal(got)
	}
	if n := sim.Requests() - before; n != 4 {
		t.Errorf("after a restart the switch is sent %d requests", n)
	}
	sim.Turn(snmptest.TPLink)
	if got := l.power(t, sw, false, 3); got[0] != "" || sim.Powered(3) {
		t.Errorf("a switch of another make: %q", got)
	}
	l.explore(t, sw)
	sim.Turn(snmptest.Offset)
	if found := l.explore(t, sw); found.NeighborsError != "" || found.Labels["g8"] != 8 {
		t.Errorf("explored again: %+v", found)
	}
	if got := l.power(t, sw, true, 3); got[0] != "" || !sim.Powered(3) {
		t.Errorf("power of the third make: %q", got)
	}
}

func TestBrokenCacheIsDropped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "switches.json")
	for _, text := range []string{"", "{", `{"Format":"other","Switches":{"192.0.2.1":{}}}`, `[]`, `{"Format":"walt switches 1"}`} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		c := openCache(path)
		if len(c.switches) > 0 {
			t.Errorf("%q gives %v", text, c.switches)
		}
		c.put("192.0.2.1", knowledge{LLDP: "StandardLLDP"})
		if got := openCache(path).get("192.0.2.1", identity{}); got.LLDP != "StandardLLDP" {
			t.Errorf("after %q: %+v", text, got)
		}
	}
}

func TestManySwitchesAtTheSameTime(t *testing.T) {
	t.Parallel() // silence takes its time
	const n = 100
	l := newLab(t)
	l.timeout = time.Second // the machine may be slower than the switches
	l.start(t)
	switches := make([]Switch, n)
	for i := range switches {
		sim, sw := l.add(t, i+1, snmptest.Standard)
		for port := range 24 {
			sim.Station(port+1, mac(1000+24*i+port))
		}
		switches[i] = sw
	}
	l.switches[netip.MustParseAddr("192.0.2.50")].Mute(true) // delays nobody
	var all sync.WaitGroup
	for i, sw := range switches {
		all.Go(func() {
			found, err := l.Explore(t.Context(), sw)
			if want := 24; err != nil || len(found.Stations) != want && i != 49 {
				t.Errorf("switch %d: %d stations, %v, %s", i+1, len(found.Stations), err, found.StationsError)
			}
		})
	}
	all.Wait()
}

func TestOneSwitchIsProbedOnce(t *testing.T) {
	l := newLab(t)
	sim, sw := l.add(t, 1, snmptest.TPLink)
	if got := l.power(t, sw, true, 1); got[0] != "" {
		t.Fatal(got)
	}
	alone := sim.Requests()
	sim, sw = l.add(t, 2, snmptest.TPLink)
	var all sync.WaitGroup
	for port := range 8 {
		all.Go(func() { l.power(t, sw, true, port+1) })
	}
	all.Wait()
	if n, most := sim.Requests(), alone+7*4; n > most {
		t.Errorf("8 commands at the same time send %d requests, want at most %d", n, most)
	}
}

func TestCallersOutliveServerBlocking(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	c := Dial(socket)
	defer c.Close()
	ended := make(chan error)
	go func() {
		_, err := c.Explore(context.Background(), Switch{})
		ended <- err
	}()
	life, die := context.WithCancel(t.Context())
	started, over := make(chan bool), make(chan error)
	go func() {
		over <- connector.Listen(life, ln, func(ctx context.Context, _ *connector.Peer, _ string, _ []byte) (any, error) {
			close(started)
			<-ctx.Done()
			return nil, ctx.Err()
		})
	}()
	<-started // the call is in flight
	die()
	if err := <-over; err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("a call that server-blocking did not survive succeeds")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Power(ctx, Switch{}, []int{1}, true); err == nil {
		t.Error("a call of nobody succeeds")
	}
}

func TestExplorationEndsWithItsCaller(t *testing.T) {
	l := newLab(t)
	sim, sw := l.add(t, 1, snmptest.Netgear)
	sim.Mute(true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Explore(ctx, sw); err == nil {
		t.Error("an exploration without a caller succeeds")
	}
}

// BenchmarkExplore explores a switch with the forwarding table of a large network.
func BenchmarkExplore(b *testing.B) {
	const stations = 16000
	sim, err := snmptest.NewSwitch(snmptest.Loopback, mac(1), "private", snmptest.Standard)
	if err != nil {
		b.Fatal(err)
	}
	defer sim.Close()
	var list []string
	for n := range stations {
		list = append(list, mac(n+100))
	}
	sim.Station(1, list...)
	client := &snmp.Client{Timeout: 3 * time.Second, Retries: 2, Dial: func(ctx context.Context, _ netip.Addr) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", sim.Address().String())
	}}
	service := NewService(client, "")
	for b.Loop() {
		found := service.explore(b.Context(), Switch{MAC: mac(1), IP: "192.0.2.1", Version: 2, Community: "private"})
		if len(found.Stations) != stations {
			b.Fatalf("%d stations, %s", len(found.Stations), found.StationsError)
		}
	}
}
