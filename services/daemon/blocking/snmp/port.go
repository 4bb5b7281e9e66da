package snmp

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"math"
	"net"
	"slices"
	"strings"
	"unicode/utf8"
)

// Columns of IF-MIB, BRIDGE-MIB and LLDP-MIB that tell ports apart.
var (
	ifDescr              = oid("1.3.6.1.2.1.2.2.1.2")
	ifType               = oid("1.3.6.1.2.1.2.2.1.3")
	ifSpeed              = oid("1.3.6.1.2.1.2.2.1.5")
	ifPhysAddress        = oid("1.3.6.1.2.1.2.2.1.6")
	ifName               = oid("1.3.6.1.2.1.31.1.1.1.1")
	dot1dBasePortIfIndex = oid("1.3.6.1.2.1.17.1.4.1.2")
	lldpLocPortIDSubtype = oid("1.0.8802.1.1.2.1.3.7.1.2")
	lldpLocPortID        = oid("1.0.8802.1.1.2.1.3.7.1.3")
)

// Numbering tells how the port numbers of a switch relate. WalT and its users know a port
// by its number in LLDP; forwarding tables and power tables have numbers of their own.
type Numbering struct {
	Interfaces map[int]int    // ifIndex, by port
	Bridge     map[int]int    // ifIndex, by port of the bridge; empty: they are the same
	Labels     map[string]int // port, by the label that it gives itself in LLDP
}

// Equal tells whether two numberings are the same.
func (n Numbering) Equal(other Numbering) bool {
	return maps.Equal(n.Interfaces, other.Interfaces) && maps.Equal(n.Bridge, other.Bridge) && maps.Equal(n.Labels, other.Labels)
}

// Interface returns the ifIndex of a port.
func (n Numbering) Interface(port int) int {
	if index, known := n.Interfaces[port]; known {
		return index
	}
	return port
}

// ofBridge returns what maps bridge ports to ports; 0 is a port that has no number, as
// that of an aggregate whose ifIndex is the number of another port.
func (n Numbering) ofBridge() func(bridge int) int {
	ports := make(map[int]int, len(n.Interfaces))
	for port, index := range n.Interfaces {
		ports[index] = port
	}
	return func(bridge int) int {
		index := bridge
		if mapped, known := n.Bridge[bridge]; known {
			index = mapped
		}
		if port, known := ports[index]; known {
			return port
		}
		if _, taken := n.Interfaces[index]; taken {
			return 0
		}
		return index
	}
}

// optional reads a column that a switch need not have.
func (s *Session) optional(ctx context.Context, column OID) ([]Row, error) {
	rows, err := s.Walk(ctx, column)
	if errors.Is(err, ErrNoSuchObject) {
		return nil, nil
	}
	return rows, err
}

// Numbering reads how the ports of a switch are numbered, as its LLDP variant has it: by
// the names that ports have in LLDP and as interfaces, and where they have none, by
// LLDP-MIB's own rule, ifIndex or else bridge port.
func (s *Session) Numbering(ctx context.Context, lldp *LLDP) (Numbering, error) {
	n := Numbering{Interfaces: map[int]int{}, Bridge: map[int]int{}, Labels: map[string]int{}}
	rows, err := s.optional(ctx, dot1dBasePortIfIndex)
	if err != nil {
		return n, err
	}
	for _, row := range rows {
		if bridge, index, ok := numbered(row); ok && len(n.Bridge) < maxPorts {
			n.Bridge[bridge] = index
		}
	}
	if lldp == nil {
		return n, nil
	}
	return n, lldp.ports(ctx, s, &n)
}

// numbered reads a row of a table of ports whose value is a number too.
func numbered(row Row) (port, value int, ok bool) {
	port, ok = portOf(row.Index)
	v, integer := row.Value.Int()
	if !ok || !integer || v < 1 || v > math.MaxInt32 {
		return 0, 0, false
	}
	return port, int(v), true
}

// portOf reads an index that is one port number.
func portOf(index OID) (int, bool) {
	if len(index) != 1 || index[0] == 0 || index[0] > math.MaxInt32 {
		return 0, false
	}
	return int(index[0]), true
}

