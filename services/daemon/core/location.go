package core

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/db"
)

const (
	// linksRetry is the time between two tries at storing the topology.
	linksRetry = time.Second
	// labelsAge is how long what a switch says of its ports is not asked again: all its
	// nodes may boot at the same time.
	labelsAge = time.Minute
	// maxLabels bounds what is remembered of one switch.
	maxLabels = 8192
)

// changeTopology changes the links between devices, and returns when that is stored.
// Changes made at the same time are stored together.
func (d *Daemon) changeTopology(ctx context.Context, edit func(links []db.Topology) []db.Topology) error {
	d.tables.edit(edit)
	d.markPowersave()
	d.links.poke()
	within, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	return databaseError(d.links.settle(within))
}

// storeLinks stores the topology, however long that takes.
func (d *Daemon) storeLinks(ctx context.Context) {
	for last := ""; ; {
		v := d.registry.View()
		links := slices.DeleteFunc(d.tables.links(), func(l db.Topology) bool {
			return v.ByMAC(l.MAC1) == nil || v.ByMAC(l.MAC2) == nil // just forgotten
		})
		err := d.stored(ctx, func(ctx context.Context) error { return d.Store.SetTopology(ctx, links) })
		if err == nil || ctx.Err() != nil {
			return
		}
		if err.Error() != last {
			last = err.Error()
			d.Print("cannot store the topology: %s", last)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(linksRetry):
		}
	}
}

// relocate records that a node is connected to a port of a switch, seen now (server-state
// §1.8), and tells whether that is new.
func relocate(links []db.Topology, node string, at place, now time.Time) (_ []db.Topology, changed bool) {
	known := func(l db.Topology) bool { peer, found := at.peer(l); return found && peer == node }
	of := func(l db.Topology) bool { return l.MAC1 == node || l.MAC2 == node }
	if i := slices.IndexFunc(links, of); i >= 0 && known(links[i]) && slices.IndexFunc(links[i+1:], of) < 0 {
		links[i].Confirmed, links[i].LastSeen = true, &now
		return links, false
	}
	links = slices.DeleteFunc(links, func(l db.Topology) bool {
		_, taken := at.peer(l)
		return of(l) || taken
	})
	link := db.Topology{MAC1: at.mac, Port1: at.port, MAC2: node, Confirmed: true, LastSeen: &now}
	if link.MAC1 > link.MAC2 {
		link = db.Topology{MAC1: node, MAC2: at.mac, Port2: at.port, Confirmed: true, LastSeen: &now}
	}
	return append(links, link), true
}

// confirmed tells whether a node is known to be at a place, and sure to be there.
func (t *tables) confirmed(node string, at place) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := false
	for _, l := range t.topology {
		if l.MAC1 == node || l.MAC2 == node {
			peer, there := at.peer(l)
			if !there || peer != node || !l.Confirmed {
				return false
			}
			found = true
		}
	}
	return found
}

// labels are what the ports of switches call themselves, by MAC of the switch.
type labels struct {
	mu    sync.Mutex
	known map[string]*portLabels
}

type portLabels struct {
	mu      sync.Mutex // held while the switch is asked
	asked   time.Time
	scanned time.Time // to find a label that it does not tell
	ports   map[string]int
}

// of returns the labels of a switch.
func (l *labels) of(mac string) *portLabels {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		l.known = map[string]*portLabels{}
	}
	if l.known[mac] == nil {
		l.known[mac] = &portLabels{}
	}
	return l.known[mac]
}

// learn adds labels of a switch.
func (l *labels) learn(mac string, ports map[string]int) {
	p := l.of(mac)
	p.mu.Lock()
	defer p.mu.Unlock()
	ports = maps.Clone(ports)
	for label, port := range p.ports {
		if _, newer := ports[label]; !newer && len(ports) < maxLabels {
			ports[label] = port
		}
	}
	p.ports = ports
}

// mayScan tells whether a switch may be scanned to find a label, which is not done too
// often.
func (l *labels) mayScan(mac string) bool {
	p := l.of(mac)
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.scanned) < labelsAge {
		return false
	}
	p.scanned = time.Now()
	return true
}

func (l *labels) forget(mac string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.known, mac)
}

// portLabeled returns the port of a switch that calls itself so, or 0. A switch whose
// ports have other names is asked again, but not too often.
func (d *Daemon) portLabeled(ctx context.Context, sw *registry.Device, label string) (int, error) {
	l := d.labels.of(sw.MAC)
	l.mu.Lock()
	defer l.mu.Unlock()
	if port, known := l.ports[label]; known || d.PortLabels == nil || time.Since(l.asked) < labelsAge {
		return port, nil
	}
	l.asked = time.Now()
	ports, err := d.PortLabels(ctx, sw.Device)
	if err != nil {
		return 0, err
	}
	l.ports = ports
	return ports[label], nil
}

// reportLLDPNeighbor takes what a node says of the switch that it is connected to
// (node-protocols §3.10).
func (c *call) reportLLDPNeighbor() (any, error) {
	mac, v := lowerMAC(c.text("sw_mac")), c.registry.View()
	node, neighbor := v.ByIP(c.peer.Unmap().String()), v.ByMAC(mac)
	if node == nil || node.Type != registry.Node || neighbor == nil {
		return nil, nil
	}
	switch {
	case neighbor.Type == registry.Unknown:
		return nil, c.becomeSwitch(node.Name, mac)
	case neighbor.Type != registry.Switch || !registry.ConfBool(neighbor.Conf, "lldp.explore", false):
		return nil, nil
	}
	before := c.tables.places()[node.MAC]
	port, err := c.portLabeled(c, neighbor, c.text("port_label"))
	if err == nil && port == 0 {
		port, err = c.locate(c, neighbor, node, c.text("port_label"))
	}
	if err != nil || port == 0 {
		return nil, err
	}
	at := place{mac, port}
	changed := before != at
	if !c.tables.confirmed(node.MAC, at) {
		err = c.changeTopology(c, func(links []db.Topology) []db.Topology {
			links, changed = relocate(links, node.MAC, at, time.Now())
			return links
		})
	}
	if err == nil && changed {
		name := c.tables.portName(mac, port)
		if name == "" {
			name = strconv.Itoa(port)
		}
		c.logf(devicesStream, "Node %s is now connected on %s port %s", node.Name, neighbor.Name, name)
	}
	return nil, err
}

// becomeSwitch makes an unknown device a switch, since a node says that it is one.
func (c *call) becomeSwitch(node, mac string) error {
	return c.locked(func() error {
		v := c.registry.View()
		d := v.ByMAC(mac)
		if d == nil || d.Type != registry.Unknown {
			return nil // someone else was faster
		}
		change := v.Convert(d, registry.Switch, "")
		if err := c.record(c, change); err != nil {
			return err
		}
		c.logf(devicesStream, "Node %s is connected on %s, so %s is a switch.", node, change.Device.Name, change.Device.Name)
		return nil
	})
}

// lowerMAC is a MAC as in table devices, or "" if it is none.
func lowerMAC(s string) string {
	mac, err := registry.ParseMAC(s)
	if err != nil {
		return ""
	}
	return mac
}
