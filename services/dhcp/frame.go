package dhcp

import (
	"encoding/binary"
	"net/netip"
)

// Sizes and types of Ethernet, ARP, IPv4 and UDP headers.
const (
	ethSize  = 14
	ipSize   = 20
	udpSize  = 8
	arpSize  = 28
	ethIPv4  = 0x0800
	ethARP   = 0x0806
	protoUDP = 17
)

func ethernet(dst, src mac, kind uint16) []byte {
	frame := make([]byte, 0, 600)
	frame = append(frame, dst[:]...)
	frame = append(frame, src[:]...)
	return binary.BigEndian.AppendUint16(frame, kind)
}

// udpFrame builds an Ethernet frame with a UDP datagram. It reaches a client that does
// not have its address yet, and so cannot answer ARP.
func udpFrame(dstMAC, srcMAC mac, dst, src netip.AddrPort, payload []byte) []byte {
	frame := ethernet(dstMAC, srcMAC, ethIPv4)
	srcIP, dstIP := src.Addr().As4(), dst.Addr().As4()
	length := uint16(udpSize + len(payload))

	ip := make([]byte, ipSize)
	ip[0] = 0x45 // version 4, 5 words
	binary.BigEndian.PutUint16(ip[2:], ipSize+length)
	ip[8] = 64 // time to live
	ip[9] = protoUDP
	copy(ip[12:], srcIP[:])
	copy(ip[16:], dstIP[:])
	binary.BigEndian.PutUint16(ip[10:], ^checksum(0, ip))
	frame = append(frame, ip...)

	udp := make([]byte, udpSize, int(length))
	binary.BigEndian.PutUint16(udp[0:], src.Port())
	binary.BigEndian.PutUint16(udp[2:], dst.Port())
	binary.BigEndian.PutUint16(udp[4:], length)
	udp = append(udp, payload...)
	sum := checksum(uint32(protoUDP)+uint32(length), srcIP[:])
	sum = checksum(uint32(sum), dstIP[:])
	sum = ^checksum(uint32(sum), udp)
	if sum == 0 { // 0 would mean: no checksum
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
	return append(frame, udp...)
}

// checksum adds b to a sum in one's complement, RFC 1071.
func checksum(sum uint32, b []byte) uint16 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// arpProbe builds the request that asks who uses addr without claiming any address
// (RFC 5227 section 2.1.1).
func arpProbe(src mac, addr netip.Addr) []byte {
	frame := ethernet(mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, src, ethARP)
	frame = append(frame, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, sizes, request
	frame = append(frame, src[:]...)
	frame = append(frame, 0, 0, 0, 0)
	frame = append(frame, 0, 0, 0, 0, 0, 0)
	ip := addr.As4()
	return append(frame, ip[:]...)
}

// arpSender returns who says, in an ARP frame, that it has which address.
func arpSender(frame []byte) (mac, netip.Addr, bool) {
	if len(frame) < ethSize+arpSize || binary.BigEndian.Uint16(frame[12:]) != ethARP {
		return mac{}, netip.Addr{}, false
	}
	arp := frame[ethSize:]
	if string(arp[:6]) != "\x00\x01\x08\x00\x06\x04" {
		return mac{}, netip.Addr{}, false
	}
	return mac(arp[8:14]), netip.AddrFrom4([4]byte(arp[14:18])), true
}
