package core

import (
	"cmp"
	"slices"
	"time"

	"github.com/waltos/waltos/services/daemon/db"
)

// set takes over what was loaded.
func (t *tables) set(all db.Everything) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ports, t.topology, t.poeOff, t.vpn = all.SwitchPorts, all.Topology, all.PoEOff, all.VPNMACs
	t.found = nil
}

// forget drops what refers to a device.
func (t *tables) forget(mac string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ports = slices.DeleteFunc(t.ports, func(p db.SwitchPort) bool { return p.MAC == mac })
	t.topology = slices.DeleteFunc(t.topology, func(l db.Topology) bool { return l.MAC1 == mac || l.MAC2 == mac })
	t.found = nil
	t.poeOff = slices.DeleteFunc(t.poeOff, func(p db.PoEOff) bool { return p.MAC == mac })
}

// isVPN tells whether credentials of the VPN are for a MAC address.
func (t *tables) isVPN(mac string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Contains(t.vpn, mac)
}

// namePort records the name of a port; none if it is empty.
func (t *tables) namePort(p db.SwitchPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ports = slices.DeleteFunc(t.ports, func(old db.SwitchPort) bool { return old.MAC == p.MAC && old.Port == p.Port })
	if p.Name != "" {
		t.ports = append(t.ports, p)
	}
}

// portName returns the name of a port given by a user, or "".
func (t *tables) portName(mac string, port int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.ports {
		if p.MAC == mac && p.Port == port {
			return p.Name
		}
	}
	return ""
}

// links returns all links.
func (t *tables) links() []db.Topology {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.topology)
}

// edit changes the links. The slice that edit gets is its own.
func (t *tables) edit(edit func(links []db.Topology) []db.Topology) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.topology, t.found = edit(slices.Clone(t.topology)), nil
}

// setScanned records that the network was scanned now.
func (t *tables) setScanned() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.scanned = time.Now()
}

// place is a port of a device: where another one is connected. The port is 0 if unknown.
type place struct {
	mac  string
	port int
}

func comparePorts(a, b PoEPort) int {
	return cmp.Or(cmp.Compare(a.Switch.MAC, b.Switch.MAC), cmp.Compare(a.Port, b.Port))
}

func containsPort(ports []PoEPort, at place) bool {
	return slices.ContainsFunc(ports, func(p PoEPort) bool { return p.Switch.MAC == at.mac && p.Port == at.port })
}

// positions is the topology by device and by port.
type positions struct {
	places map[string]place   // the best known one of each device, by MAC
	peers  map[place][]string // MACs of the devices connected to a port
}

// positions returns what the topology says, which must not be modified.
func (t *tables) positions() *positions {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.found == nil {
		t.found = locateAll(t.topology)
	}
	return t.found
}

// locateAll makes positions of links: confirmed links are better than others.
func locateAll(links []db.Topology) *positions {
	p := &positions{places: make(map[string]place, len(links)), peers: make(map[place][]string, len(links))}
	sure := map[string]bool{}
	add := func(mac string, at place, confirmed bool) {
		if _, known := p.places[mac]; !known || confirmed && !sure[mac] {
			p.places[mac], sure[mac] = at, confirmed
		}
		if at.port != 0 {
			p.peers[at] = append(p.peers[at], mac)
		}
	}
	for _, l := range links {
		add(l.MAC1, place{l.MAC2, l.Port2}, l.Confirmed)
		add(l.MAC2, place{l.MAC1, l.Port1}, l.Confirmed)
	}
	return p
}

// places returns the best known place of each device, by MAC.
func (t *tables) places() map[string]place { return t.positions().places }

// peer returns the device at the other end of a link that ends at a place.
func (p place) peer(l db.Topology) (mac string, found bool) {
	switch {
	case p.port == 0:
		return "", false
	case l.MAC1 == p.mac && l.Port1 == p.port:
		return l.MAC2, true
	case l.MAC2 == p.mac && l.Port2 == p.port:
		return l.MAC1, true
	}
	return "", false
}

// fed returns the devices connected to a port.
func (t *tables) fed(mac string, port int) (macs []string) {
	return t.positions().peers[place{mac, port}]
}

// off returns the ports that are off.
func (t *tables) off() []db.PoEOff {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.poeOff)
}

func (t *tables) isOff(at place) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.poeOff, func(p db.PoEOff) bool { return p.MAC == at.mac && p.Port == at.port })
}

func (t *tables) setOff(off db.PoEOff) {
	t.setOn(off.MAC, off.Port)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.poeOff = append(t.poeOff, off)
}

func (t *tables) setOn(mac string, port int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.poeOff = slices.DeleteFunc(t.poeOff, func(p db.PoEOff) bool { return p.MAC == mac && p.Port == port })
}

// portState is what is known of one port of a switch.
type portState struct {
	name string // given by a user
	peer string // name of the device behind it
	off  string // why it has no power
}

// portsOf returns what is known of the ports of a switch, by number.
func (t *tables) portsOf(mac string, nameOf func(mac string) string) map[int]portState {
	t.mu.Lock()
	defer t.mu.Unlock()
	ports := map[int]portState{}
	edit := func(port int, change func(*portState)) {
		p := ports[port]
		change(&p)
		ports[port] = p
	}
	for _, l := range t.topology {
		if l.MAC1 == mac && l.Port1 != 0 {
			edit(l.Port1, func(p *portState) { p.peer = nameOf(l.MAC2) })
		}
		if l.MAC2 == mac && l.Port2 != 0 {
			edit(l.Port2, func(p *portState) { p.peer = nameOf(l.MAC1) })
		}
	}
	for _, named := range t.ports {
		if named.MAC == mac {
			edit(named.Port, func(p *portState) { p.name = named.Name })
		}
	}
	for _, off := range t.poeOff {
		if off.MAC == mac {
			edit(off.Port, func(p *portState) { p.off = off.Reason })
		}
	}
	return ports
}
