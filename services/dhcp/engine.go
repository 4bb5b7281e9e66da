package dhcp

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/waltos/waltos/services/state"
)

const (
	offerLife   = time.Minute      // how long an address offered is kept for its client
	declineLife = 10 * time.Minute // how long a declined address is given to nobody
	leaseLife   = leaseSeconds * time.Second
	// journalPause is the age from which a renewal is worth a write: the lease lasts
	// 70 days, and a client may renew every second.
	journalPause = time.Hour
)

// engine decides what to answer; it does no input or output. It is not safe for
// concurrent use.
type engine struct {
	network netip.Prefix // Addr: the server's
	leases  *table
	devices func() *state.Snapshot
}

// answer is what must be done for one packet, in this order: probe, journal,
// register, send.
type answer struct {
	reply *reply // nil: nothing is sent
	// probe is an address whose silence must be checked before it is offered.
	probe netip.Addr
	// commit is a lease to be on disk before the reply leaves.
	commit *lease
	// register is what the daemon must know before the reply leaves.
	register *state.Registration
	note     string // for the log
}

// handle answers one packet of a client.
func (e *engine) handle(req *dhcpv4.DHCPv4, now time.Time) answer {
	if req.OpCode != dhcpv4.OpcodeBootRequest || req.HWType != 1 || len(req.ClientHWAddr) != 6 {
		return answer{}
	}
	m := mac(req.ClientHWAddr)
	if m == (mac{}) || m[0]&1 != 0 { // nobody, or a group
		return answer{}
	}
	// A relay may only be a machine of the network itself: this server serves no other,
	// and must not send to strangers.
	if relay, ok := ipOf(req.GatewayIPAddr); ok && !e.leases.host(relay) {
		return answer{}
	}
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return e.discover(req, m, now)
	case dhcpv4.MessageTypeRequest:
		return e.request(req, m, now)
	case dhcpv4.MessageTypeDecline:
		return e.decline(req, m, now)
	case dhcpv4.MessageTypeRelease:
		return e.release(req, m, now)
	case dhcpv4.MessageTypeInform:
		return e.inform(req, m)
	}
	return answer{}
}

// fixed returns the record of a client, and its fixed address if it has one.
func (e *engine) fixed(m mac) (device state.Device, known bool, addr netip.Addr) {
	device, known = e.devices().ByMAC(m.String())
	if !known || device.Type == "server" {
		return state.Device{}, false, netip.Addr{}
	}
	if a, err := netip.ParseAddr(device.IP); err == nil && e.leases.host(a) {
		addr = a
	}
	return device, true, addr
}

// taken tells whether an address is recorded for a device.
func (e *engine) taken(addr netip.Addr) bool {
	_, ok := e.devices().ByIP(addr.String())
	return ok
}

func (e *engine) discover(req *dhcpv4.DHCPv4, m mac, now time.Time) answer {
	device, known, addr := e.fixed(m)
	if addr.IsValid() {
		return answer{reply: e.reply(dhcpv4.MessageTypeOffer, req, m, addr, device)}
	}
	wanted, _ := ipOf(req.Options[optRequestedIP])
	addr = e.leases.free(m, wanted, now, e.taken, len(e.devices().Devices))
	if !addr.IsValid() {
		return answer{note: fmt.Sprintf("no free address for %s in %s", m, e.network.Masked())}
	}
	a := answer{}
	held := e.leases.byAddr[addr]
	if held == nil || held.mac != m {
		a.probe = addr
		e.leases.put(&lease{addr: addr, mac: m, until: now.Add(offerLife), probing: true})
	} else if held.probing {
		return answer{} // the offer is under way
	} else if !held.bound {
		held.until = now.Add(offerLife)
	}
	if !known {
		device = state.Device{}
	}
	a.reply = e.reply(dhcpv4.MessageTypeOffer, req, m, addr, device)
	return a
}

// request answers the three kinds of REQUEST, RFC 2131 section 4.3.2.
func (e *engine) request(req *dhcpv4.DHCPv4, m mac, now time.Time) answer {
	device, known, fixed := e.fixed(m)
	if server, ok := ipOf(req.Options[optServer]); ok && server != e.network.Addr() {
		if l := e.leases.byMAC[m]; l != nil && !l.bound { // another server was chosen
			e.leases.drop(l)
		}
		return answer{}
	}
	wanted, ok := ipOf(req.Options[optRequestedIP])
	if !ok {
		if wanted, ok = ipOf(req.ClientIPAddr); !ok {
			return answer{}
		}
	}
	if reason := e.refuse(wanted, fixed, m, now); reason != "" {
		return answer{
			reply: &reply{kind: dhcpv4.MessageTypeNak, reason: reason},
			note:  fmt.Sprintf("refused %s to %s: %s", wanted, m, reason),
		}
	}
	a := answer{}
	if !fixed.IsValid() {
		a.commit = e.bind(wanted, m, now)
	}
	a.register = registration(req, m, wanted, device, known)
	a.reply = e.reply(dhcpv4.MessageTypeAck, req, m, wanted, device)
	return a
}