// maxPorts bounds the ports of a switch: LLDP numbers no more.
const maxPorts = 4096

// localPort is a port as LLDP presents it.
type localPort struct {
	number  int
	subtype int64
	id      []byte
}

// Subtypes of LLDP (IEEE 802.1AB-2016, 8.5.2 and 8.5.3).
const (
	chassisMAC = 4
	portMAC    = 3
)

// standardPorts completes a numbering from the local table of LLDP-MIB.
func standardPorts(ctx context.Context, s *Session, n *Numbering) error {
	ids, err := s.optional(ctx, lldpLocPortID)
	if err != nil || len(ids) == 0 {
		return err
	}
	subtypes, err := s.optional(ctx, lldpLocPortIDSubtype)
	if err != nil {
		return err
	}
	bySubtype := map[int]int64{}
	for _, row := range subtypes {
		if port, subtype, ok := numbered(row); ok {
			bySubtype[port] = int64(subtype)
		}
	}
	var locals []localPort
	for _, row := range ids {
		port, ok := portOf(row.Index)
		id, isText := row.Value.Bytes()
		if ok && isText && len(locals) < maxPorts {
			locals = append(locals, localPort{port, bySubtype[port], id})
		}
	}
	names := interfaceNames{known: map[int]bool{}}
	for _, by := range []struct {
		column OID
		index  *map[string]int
	}{{ifName, &names.byName}, {ifDescr, &names.byDescription}, {ifPhysAddress, &names.byMAC}} {
		rows, err := s.optional(ctx, by.column)
		if err != nil {
			return err
		}
		*by.index = names.index(rows)
	}
	n.correlate(locals, names)
	return nil
}

// interfaceNames are the ways to name an interface. The values are ifIndexes; 0 is that of a
// name that several interfaces have.
type interfaceNames struct {
	byName, byDescription, byMAC map[string]int
	known                        map[int]bool
}

// index returns the interfaces by what they have in a column.
func (names *interfaceNames) index(column []Row) map[string]int {
	found := map[string]int{}
	for _, row := range column {
		index, ok := portOf(row.Index)
		text, isText := row.Value.Bytes()
		if !ok || !isText {
			continue
		}
		names.known[index] = true
		if _, twice := found[string(text)]; twice {
			index = 0
		}
		found[string(text)] = index
	}
	return found
}

func (names *interfaceNames) find(l localPort) int {
	id := string(l.id)
	if l.subtype == portMAC {
		return names.byMAC[id]
	}
	if index := names.byName[id]; index != 0 {
		return index
	}
	return names.byDescription[id]
}

// correlate gives ports their interfaces and labels. No interface is given twice.
func (n *Numbering) correlate(locals []localPort, names interfaceNames) {
	used := map[int]bool{}
	take := func(port, index int) {
		if index != 0 && !used[index] && n.Interfaces[port] == 0 {
			n.Interfaces[port], used[index] = index, true
		}
	}
	for _, l := range locals {
		take(l.number, names.find(l))
	}
	for _, l := range locals {
		if names.known[l.number] {
			take(l.number, l.number)
		}
		take(l.number, n.Bridge[l.number])
		if label, ok := l.label(); ok {
			n.Labels[label] = l.number
		}
	}
}

// label is how a port calls itself towards its neighbours.
func (l localPort) label() (string, bool) {
	if l.subtype == portMAC {
		return formatMAC(l.id)
	}
	return cleanText(l.id)
}

// maxText bounds names, as LLDP does.
const maxText = 255

// cleanText returns a text that is one, without the zero bytes that some agents append.
func cleanText(b []byte) (string, bool) {
	b = bytes.TrimRight(b, "\x00")
	if len(b) == 0 || len(b) > maxText || !utf8.Valid(b) {
		return "", false
	}
	return strings.TrimSpace(string(b)), true
}

// formatMAC returns the address of one station: neither nothing, nor a group.
func formatMAC(b []byte) (string, bool) {
	if len(b) != 6 || b[0]&1 != 0 || slices.Equal(b, make([]byte, 6)) {
		return "", false
	}
	return net.HardwareAddr(b).String(), true
}
