package snmp

import (
	"context"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/waltos/waltos/services/internal/pattern"
)

// Neighbor is what a switch has heard by LLDP on one of its ports.
type Neighbor struct {
	Port int
	MAC  string
	IP   string // management address; "" if unknown
	Name string // lower case; "" if unknown
}

// maxNeighbors bounds what is believed of one switch.
const maxNeighbors = 4096

// LLDP is one way to read the neighbours of a switch.
type LLDP struct {
	Name      string
	probe     OID
	neighbors func(ctx context.Context, s *Session, probe []Row) ([]Neighbor, error)
	ports     func(ctx context.Context, s *Session, n *Numbering) error
}

// LLDPs returns the ways to read neighbours, in order of trial.
func LLDPs() []*LLDP {
	return []*LLDP{
		{"StandardLLDP", lldpRemChassisIDSubtype, standardNeighbors, standardPorts},
		{"TPLinkLLDP", tpLinkNeighborChassisIDType, tpLinkNeighbors, tpLinkPorts},
	}
}

// Neighbors reads the neighbours; the error is ErrNoSuchObject if the switch does not
// have this variant. SNMP v1 cannot tell a table without rows from one that does not
// exist: there the local table of LLDP-MIB decides.
func (l *LLDP) Neighbors(ctx context.Context, s *Session) ([]Neighbor, error) {
	rows, err := s.Walk(ctx, l.probe)
	if err != nil {
		if err == ErrNoSuchObject && l.probe.compare(lldpRemChassisIDSubtype) == 0 && s.target.Version == 1 {
			_, err = s.Walk(ctx, lldpLocPortID)
		}
		return nil, err
	}
	return l.neighbors(ctx, s, rows)
}

// Columns of LLDP-MIB, indexed by time mark, port, number of the neighbour.
var (
	lldpRemChassisIDSubtype = oid("1.0.8802.1.1.2.1.4.1.1.4")
	lldpRemChassisID        = oid("1.0.8802.1.1.2.1.4.1.1.5")
	lldpRemSysName          = oid("1.0.8802.1.1.2.1.4.1.1.9")
	lldpRemManAddrIfSubtype = oid("1.0.8802.1.1.2.1.4.2.1.3") // and the address
)

type neighborKey [3]uint32

func keyOf(index OID) (neighborKey, bool) {
	if len(index) < 3 || index[1] == 0 || index[1] > math.MaxInt32 {
		return neighborKey{}, false
	}
	return neighborKey(index[:3]), true
}

func standardNeighbors(ctx context.Context, s *Session, subtypes []Row) ([]Neighbor, error) {
	ids, err := s.optional(ctx, lldpRemChassisID)
	if err != nil {
		return nil, err
	}
	names, err := s.optional(ctx, lldpRemSysName)
	if err != nil {
		return nil, err
	}
	addresses, err := s.optional(ctx, lldpRemManAddrIfSubtype)
	if err != nil {
		return nil, err
	}
	return joinStandard(subtypes, ids, names, addresses), nil
}

// joinStandard joins the columns of LLDP-MIB. Neighbours whose chassis is not named by a
// MAC are left out.
func joinStandard(subtypes, ids, names, addresses []Row) []Neighbor {
	isMAC := map[neighborKey]bool{}
	for _, row := range subtypes {
		key, ok := keyOf(row.Index)
		if subtype, _ := row.Value.Int(); ok && len(row.Index) == 3 && subtype == chassisMAC {
			isMAC[key] = true
		}
	}
	nameOf := map[neighborKey]string{}
	for _, row := range names {
		if key, ok := keyOf(row.Index); ok {
			nameOf[key] = systemName(row.Value)
		}
	}
	ipOf := map[neighborKey]string{}
	for _, row := range addresses {
		key, ok := keyOf(row.Index)
		if ip, usable := managementIP(row.Index); ok && usable && ipOf[key] == "" {
			ipOf[key] = ip
		}
	}
	var found []Neighbor
	for _, row := range ids {
		key, ok := keyOf(row.Index)
		if !ok || len(row.Index) != 3 || !isMAC[key] || len(found) == maxNeighbors {
			continue
		}
		id, _ := row.Value.Bytes()
		if mac, ok := formatMAC(id); ok {
			found = append(found, Neighbor{Port: int(key[1]), MAC: mac, IP: ipOf[key], Name: nameOf[key]})
		}
	}
	return found
}

func systemName(v Value) string {
	b, _ := v.Bytes()
	name, _ := cleanText(b)
	return strings.ToLower(name)
}

