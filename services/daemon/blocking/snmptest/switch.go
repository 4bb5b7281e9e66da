package snmptest

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Make is how a switch presents itself by SNMP.
type Make struct {
	Kind  string // sysObjectID
	LLDP  string // "standard", "tplink" or "" for none
	PoE   string // "standard", "netgear", "tplink" or "" for none
	FDB   bool   // it has Q-BRIDGE-MIB
	Ports int
	// FirstInterface is the ifIndex of port 1: 1 where all numbers of a port are the same.
	FirstInterface int
	// Uplinks is how many of the last ports have no PoE.
	Uplinks int
}

// Makes of switches.
var (
	Netgear  = Make{Kind: "1.3.6.1.4.1.4526.100.4.19", LLDP: "standard", PoE: "netgear", FDB: true, Ports: 10, FirstInterface: 1, Uplinks: 2}
	Standard = Make{Kind: "1.3.6.1.4.1.45.3.78.1", LLDP: "standard", PoE: "standard", FDB: true, Ports: 24, FirstInterface: 1}
	TPLink   = Make{Kind: "1.3.6.1.4.1.11863.1.1.19", LLDP: "tplink", PoE: "tplink", FDB: true, Ports: 10, FirstInterface: 49153, Uplinks: 2}
	// Offset is a switch whose bridge ports and ports in LLDP are not its interfaces.
	Offset = Make{Kind: "1.3.6.1.4.1.9.1.1208", LLDP: "standard", PoE: "standard", FDB: true, Ports: 8, FirstInterface: 10101}
)

// Switch is a managed switch, as its agent shows it.
type Switch struct {
	*Agent
	MAC string

	make      Make
	mu        sync.Mutex
	neighbors map[int]peer
	stations  map[int][]string
	off       map[int]bool // ports without power
	feeds     map[int]bool // ports with a device that takes power
	onPower   func(port int, on bool)
	stuck     bool
}

type peer struct{ mac, ip, name string }

// NewSwitch starts a switch.
func NewSwitch(address netip.AddrPort, mac, community string, m Make) (*Switch, error) {
	a, err := Listen(address, community)
	if err != nil {
		return nil, err
	}
	s := &Switch{
		Agent: a, MAC: mac, make: m,
		neighbors: map[int]peer{}, stations: map[int][]string{}, off: map[int]bool{}, feeds: map[int]bool{},
	}
	a.OnSet(s.setPower)
	s.refresh()
	return s, nil
}

// Neighbor makes a switch hear a neighbour by LLDP on a port.
func (s *Switch) Neighbor(port int, mac, ip, name string) {
	s.change(func() { s.neighbors[port] = peer{mac, ip, name} })
}

// Station makes a switch learn MACs on a port, and only there.
func (s *Switch) Station(port int, macs ...string) {
	s.change(func() {
		for other, list := range s.stations {
			s.stations[other] = slices.DeleteFunc(list, func(mac string) bool { return slices.Contains(macs, mac) })
		}
		s.stations[port] = append(s.stations[port], macs...)
	})
}

// Feed connects a device that takes power from a port.
func (s *Switch) Feed(port int) { s.change(func() { s.feeds[port] = true }) }

// Unplug forgets all that is connected to a port.
func (s *Switch) Unplug(port int) {
	s.change(func() {
		delete(s.neighbors, port)
		delete(s.stations, port)
		delete(s.feeds, port)
	})
}

// Turn makes the switch one of another make.
func (s *Switch) Turn(m Make) { s.change(func() { s.make = m }) }

// Stick makes the switch accept commands without following them.
func (s *Switch) Stick() { s.change(func() { s.stuck = true }) }

// OnPower has a function called when a port is switched.
func (s *Switch) OnPower(f func(port int, on bool)) { s.change(func() { s.onPower = f }) }

// Powered tells whether a port has power.
func (s *Switch) Powered(port int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.off[port]
}

func (s *Switch) change(f func()) {
	s.mu.Lock()
	f()
	s.mu.Unlock()
	s.refresh()
}

const (
	lldpMIB      = "1.0.8802.1.1.2.1"
	ifTable      = "1.3.6.1.2.1.2.2.1"
	ifXTable     = "1.3.6.1.2.1.31.1.1.1"
	bridgeMIB    = "1.3.6.1.2.1.17"
	standardPoE  = "1.3.6.1.2.1.105.1.1.1"
	netgearPoE   = "1.3.6.1.4.1.4526.11.16.1.1.1"
	tpLinkPoE    = "1.3.6.1.4.1.11863.6.56.1.1.2.1.1"
	tpLinkLLDP   = "1.3.6.1.4.1.11863.6.35.1.2"
	deviceNumber = 1 // of a neighbour on its port
)

// refresh shows the state in objects.
func (s *Switch) refresh() {
	s.mu.Lock()
	objects, columns := s.objects()
	s.mu.Unlock()
	s.Replace(objects, columns)
}

