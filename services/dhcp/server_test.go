package dhcp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"

	"github.com/waltos/waltos/services/internal/nettest"
	"github.com/waltos/waltos/services/metrics/metricstest"
	"github.com/waltos/waltos/services/state"
)

// daemon registers devices as server-main does; it can be away.
type daemon struct {
	mu       sync.Mutex
	away     bool
	snapshot *state.Snapshot
	seen     chan state.Registration
}

func (d *daemon) Current() *state.Snapshot {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.snapshot
}

func (d *daemon) Register(ctx context.Context, r state.Registration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away {
		return errors.New("cannot reach the daemon")
	}
	d.seen <- r
	d.snapshot = &state.Snapshot{Devices: append([]state.Device{{
		MAC: r.MAC, IP: r.IP, Name: "node-" + r.MAC[len(r.MAC)-2:], Type: "node", NAT: true,
	}}, d.snapshot.Devices...)}
	return nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// plug makes the bridge walt-net with the server's address, and a cable from it to
// the client interface "cl0".
func plug(t *testing.T) {
	t.Helper()
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "walt-net"}}
	if err := netlink.LinkAdd(bridge); err != nil {
		t.Skipf("this kernel has no bridge: %v", err)
	}
	addr, err := netlink.ParseAddr("192.168.152.1/24")
	must(t, err)
	must(t, netlink.AddrAdd(bridge, addr))
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "port0", MasterIndex: bridge.Index}, PeerName: "cl0"}
	must(t, netlink.LinkAdd(veth))
	for _, name := range []string{"lo", "walt-net", "port0", "cl0"} {
		link, err := netlink.LinkByName(name)
		must(t, err)
		must(t, netlink.LinkSetUp(link))
	}
}

// client returns a DHCP client of a machine with that address.
func client(t *testing.T, hw string, options ...nclient4.ClientOpt) *nclient4.Client {
	t.Helper()
	mac, err := net.ParseMAC(hw)
	must(t, err)
	link, err := netlink.LinkByName("cl0")
	must(t, err)
	must(t, netlink.SetPromiscOn(link))
	c, err := nclient4.New("cl0", append([]nclient4.ClientOpt{
		nclient4.WithHWAddr(mac), nclient4.WithTimeout(2 * time.Second), nclient4.WithRetry(10)}, options...)...)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func startServer(t *testing.T, d *daemon, journal string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	server, err := New(Config{
		Interface: "walt-net", Network: netip.MustParsePrefix("192.168.152.1/24"), Journal: journal, State: d, RetryPause: 20 * time.Millisecond,
	})
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	return func() {
		for _, series := range [][]string{
			{"walt_dhcp_received_messages_total", "type", "request"}, {"walt_dhcp_sent_messages_total", "type", "ack"}, {"walt_dhcp_leases"},
		} {
			if n := metricstest.Number(server.Measures(), series[0], series[1:]...); n == 0 {
				t.Errorf("after requests were acknowledged, %v is 0", series)
			}
		}
		cancel()
		must(t, <-done)
	}
}

// TestOverTheWire runs real clients against the server, through a bridge of the kernel.
func TestOverTheWire(t *testing.T) {
	if !nettest.Enter(t) {
		return
	}
	plug(t)
	journal := filepath.Join(t.TempDir(), "leases")
	d := &daemon{seen: make(chan state.Registration, 10), snapshot: &state.Snapshot{Devices: []state.Device{
		{MAC: "52:54:00:00:00:09", IP: "192.168.152.9", Name: "known", Type: "node"},
	}}}
	stop := startServer(t, d, journal)

	// Somebody uses the first free address without asking.
	link, err := netlink.LinkByName("cl0")
	must(t, err)
	squatted, err := netlink.ParseAddr("192.168.152.2/32")
	must(t, err)
	must(t, netlink.AddrAdd(link, squatted))

	modes := map[string]dhcpv4.Modifier{
		"broadcast": dhcpv4.WithBroadcast(true), "unicast": dhcpv4.WithBroadcast(false),
	}
	asking := dhcpv4.WithRequestedOptions(dhcpv4.OptionHostName)
	for name, mode := range modes {
		lease, err := client(t, "52:54:00:00:00:09").Request(t.Context(), mode, asking,
			dhcpv4.WithGeneric(dhcpv4.OptionClassIdentifier, []byte(classBIOS)),
			dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 0}))
		must(t, err)
		if got := lease.ACK; got.YourIPAddr.String() != "192.168.152.9" || got.HostName() != "known" ||
			got.BootFileName != fileBIOS || got.ServerIPAddr.String() != "192.168.152.1" {
			t.Errorf("%s: known node got %s", name, got.Summary())
		}
	}

	fresh := client(t, "02:00:00:00:00:aa")
	lease, err := fresh.Request(t.Context(), asking,
		dhcpv4.WithGeneric(dhcpv4.OptionUserClassInformation, []byte("walt.node.pc-x86-64")))
	must(t, err)
	if got := lease.ACK; got.YourIPAddr.String() != "192.168.152.3" || got.HostName() != "node-aa" ||
		len(got.Router()) != 1 || got.IPAddressLeaseTime(0) != leaseLife {
		t.Errorf("new node got %s", got.Summary())
	}
	if r := <-d.seen; r.UCI != "walt.node.pc-x86-64" || r.IP != "192.168.152.3" {
		t.Errorf("registered: %+v", r)
	}

	// The daemon is away: clients are served, the lease survives a restart, and the
	// registration comes later.
	d.mu.Lock()
	d.away = true
	d.mu.Unlock()
	lease, err = client(t, "02:00:00:00:00:bb").Request(t.Context())
	must(t, err)
	addr := lease.ACK.YourIPAddr.String()
	stop()
	stop = startServer(t, d, journal)
	again, err := client(t, "02:00:00:00:00:bb").Request(t.Context())
	must(t, err)
	if got := again.ACK.YourIPAddr.String(); got != addr {
		t.Errorf("after a restart the client has %s instead of %s", got, addr)
	}
	d.mu.Lock()
	d.away = false
	d.mu.Unlock()
	if r := <-d.seen; r.MAC != "02:00:00:00:00:bb" || r.IP != addr {
		t.Errorf("registered later: %+v", r)
	}

	// A wrong address is refused.
	offer, err := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0, 0, 0, 0, 0xcc})
	must(t, err)
	offer.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeRequest))
	offer.UpdateOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 9, 9, 9)))
	c := client(t, "02:00:00:00:00:cc")
	nak, err := c.SendAndRead(t.Context(), nclient4.DefaultServers, offer, nil)
	must(t, err)
	if nak.MessageType() != dhcpv4.MessageTypeNak {
		t.Errorf("wrong address: %s", nak.Summary())
	}
	stop()
}
