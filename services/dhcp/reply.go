package dhcp

import (
	"encoding/binary"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// leaseSeconds is the life of every lease, whatever the client asks [C].
const leaseSeconds = 6000000

// minReply is the size every reply is padded to: BOOTP clients refuse less.
const minReply = 300

// Codes of the options in use (RFC 2132, 3397, 4578, 3046).
const (
	optMask        = 1
	optRouter      = 3
	optDNS         = 6
	optHostName    = 12
	optDomain      = 15
	optBroadcast   = 28
	optNTP         = 42
	optVendor      = 43
	optRequestedIP = 50
	optLease       = 51
	optType        = 53
	optServer      = 54
	optParameters  = 55
	optMessage     = 56
	optClass       = 60
	optClientID    = 61
	optTFTPServer  = 66
	optUserClass   = 77
	optRelay       = 82
	optArch        = 93
	optSearch      = 119
	optEnd         = 255
)

// alwaysSent are returned even unasked, in this order; usualOrder is the order of the
// rest for a client without a parameter request list. Both as measured on 10.0.
var (
	alwaysSent = []byte{optType, optServer, optLease, optMask}
	usualOrder = []byte{optRouter, optDNS, optHostName, optTFTPServer, optSearch, optBroadcast, optNTP, optClass, optDomain, optVendor}
)

// reply is one answer; encode makes the packet.
type reply struct {
	kind   dhcpv4.MessageType
	yiaddr netip.Addr // zero for NAK and INFORM
	host   string     // option 12, "" for none
	router bool       // option 3
	boot   boot
	reason string // option 56 of a NAK
}

// encode builds the packet that answers req. Options follow the order of the request
// list, which dhcpv4 does not keep.
func (r *reply) encode(network netip.Prefix, req *dhcpv4.DHCPv4) []byte {
	server := network.Addr().As4()
	p := make([]byte, 240, 512)
	p[0] = byte(dhcpv4.OpcodeBootReply)
	p[1] = byte(req.HWType)
	p[2] = byte(len(req.ClientHWAddr))
	copy(p[4:8], req.TransactionID[:])
	binary.BigEndian.PutUint16(p[10:], req.Flags)
	copy(p[24:28], req.GatewayIPAddr.To4())
	copy(p[28:44], req.ClientHWAddr)
	nak := r.kind == dhcpv4.MessageTypeNak
	if !nak {
		copy(p[12:16], req.ClientIPAddr.To4())
		copy(p[20:24], server[:])
		copy(p[108:235], r.boot.file) // at least one zero ends it
	}
	if r.yiaddr.IsValid() {
		yiaddr := r.yiaddr.As4()
		copy(p[16:20], yiaddr[:])
	}
	copy(p[236:240], "\x63\x82\x53\x63")

	values := r.options(network)
	put := func(code byte) {
		if value, ok := values[code]; ok && len(value) < 256 {
			p = append(append(p, code, byte(len(value))), value...)
			delete(values, code)
		}
	}
	for _, code := range alwaysSent {
		put(code)
	}
	if nak {
		put(optMessage)
	} else if list := req.Options[optParameters]; len(list) > 0 {
		for _, code := range list {
			put(code)
		}
	} else {
		for _, code := range usualOrder {
			put(code)
		}
	}
	if relay := req.Options[optRelay]; relay != nil && len(relay) < 256 { // RFC 3046: echoed, last
		p = append(append(p, optRelay, byte(len(relay))), relay...)
	}
	p = append(p, optEnd)
	for len(p) < minReply {
		p = append(p, 0)
	}
	return p
}

// options returns the value of each option this reply may hold.
func (r *reply) options(network netip.Prefix) map[byte][]byte {
	server := network.Addr().AsSlice()
	values := map[byte][]byte{
		optType:   {byte(r.kind)},
		optServer: server,
	}
	if r.kind == dhcpv4.MessageTypeNak {
		values[optMessage] = []byte(r.reason)
		return values
	}
	if r.yiaddr.IsValid() { // not in the answer to INFORM: it leases nothing
		values[optLease] = binary.BigEndian.AppendUint32(nil, leaseSeconds)
	}
	values[optMask] = binary.BigEndian.AppendUint32(nil, mask(network))
	values[optDNS] = server
	values[optDomain] = []byte("walt")
	values[optBroadcast] = lastAddr(network).AsSlice()
	values[optNTP] = server
	values[optTFTPServer] = []byte(network.Addr().String())
	values[optSearch] = []byte("\x04walt\x00")
	if r.router {
		values[optRouter] = server
	}
	if r.host != "" {
		values[optHostName] = []byte(r.host)
	}
	if r.boot.vendor != "" {
		values[optClass] = []byte(r.boot.vendor)
		values[optVendor] = []byte(r.boot.menu)
	}
	return values
}

// mask returns the subnet mask as a number.
func mask(network netip.Prefix) uint32 {
	return ^uint32(0) << (32 - network.Bits())
}

// number and address convert IPv4 addresses to numbers and back.
func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func address(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// lastAddr returns the broadcast address.
func lastAddr(network netip.Prefix) netip.Addr {
	return address(number(network.Addr()) | ^mask(network))
}