// managementIP reads the IPv4 address in an index of lldpRemManAddrTable: after the key,
// family 1, length 4 and the address.
func managementIP(index OID) (string, bool) {
	if len(index) != 9 || index[3] != 1 || index[4] != 4 {
		return "", false
	}
	var b [4]byte
	for i, n := range index[5:] {
		if n > 255 {
			return "", false
		}
		b[i] = byte(n)
	}
	ip := netip.AddrFrom4(b)
	if !ip.IsGlobalUnicast() {
		return "", false
	}
	return ip.String(), true
}

// Columns of TP-Link's own tables: local ones indexed by ifIndex, those of neighbours by
// ifIndex and number.
var (
	tpLinkLocalPortID           = oid("1.3.6.1.4.1.11863.6.35.1.2.1.1.1")
	tpLinkNeighborChassisIDType = oid("1.3.6.1.4.1.11863.6.35.1.2.2.1.3")
	tpLinkNeighborChassisID     = oid("1.3.6.1.4.1.11863.6.35.1.2.2.1.4")
	tpLinkNeighborDeviceName    = oid("1.3.6.1.4.1.11863.6.35.1.2.2.1.9")
)

func tpLinkNeighbors(ctx context.Context, s *Session, types []Row) ([]Neighbor, error) {
	locals, err := s.optional(ctx, tpLinkLocalPortID)
	if err != nil {
		return nil, err
	}
	ids, err := s.optional(ctx, tpLinkNeighborChassisID)
	if err != nil {
		return nil, err
	}
	names, err := s.optional(ctx, tpLinkNeighborDeviceName)
	if err != nil {
		return nil, err
	}
	return joinTPLink(locals, types, ids, names), nil
}

// joinTPLink joins the columns of TP-Link. Neighbours whose chassis is not named by a MAC
// are left out, with all that is said of them.
func joinTPLink(locals, types, ids, names []Row) []Neighbor {
	portOfInterface := map[int]int{}
	for port, index := range tpLinkInterfaces(locals) {
		portOfInterface[index] = port
	}
	type key [2]uint32
	keyed := func(row Row) (k key, text string, ok bool) {
		b, isText := row.Value.Bytes()
		if len(row.Index) != 2 || !isText {
			return k, "", false
		}
		text, ok = cleanText(b)
		return key(row.Index), text, ok
	}
	isMAC, nameOf := map[key]bool{}, map[key]string{}
	for _, row := range types {
		if k, text, ok := keyed(row); ok && strings.EqualFold(text, "MAC address") {
			isMAC[k] = true
		}
	}
	for _, row := range names {
		if k, text, ok := keyed(row); ok {
			nameOf[k] = strings.ToLower(text)
		}
	}
	var found []Neighbor
	for _, row := range ids {
		k, text, ok := keyed(row)
		if !ok || !isMAC[k] || len(found) == maxNeighbors {
			continue
		}
		port := portOfInterface[int(k[0])]
		parsed, err := net.ParseMAC(text)
		if err != nil || port == 0 {
			continue
		}
		if mac, ok := formatMAC(parsed); ok {
			found = append(found, Neighbor{Port: port, MAC: mac, Name: nameOf[k]})
		}
	}
	return found
}

var lastDigits = pattern.Lazy(`[0-9]+(?:[^0-9]*)$`)

// tpLinkInterfaces returns the ifIndex of each port: the number of a port is the last
// group of digits of its name.
func tpLinkInterfaces(locals []Row) map[int]int {
	interfaces := map[int]int{}
	for _, row := range locals {
		index, ok := portOf(row.Index)
		text, _ := row.Value.Bytes()
		if !ok || len(text) > maxText {
			continue
		}
		digits := strings.TrimRightFunc(lastDigits().FindString(string(text)), func(r rune) bool { return r < '0' || r > '9' })
		port, err := strconv.ParseInt(digits, 10, 32)
		if err != nil || port < 1 || interfaces[int(port)] != 0 || len(interfaces) == maxPorts {
			continue
		}
		interfaces[int(port)] = index
	}
	return interfaces
}

// tpLinkPorts completes a numbering from TP-Link's local table.
func tpLinkPorts(ctx context.Context, s *Session, n *Numbering) error {
	rows, err := s.optional(ctx, tpLinkLocalPortID)
	if err != nil {
		return err
	}
	n.Interfaces = tpLinkInterfaces(rows)
	portOfInterface := map[int]int{}
	for port, index := range n.Interfaces {
		portOfInterface[index] = port
	}
	for _, row := range rows {
		index, _ := portOf(row.Index)
		text, _ := row.Value.Bytes()
		if label, ok := cleanText(text); ok && portOfInterface[index] != 0 {
			n.Labels[label] = portOfInterface[index]
		}
	}
	return nil
}
