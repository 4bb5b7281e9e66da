package core

import (
	"slices"

	"github.com/waltos/waltos/services/daemon/db"
)

// set takes over what was loaded.
func (t *tables) set(all db.Everything) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ports, t.topology, t.poeOff = all.SwitchPorts, all.Topology, all.PoEOff
}

// forget drops what refers to a device.
func (t *tables) forget(mac string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ports = slices.DeleteFunc(t.ports, func(p db.SwitchPort) bool { return p.MAC == mac })
	t.topology = slices.DeleteFunc(t.topology, func(l db.Topology) bool { return l.MAC1 == mac || l.MAC2 == mac })
	t.poeOff = slices.DeleteFunc(t.poeOff, func(p db.PoEOff) bool { return p.MAC == mac })
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

// links returns all links.
func (t *tables) links() []db.Topology {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.topology)
}

// position returns the best known place of a device: the switch and the port, 0 if
// unknown. Confirmed links come first.
func (t *tables) position(mac string) (switchMAC string, port int) {
	links := t.links()
	slices.SortStableFunc(links, func(a, b db.Topology) int {
		switch {
		case a.Confirmed == b.Confirmed:
			return 0
		case a.Confirmed:
			return -1
		}
		return 1
	})
	for _, l := range links {
		switch mac {
		case l.MAC1:
			return l.MAC2, l.Port2
		case l.MAC2:
			return l.MAC1, l.Port1
		}
	}
	return "", 0
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