// refuse tells why an address cannot be acknowledged, or returns "".
func (e *engine) refuse(wanted, fixed netip.Addr, m mac, now time.Time) string {
	switch {
	case !e.network.Contains(wanted):
		return "the address is not of this network"
	case fixed.IsValid() && wanted != fixed:
		return "this device has another address"
	case fixed.IsValid():
		return ""
	case !e.leases.host(wanted) || e.taken(wanted):
		return "the address belongs to another device"
	}
	if own := e.leases.byMAC[m]; own != nil && own.addr != wanted && !e.taken(own.addr) {
		return "another address is leased to this client"
	}
	if l := e.leases.byAddr[wanted]; l != nil && l.mac != m && l.until.After(now) {
		return "the address is leased to another client"
	}
	return ""
}

// bind leases a dynamic address, and returns the lease if it must be written.
func (e *engine) bind(addr netip.Addr, m mac, now time.Time) *lease {
	l := &lease{addr: addr, mac: m, until: now.Add(leaseLife), bound: true}
	if old := e.leases.byAddr[addr]; old != nil && old.mac == m && old.bound && l.until.Sub(old.until) < journalPause {
		return nil
	}
	e.leases.put(l)
	return l
}

// decline takes an address that its client found in use out of the pool for a time.
func (e *engine) decline(req *dhcpv4.DHCPv4, m mac, now time.Time) answer {
	addr, ok := ipOf(req.Options[optRequestedIP])
	if server, known := ipOf(req.Options[optServer]); !ok || !known || server != e.network.Addr() {
		return answer{}
	}
	if _, _, fixed := e.fixed(m); fixed.IsValid() && fixed == addr {
		return answer{note: fmt.Sprintf("%s says that its address %s is used by another machine", m, addr)}
	}
	if l := e.leases.byAddr[addr]; l == nil || l.mac != m || l.declined {
		return answer{}
	}
	e.conflict(addr, now)
	return answer{note: fmt.Sprintf("%s declined %s: another machine uses it", m, addr)}
}

// silent ends the probe of an address that nobody uses.
func (e *engine) silent(addr netip.Addr) {
	if l := e.leases.byAddr[addr]; l != nil && l.probing {
		l.probing = false
	}
}

// conflict takes an address that a stranger uses out of the pool for a time.
func (e *engine) conflict(addr netip.Addr, now time.Time) {
	if l := e.leases.byAddr[addr]; l != nil {
		e.leases.drop(l)
	}
	e.leases.put(&lease{addr: addr, until: now.Add(declineLife), declined: true})
}

// release ends a lease; its client gets the same address next time, if it can be.
func (e *engine) release(req *dhcpv4.DHCPv4, m mac, now time.Time) answer {
	addr, _ := ipOf(req.ClientIPAddr)
	l := e.leases.byMAC[m]
	if l == nil || l.addr != addr || !l.until.After(now) {
		return answer{}
	}
	ended := *l
	ended.until = now
	e.leases.put(&ended)
	return answer{commit: &ended}
}

// inform gives parameters to a machine that has its address from elsewhere.
func (e *engine) inform(req *dhcpv4.DHCPv4, m mac) answer {
	if addr, ok := ipOf(req.ClientIPAddr); !ok || !e.leases.host(addr) {
		return answer{}
	}
	device, _, _ := e.fixed(m)
	return answer{reply: e.reply(dhcpv4.MessageTypeAck, req, m, netip.Addr{}, device)}
}

func (e *engine) reply(kind dhcpv4.MessageType, req *dhcpv4.DHCPv4, m mac, addr netip.Addr, device state.Device) *reply {
	return &reply{
		kind:   kind,
		yiaddr: addr,
		host:   device.Name,
		router: device.NAT,
		boot: selectBoot(string(req.Options[optClass]), string(req.Options[optUserClass]),
			firstArch(req.Options[optArch]), m),
	}
}

// registration returns what the daemon must be told of an acknowledged client, or nil,
// by the rules of the hook, node-protocols 1.2.5.
func registration(req *dhcpv4.DHCPv4, m mac, addr netip.Addr, device state.Device, known bool) *state.Registration {
	r := state.Registration{
		VCI: text(req.Options[optClass]), UCI: text(req.Options[optUserClass]),
		IP: addr.String(), MAC: m.String(), Name: text(req.Options[optHostName]),
	}
	if !worthTelling(r, device.Type, known) {
		return nil
	}
	if r.Name == "" {
		r.Name = device.Name
	}
	r.Name = proposedName(r.Name, m)
	return &r
}

func (m mac) String() string {
	return net.HardwareAddr(m[:]).String()
}

// ipOf reads an address of a packet; a missing or zero one is none.
func ipOf(b []byte) (netip.Addr, bool) {
	addr, ok := netip.AddrFromSlice(b)
	addr = addr.Unmap()
	return addr, ok && addr.Is4() && !addr.IsUnspecified()
}