func (s *Switch) objects() (objects map[string]any, columns []string) {
	mac := hardware(s.MAC)
	objects = map[string]any{
		"1.3.6.1.2.1.1.2.0":  OID("." + s.make.Kind),
		bridgeMIB + ".1.1.0": mac,
	}
	put := func(value any, name string, index ...int) {
		for _, n := range index {
			name += "." + strconv.Itoa(n)
		}
		objects[name] = value
	}
	for port := 1; port <= s.make.Ports; port++ {
		index := s.make.FirstInterface + port - 1
		label := fmt.Sprintf("gigabitEthernet 1/0/%d", port)
		put(label, ifTable+".2", index)
		put(6, ifTable+".3", index)
		put(uint32(1e9), ifTable+".5", index)
		put(mac, ifTable+".6", index)
		put(fmt.Sprintf("g%d", port), ifXTable+".1", index)
		put(index, bridgeMIB+".1.4.1.2", port)
		switch s.make.LLDP {
		case "standard":
			put(5, lldpMIB+".3.7.1.2", port)
			put(fmt.Sprintf("g%d", port), lldpMIB+".3.7.1.3", port)
		case "tplink":
			put(label, tpLinkLLDP+".1.1.1", index)
		}
		s.putPower(put, port)
		s.putNeighbor(put, port, index)
		for _, station := range s.stations[port] {
			at := []int{1}
			for _, b := range hardware(station) {
				at = append(at, int(b))
			}
			if s.make.FDB {
				put(port, bridgeMIB+".7.1.2.2.1.2", at...)
				put(3, bridgeMIB+".7.1.2.2.1.3", at...)
			}
		}
	}
	// A management interface, that is no port of the bridge.
	put("cpu", ifTable+".2", 60000)
	put(53, ifTable+".3", 60000)
	put(uint32(0), ifTable+".5", 60000)
	put([]byte{}, ifTable+".6", 60000)
	switch s.make.LLDP {
	case "standard":
		columns = append(columns, lldpMIB+".4.1.1.4", lldpMIB+".4.1.1.5", lldpMIB+".4.1.1.9", lldpMIB+".4.2.1.3")
	case "tplink":
		columns = append(columns, tpLinkLLDP+".2.1.3", tpLinkLLDP+".2.1.4", tpLinkLLDP+".2.1.9")
	}
	if s.make.FDB {
		columns = append(columns, bridgeMIB+".7.1.2.2.1.2", bridgeMIB+".7.1.2.2.1.3")
	}
	return objects, columns
}

func (s *Switch) putPower(put func(any, string, ...int), port int) {
	t, index := s.power(port)
	if t == nil {
		return
	}
	admin, power := t.on, t.idle
	if s.off[port] {
		admin = t.off
	} else if s.feeds[port] {
		power = t.delivering
	}
	put(admin, t.admin, index...)
	put(power, t.status, index...)
}

// powerTable is a way to control the power of ports: two columns and their values.
type powerTable struct {
	admin, status             string
	on, off, idle, delivering int
}

// power returns the table that controls a port, nil if none does, and its index there.
func (s *Switch) power(port int) (*powerTable, []int) {
	switch {
	case port > s.make.Ports-s.make.Uplinks:
	case s.make.PoE == "standard":
		return &powerTable{standardPoE + ".3", standardPoE + ".6", 1, 2, 2, 3}, []int{1, port}
	case s.make.PoE == "netgear":
		return &powerTable{netgearPoE + ".3", netgearPoE + ".6", 1, 2, 2, 3}, []int{1, port}
	case s.make.PoE == "tplink":
		return &powerTable{tpLinkPoE + ".2", tpLinkPoE + ".11", 1, 0, 0, 2}, []int{port}
	}
	return nil, nil
}

func (s *Switch) putNeighbor(put func(any, string, ...int), port, index int) {
	n, heard := s.neighbors[port]
	if !heard {
		return
	}
	switch s.make.LLDP {
	case "standard":
		put(4, lldpMIB+".4.1.1.4", 0, port, deviceNumber)
		put(hardware(n.mac), lldpMIB+".4.1.1.5", 0, port, deviceNumber)
		put(n.name, lldpMIB+".4.1.1.9", 0, port, deviceNumber)
		if ip, err := netip.ParseAddr(n.ip); err == nil {
			at := []int{0, port, deviceNumber, 1, 4}
			for _, b := range ip.As4() {
				at = append(at, int(b))
			}
			put(2, lldpMIB+".4.2.1.3", at...)
		}
	case "tplink":
		put("MAC address", tpLinkLLDP+".2.1.3", index, deviceNumber)
		put(strings.ToUpper(n.mac), tpLinkLLDP+".2.1.4", index, deviceNumber)
		put(n.name, tpLinkLLDP+".2.1.9", index, deviceNumber)
	}
}

// setPower serves a SET.
func (s *Switch) setPower(name string, value int) bool {
	for port := 1; port <= s.make.Ports; port++ {
		s.mu.Lock()
		t, index := s.power(port)
		notify, stuck := s.onPower, s.stuck
		s.mu.Unlock()
		if t == nil {
			continue
		}
		object := "." + t.admin
		for _, n := range index {
			object += "." + strconv.Itoa(n)
		}
		if object != name {
			continue
		}
		if value != t.on && value != t.off {
			return false
		}
		if stuck {
			return true
		}
		s.change(func() { s.off[port] = value == t.off })
		if notify != nil {
			notify(port, value == t.on)
		}
		return true
	}
	return false
}

func hardware(mac string) []byte {
	b, err := net.ParseMAC(mac)
	if err != nil {
		panic(err)
	}
	return b
}
