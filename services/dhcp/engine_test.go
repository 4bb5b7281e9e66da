package dhcp

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/waltos/waltos/services/state"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// newEngine returns an engine of a small network: hosts .2 to .6, .3 being a node, .4 a
// NAT node, .5 an unknown device.
func newEngine() (*engine, *state.Snapshot) {
	network := netip.MustParsePrefix("192.168.152.1/29")
	snapshot := &state.Snapshot{Devices: []state.Device{
		{MAC: "52:54:00:00:00:01", IP: "192.168.152.1", Name: "walt-server", Type: "server"},
		{MAC: "52:54:00:00:00:03", IP: "192.168.152.3", Name: "lan", Type: "node"},
		{MAC: "52:54:00:00:00:04", IP: "192.168.152.4", Name: "nat", Type: "node", NAT: true},
		{MAC: "52:54:00:00:00:05", IP: "192.168.152.5", Name: "unknown-000005", Type: "unknown"},
	}}
	return &engine{network: network, leases: newTable(network), devices: func() *state.Snapshot { return snapshot }}, snapshot
}

// packet builds what a client sends; pairs are option code and value.
func message(t testing.TB, kind dhcpv4.MessageType, hw string, options map[byte]string) *dhcpv4.DHCPv4 {
	t.Helper()
	mac, err := net.ParseMAC(hw)
	if err != nil {
		t.Fatal(err)
	}
	p, err := dhcpv4.New(dhcpv4.WithMessageType(kind), dhcpv4.WithHwAddr(mac))
	if err != nil {
		t.Fatal(err)
	}
	for code, value := range options {
		p.Options[code] = []byte(value)
	}
	p, err = dhcpv4.FromBytes(p.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ip(text string) string {
	return string(netip.MustParseAddr(text).AsSlice())
}

// acquire runs a full exchange and returns the address.
func acquire(t *testing.T, e *engine, hw string, now time.Time) netip.Addr {
	t.Helper()
	offer := e.handle(message(t, dhcpv4.MessageTypeDiscover, hw, nil), now)
	if offer.reply == nil {
		t.Fatalf("no offer to %s: %s", hw, offer.note)
	}
	if offer.probe.IsValid() {
		e.silent(offer.probe)
	}
	addr := offer.reply.yiaddr
	ack := e.handle(message(t, dhcpv4.MessageTypeRequest, hw, map[byte]string{
		optServer: ip("192.168.152.1"), optRequestedIP: string(addr.AsSlice()),
	}), now)
	if ack.reply == nil || ack.reply.kind != dhcpv4.MessageTypeAck || ack.reply.yiaddr != addr {
		t.Fatalf("%s was offered %s, then got %+v", hw, addr, ack)
	}
	return addr
}

func TestSelectBoot(t *testing.T) {
	pi, pc := mac{0xb8, 0x27, 0xeb, 1, 2, 3}, mac{0x52, 0x54, 0, 1, 2, 3}
	for _, c := range []struct {
		name, vci, uci string
		arch           int
		mac            mac
		want           boot
	}{
		{"PXE ROM", classBIOS, "", 0, pc, boot{file: fileBIOS}},
		{"iPXE of WalT", classBIOS, "walt.node.pc-x86-64", 0, pc, boot{}},
		{"iPXE of WalT on a Pi", classBIOS, "walt.node.x", 0, pi, boot{}},
		{"stock iPXE, BIOS", classBIOS, "iPXE", 0, pc, boot{file: fileScript}},
		{"stock iPXE, UEFI", "PXEClient:Arch:00007:UNDI:003010", "iPXE", 7, pc, boot{file: fileScript}},
		{"iPXE of WalT, UEFI", "PXEClient:Arch:00007:UNDI:003010", "walt.node.pc-x86-64", 7, pc, boot{}},
		{"Raspberry Pi", classBIOS, "", 0, pi, boot{vendor: "PXEClient", menu: raspberryMenu}},
		{"Raspberry Pi, no arch", classBIOS, "", archUnset, pi, boot{vendor: "PXEClient", menu: raspberryMenu}},
		{"UEFI x64", "PXEClient:Arch:00007:UNDI:003016", "", 7, pc, boot{file: fileUEFI}},
		{"UEFI x64, arch 9", "PXEClient:Arch:00009:UNDI:003016", "", 9, pc, boot{file: fileUEFI}},
		{"UEFI 32 bit", "PXEClient:Arch:00006:UNDI:003016", "", 6, pc, boot{}},
		{"other BIOS class", "PXEClient:Arch:00000:UNDI:002002", "", 0, pc, boot{}},
		{"BIOS class, no arch", classBIOS, "", archUnset, pc, boot{}},
		{"u-boot", "walt.node.rpi-3-b", "", archUnset, pi, boot{}},
		{"system", "", "", archUnset, pc, boot{}},
	} {
		if got := selectBoot(c.vci, c.uci, c.arch, c.mac); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
	// D4 of the conformance list.
	if want := "\x09\x14\x00\x00\x11\x52\x61\x73\x70\x62\x65\x72\x72\x79\x20\x50\x69\x20\x42\x6f\x6f\x74"; raspberryMenu != want {
		t.Errorf("option 43 is %x", raspberryMenu)
	}
}

// order lists the option codes of an encoded packet.
func order(p []byte) (codes []byte) {
	for p = p[240:]; p[0] != optEnd; p = p[2+p[1]:] {
		codes = append(codes, p[0])
	}
	return codes
}

func TestEncode(t *testing.T) {
	network := netip.MustParsePrefix("192.168.152.1/24")
	request := message(t, dhcpv4.MessageTypeDiscover, "52:54:00:0a:0b:0c", nil)
	full := &reply{
		kind: dhcpv4.MessageTypeOffer, yiaddr: netip.MustParseAddr("192.168.152.9"), host: "n1", router: true,
		boot: boot{vendor: "PXEClient", menu: raspberryMenu},
	}
	for _, c := range []struct {
		name  string
		reply *reply
		list  string
		want  []byte
	}{
		{"no list, all", full, "", []byte{53, 54, 51, 1, 3, 6, 12, 66, 119, 28, 42, 60, 15, 43}},
		{"no list, dynamic", &reply{kind: dhcpv4.MessageTypeOffer, yiaddr: full.yiaddr}, "", []byte{53, 54, 51, 1, 6, 66, 119, 28, 42, 15}},
		{"klibc", full, "\x01\x03\x06\x0c\x0f\x11\x1a\x1c\x28\x77\x79", []byte{53, 54, 51, 1, 3, 6, 12, 15, 28, 119}},
		{"iPXE, LAN", &reply{kind: dhcpv4.MessageTypeAck, yiaddr: full.yiaddr, host: "n1"}, "\x01\x03\x06\x07\x0c\x0f\x11\x1a\x2b\x3c\x42\x43\x77", []byte{53, 54, 51, 1, 6, 12, 15, 66, 119}},
		{"repeated", full, "\x06\x06\x35\x06", []byte{53, 54, 51, 1, 6}},
		{"file name asked as an option", &reply{kind: dhcpv4.MessageTypeOffer, yiaddr: full.yiaddr, boot: boot{file: fileBIOS}}, "\x43", []byte{53, 54, 51, 1}},
		{"NAK", &reply{kind: dhcpv4.MessageTypeNak, reason: "no"}, "\x06", []byte{53, 54, 56}},
		{"INFORM", &reply{kind: dhcpv4.MessageTypeAck}, "\x06\x33", []byte{53, 54, 1, 6}},
	} {
		if c.list != "" {
			request.Options[optParameters] = []byte(c.list)
		} else {
			delete(request.Options, optParameters)
		}
		p := c.reply.encode(network, request)
		if got := order(p); !bytes.Equal(got, c.want) {
			t.Errorf("%s: options %v, want %v", c.name, got, c.want)
		}
		if len(p) < minReply {
			t.Errorf("%s: %d bytes", c.name, len(p))
		}
		back, err := dhcpv4.FromBytes(p)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if back.BootFileName != c.reply.boot.file || back.ServerHostName != "" {
			t.Errorf("%s: file %q, sname %q", c.name, back.BootFileName, back.ServerHostName)
		}
		if c.reply.kind != dhcpv4.MessageTypeNak && back.ServerIPAddr.String() != "192.168.152.1" {
			t.Errorf("%s: siaddr %s", c.name, back.ServerIPAddr)
		}
	}
	delete(request.Options, optParameters)
	back, err := dhcpv4.FromBytes(full.encode(network, request))
	if err != nil {
		t.Fatal(err)
	}
	for code, want := range map[byte]string{
		1: "\xff\xff\xff\x00", 3: ip("192.168.152.1"), 6: ip("192.168.152.1"), 12: "n1", 15: "walt",
		28: ip("192.168.152.255"), 42: ip("192.168.152.1"), 51: "\x00\x5b\x8d\x80", 54: ip("192.168.152.1"),
		60: "PXEClient", 66: "192.168.152.1", 119: "\x04walt\x00",
	} {
		if got := string(back.Options[code]); got != want {
			t.Errorf("option %d is %q, want %q", code, got, want)
		}
	}
	request.Options[optRelay] = []byte("\x01\x03abc")
	if got := order(full.encode(network, request)); got[len(got)-1] != optRelay {
		t.Errorf("options %v do not end with 82", got)
	}
}

func TestFixedAddresses(t *testing.T) {
	e, _ := newEngine()
	for _, c := range []struct {
		mac, addr, host string
		router          bool
	}{
		{"52:54:00:00:00:03", "192.168.152.3", "lan", false},
		{"52:54:00:00:00:04", "192.168.152.4", "nat", true},
		{"52:54:00:00:00:05", "192.168.152.5", "unknown-000005", false},
	} {
		for _, id := range []string{"", "\x01abcdef", "\xff12"} { // D7: the client id changes nothing
			a := e.handle(message(t, dhcpv4.MessageTypeDiscover, c.mac, map[byte]string{optClientID: id, optRequestedIP: ip("192.168.152.6")}), start)
			if a.reply == nil || a.reply.yiaddr.String() != c.addr || a.reply.host != c.host || a.reply.router != c.router || a.probe.IsValid() {
				t.Errorf("%s: %+v", c.mac, a.reply)
			}
		}
		if addr := acquire(t, e, c.mac, start); addr.String() != c.addr {
			t.Errorf("%s has %s", c.mac, addr)
		}
	}
	if len(e.leases.byAddr) != 0 {
		t.Error("a fixed address takes a lease")
	}
}

func TestPool(t *testing.T) {
	e, snapshot := newEngine()
	// Two addresses are left: .2 and .6.
	if a := acquire(t, e, "02:00:00:00:00:aa", start); a.String() != "192.168.152.2" {
		t.Errorf("first address %s", a)
	}
	if a := acquire(t, e, "02:00:00:00:00:bb", start); a.String() != "192.168.152.6" {
		t.Errorf("second address %s", a)
	}
	full := e.handle(message(t, dhcpv4.MessageTypeDiscover, "02:00:00:00:00:cc", nil), start)
	if full.reply != nil || !strings.Contains(full.note, "no free address") {
		t.Errorf("a third client gets %+v (%s)", full.reply, full.note)
	}
	// Each keeps its address; a lease that has ended goes to another.
	if a := acquire(t, e, "02:00:00:00:00:aa", start.Add(time.Hour)); a.String() != "192.168.152.2" {
		t.Errorf("first client then has %s", a)
	}
	later := start.Add(leaseLife + time.Minute)
	if a := acquire(t, e, "02:00:00:00:00:cc", later); a.String() != "192.168.152.6" {
		t.Errorf("third client has %s later", a)
	}
	// An address recorded for a device leaves the pool, though leased before.
	snapshot.Devices = append(snapshot.Devices, state.Device{MAC: "02:00:00:00:00:dd", IP: "192.168.152.6", Type: "node", Name: "d"})
	nak := e.handle(message(t, dhcpv4.MessageTypeRequest, "02:00:00:00:00:cc", map[byte]string{optRequestedIP: ip("192.168.152.6")}), later)
	if nak.reply == nil || nak.reply.kind != dhcpv4.MessageTypeNak {
		t.Errorf("an address of a device is still leased: %+v", nak.reply)
	}
}

// TestDefectN6OneAddressOfAMAC: a machine whose loaders and system name themselves each in
// its own way is one client.
func TestDefectN6OneAddressOfAMAC(t *testing.T) {
	const client = "02:00:00:00:00:aa"
	e, _ := newEngine()
	first := acquire(t, e, client, start)
	for _, id := range []string{"\x01\x02\x00\x00\x00\x00\xaa", "\xff12345678", "\x00loader"} {
		offer := e.handle(message(t, dhcpv4.MessageTypeDiscover, client, map[byte]string{optClientID: id}), start)
		if offer.reply == nil || offer.reply.yiaddr != first {
			t.Errorf("client id %q is offered %+v, and the MAC has %s", id, offer.reply, first)
		}
	}
	if n := len(e.leases.byAddr); n != 1 {
		t.Errorf("%d leases", n)
	}
}

func TestOffersEnd(t *testing.T) {
	e, _ := newEngine()
	for _, hw := range []string{"02:00:00:00:00:01", "02:00:00:00:00:02"} {
		if a := e.handle(message(t, dhcpv4.MessageTypeDiscover, hw, nil), start); !a.probe.IsValid() {
			t.Fatalf("no probe for %s", hw)
		}
	}
	if a := e.handle(message(t, dhcpv4.MessageTypeDiscover, "02:00:00:00:00:01", nil), start); a.reply != nil {
		t.Error("a repeated DISCOVER is answered before the probe has ended")
	}
	if a := e.handle(message(t, dhcpv4.MessageTypeDiscover, "02:00:00:00:00:03", nil), start); a.reply != nil {
		t.Error("an offered address is offered to another client")
	}
	if a := e.handle(message(t, dhcpv4.MessageTypeDiscover, "02:00:00:00:00:03", nil), start.Add(offerLife+time.Second)); a.reply == nil {
		t.Error("an old offer still holds its address")
	}
}

func TestRequests(t *testing.T) {
	const client = "02:00:00:00:00:aa"
	server := ip("192.168.152.1")
	for _, c := range []struct {
		name    string
		mac     string
		options map[byte]string
		ciaddr  string
		want    dhcpv4.MessageType // None: silence
	}{
		{"selecting", client, map[byte]string{optServer: server, optRequestedIP: ip("192.168.152.2")}, "", dhcpv4.MessageTypeAck},
		{"selecting another server", client, map[byte]string{optServer: ip("10.0.0.1"), optRequestedIP: ip("192.168.152.2")}, "", dhcpv4.MessageTypeNone},
		{"init-reboot", client, map[byte]string{optRequestedIP: ip("192.168.152.2")}, "", dhcpv4.MessageTypeAck},
		{"init-reboot from another network", client, map[byte]string{optRequestedIP: ip("10.9.9.9")}, "", dhcpv4.MessageTypeNak},
		{"init-reboot, other address", client, map[byte]string{optRequestedIP: ip("192.168.152.6")}, "", dhcpv4.MessageTypeNak},
		{"init-reboot, unknown client, free address", "02:00:00:00:00:bb", map[byte]string{optRequestedIP: ip("192.168.152.6")}, "", dhcpv4.MessageTypeAck},
		{"init-reboot, address of another client", "02:00:00:00:00:bb", map[byte]string{optRequestedIP: ip("192.168.152.2")}, "", dhcpv4.MessageTypeNak},
		{"address of a device", client, map[byte]string{optRequestedIP: ip("192.168.152.3")}, "", dhcpv4.MessageTypeNak},
		{"address of the server", client, map[byte]string{optRequestedIP: ip("192.168.152.1")}, "", dhcpv4.MessageTypeNak},
		{"broadcast address", client, map[byte]string{optRequestedIP: ip("192.168.152.7")}, "", dhcpv4.MessageTypeNak},
		{"device, own address", "52:54:00:00:00:03", map[byte]string{optRequestedIP: ip("192.168.152.3")}, "", dhcpv4.MessageTypeAck},
		{"device, other address", "52:54:00:00:00:03", map[byte]string{optRequestedIP: ip("192.168.152.2")}, "", dhcpv4.MessageTypeNak},
		{"renewing", client, nil, "192.168.152.2", dhcpv4.MessageTypeAck},
		{"renewing elsewhere", client, nil, "10.0.0.7", dhcpv4.MessageTypeNak},
		{"nothing asked", client, nil, "", dhcpv4.MessageTypeNone},
		{"short address", client, map[byte]string{optRequestedIP: "\x01"}, "", dhcpv4.MessageTypeNone},
	} {
		e, _ := newEngine()
		acquire(t, e, client, start)
		req := message(t, dhcpv4.MessageTypeRequest, c.mac, c.options)
		if c.ciaddr != "" {
			req.ClientIPAddr = net.ParseIP(c.ciaddr).To4()
		}
		a := e.handle(req, start.Add(time.Second))
		got := dhcpv4.MessageTypeNone
		if a.reply != nil {
			got = a.reply.kind
		}
		if got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if got == dhcpv4.MessageTypeNak && (a.commit != nil || a.register != nil) {
			t.Errorf("%s: a refusal has effects", c.name)
		}
	}
}

func TestReleaseAndDecline(t *testing.T) {
	e, _ := newEngine()
	addr := acquire(t, e, "02:00:00:00:00:aa", start)
	release := message(t, dhcpv4.MessageTypeRelease, "02:00:00:00:00:bb", nil)
	release.ClientIPAddr = addr.AsSlice()
	if a := e.handle(release, start); a.commit != nil {
		t.Error("a stranger released a lease")
	}
	release = message(t, dhcpv4.MessageTypeRelease, "02:00:00:00:00:aa", nil)
	release.ClientIPAddr = addr.AsSlice()
	if a := e.handle(release, start); a.reply != nil || a.commit == nil || a.commit.until.After(start) {
		t.Errorf("release: %+v", a)
	}
	if again := acquire(t, e, "02:00:00:00:00:aa", start.Add(time.Minute)); again != addr {
		t.Errorf("after a release the client has %s, not %s", again, addr)
	}

	decline := func(hw string) answer {
		return e.handle(message(t, dhcpv4.MessageTypeDecline, hw, map[byte]string{
			optServer: ip("192.168.152.1"), optRequestedIP: string(addr.AsSlice())}), start.Add(time.Minute))
	}
	if a := decline("02:00:00:00:00:bb"); a.note != "" {
		t.Error("a stranger declined a lease")
	}
	if a := decline("02:00:00:00:00:aa"); a.note == "" {
		t.Error("decline had no effect")
	}
	if other := acquire(t, e, "02:00:00:00:00:aa", start.Add(2*time.Minute)); other == addr {
		t.Error("a declined address is given again")
	}
	if a := acquire(t, e, "02:00:00:00:00:cc", start.Add(time.Minute+declineLife+time.Second)); a != addr {
		t.Errorf("after its time a declined address is not given again, but %s", a)
	}
}

func TestInform(t *testing.T) {
	e, _ := newEngine()
	inform := message(t, dhcpv4.MessageTypeInform, "52:54:00:00:00:04", nil)
	inform.ClientIPAddr = net.IPv4(192, 168, 152, 4).To4()
	a := e.handle(inform, start)
	if a.reply == nil || a.reply.kind != dhcpv4.MessageTypeAck || a.reply.yiaddr.IsValid() || a.register != nil {
		t.Errorf("inform: %+v", a)
	}
	inform.ClientIPAddr = net.IPv4(8, 8, 8, 8).To4()
	if a := e.handle(inform, start); a.reply != nil {
		t.Error("a machine of another network is answered")
	}
}

func TestRegistration(t *testing.T) {
	const dynamic = "02:00:00:0a:0b:0c"
	for _, c := range []struct {
		name    string
		mac     string
		options map[byte]string
		want    *state.Registration
	}{
		{"new client", dynamic, nil, &state.Registration{MAC: dynamic, IP: "192.168.152.2"}},
		{"new node by user class", dynamic, map[byte]string{optClass: classBIOS, optUserClass: "walt.node.pc-x86-64"},
			&state.Registration{MAC: dynamic, IP: "192.168.152.2", VCI: classBIOS, UCI: "walt.node.pc-x86-64"}},
		{"new node by vendor class", dynamic, map[byte]string{optClass: "walt.node.rpi-3-b"},
			&state.Registration{MAC: dynamic, IP: "192.168.152.2", VCI: "walt.node.rpi-3-b"}},
		{"named client", dynamic, map[byte]string{optHostName: "MyPC"},
			&state.Registration{MAC: dynamic, IP: "192.168.152.2", Name: "mypc-0a0b0c"}},
		{"name ends with the address", dynamic, map[byte]string{optHostName: "PC-0A0b0c"},
			&state.Registration{MAC: dynamic, IP: "192.168.152.2", Name: "pc-0a0b0c"}},
		{"hostile name", dynamic, map[byte]string{optHostName: "a\xff\x00\x00"},
			&state.Registration{MAC: dynamic, IP: "192.168.152.2", Name: "a-0a0b0c"}},
		{"node", "52:54:00:00:00:03", map[byte]string{optUserClass: "walt.node.pc-x86-64"}, nil},
		{"unknown device", "52:54:00:00:00:05", nil, nil},
		{"unknown device becomes a node", "52:54:00:00:00:05", map[byte]string{optUserClass: "walt.node.pc-x86-64"},
			&state.Registration{MAC: "52:54:00:00:00:05", IP: "192.168.152.5", UCI: "walt.node.pc-x86-64", Name: "unknown-000005"}},
	} {
		e, _ := newEngine()
		offer := e.handle(message(t, dhcpv4.MessageTypeDiscover, c.mac, c.options), start)
		if offer.register != nil {
			t.Errorf("%s: registered before it has accepted an address", c.name)
		}
		options := map[byte]string{optServer: ip("192.168.152.1"), optRequestedIP: string(offer.reply.yiaddr.AsSlice())}
		for code, value := range c.options {
			options[code] = value
		}
		got := e.handle(message(t, dhcpv4.MessageTypeRequest, c.mac, options), start).register
		if (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestIgnored(t *testing.T) {
	e, _ := newEngine()
	for name, change := range map[string]func(*dhcpv4.DHCPv4){
		"reply":         func(p *dhcpv4.DHCPv4) { p.OpCode = dhcpv4.OpcodeBootReply },
		"not Ethernet":  func(p *dhcpv4.DHCPv4) { p.HWType = 32 },
		"group address": func(p *dhcpv4.DHCPv4) { p.ClientHWAddr[0] = 1 },
		"no address":    func(p *dhcpv4.DHCPv4) { p.ClientHWAddr = make(net.HardwareAddr, 6) },
		"BOOTP":         func(p *dhcpv4.DHCPv4) { delete(p.Options, optType) },
		"offer":         func(p *dhcpv4.DHCPv4) { p.Options[optType] = []byte{2} },
		"far relay":     func(p *dhcpv4.DHCPv4) { p.GatewayIPAddr = net.IPv4(8, 8, 8, 8).To4() },
	} {
		p := message(t, dhcpv4.MessageTypeDiscover, "02:00:00:00:00:aa", nil)
		change(p)
		if a := e.handle(p, start); a.reply != nil {
			t.Errorf("%s: answered", name)
		}
	}
}

// FuzzHandle feeds arbitrary packets: no panic, and whatever is answered is a packet
// that a client can read, for an address of the network.
func FuzzHandle(f *testing.F) {
	for _, kind := range []dhcpv4.MessageType{1, 3, 4, 7, 8} {
		f.Add(message(f, kind, "02:00:00:0a:0b:0c", map[byte]string{
			optServer: ip("192.168.152.1"), optRequestedIP: ip("192.168.152.2"),
			optParameters: "\x01\x03\x06", optUserClass: "walt.node.x", optClass: classBIOS, optArch: "\x00\x07",
		}).ToBytes())
	}
	f.Add([]byte{1, 1, 6, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		req, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		e, _ := newEngine()
		acquire(t, e, "02:00:00:00:00:aa", start)
		for range 2 {
			a := e.handle(req, start)
			if a.reply == nil {
				continue
			}
			if y := a.reply.yiaddr; y.IsValid() && !e.leases.host(y) {
				t.Fatalf("address %s given", y)
			}
			p := a.reply.encode(e.network, req)
			if len(p) > 1472 {
				t.Fatalf("reply of %d bytes", len(p))
			}
			if _, err := dhcpv4.FromBytes(p); err != nil {
				t.Fatalf("unreadable reply: %v", err)
			}
		}
	})
}
