package core

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/waltos/waltos/services/daemon/blocking"
	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/topology"
	"github.com/waltos/waltos/services/daemon/db"
)

// powerComesBack is D1.
const powerComesBack = "NOTE: WALT previously turned off PoE on some switch ports for automatic powersaving.\n" +
	"NOTE: This command will re-enable PoE on these ports.\n" +
	"NOTE: However, devices connected there may not be re-detected before a little time.\n" +
	"NOTE: Re-running a scan in 10 minutes may give better results.\n\n"

// What came of the exploration of a device (D2).
const (
	explored         = "OK"
	exploredLLDP     = "OK (LLDP-only data)"
	exploredBridge   = "OK (BRIDGE-only data)"
	switchFailed     = "FAILED (LLDP and BRIDGE SNMP issues)"
	serverFailed     = "FAILED (LLDP SNMP issue)"
	noManagementIP   = "FAILED (unknown management IP!)"
	notToBeExplored  = "FORBIDDEN (see: walt help show device-config)"
	neverToBeScanned = "INVALID (can only scan switches or the server)"
)

// maxExplorations is how many switches one scan asks at the same time.
const maxExplorations = 64

// deviceRescan finds out how devices are connected. Its result is None always (CN-09). A
// client that leaves ends it: nothing has changed then, but for the power of ports.
func (c *call) deviceRescan() (any, error) {
	devices, err := c.devices("device_set")
	if err != nil {
		return c.fail(err, nil)
	}
	c.restorePower(devices)
	var found []outcome
	for o := range c.explore(c, devices) {
		name := o.device.Name
		if o.device.Type == registry.Server {
			name = "walt server"
		}
		c.out(fmt.Sprintf("Querying %-25s %s\n", name, o.status))
		c.say("stdout.flush")
		found = append(found, o)
	}
	if c.Err() != nil {
		return nil, c.Err()
	}
	return nil, c.discovered(c, found)
}

// restorePower gives power back to the ports of switches that are off, so that what they
// feed can be found.
func (c *call) restorePower(devices []*registry.Device) {
	ports := c.offPorts(func(off db.PoEOff) bool {
		return slices.ContainsFunc(devices, func(d *registry.Device) bool { return d.MAC == off.MAC })
	})
	if len(ports) == 0 {
		return
	}
	c.err(powerComesBack)
	c.say("stderr.flush")
	type failure struct{ name, reason string }
	failed := map[failure][]string{}
	var order []failure
	for i, err := range c.restore(c, ports) {
		if err == nil {
			continue
		}
		f := failure{ports[i].Switch.Name, err.Error()}
		if failed[f] == nil {
			order = append(order, f)
		}
		failed[f] = append(failed[f], strconv.Itoa(ports[i].Port))
	}
	if len(order) == 0 {
		return
	}
	warnings := make([]string, len(order))
	for i, f := range order {
		word := "port"
		if len(failed[f]) > 1 {
			word = "ports"
		}
		warnings[i] = fmt.Sprintf("WARNING: Failed to restore PoE on switch %s %s %s -- %s!", f.name, word, strings.Join(failed[f], ", "), f.reason)
	}
	c.err(strings.Join(warnings, "\n") + "\n")
}

// outcome is what came of the exploration of a device.
type outcome struct {
	device *registry.Device
	status string
	blocking.Exploration
}

// explore asks devices at the same time what is around them, and yields the outcomes in
// the order of the devices, each as soon as it is known.
func (d *Daemon) explore(ctx context.Context, devices []*registry.Device) func(func(outcome) bool) {
	return func(yield func(outcome) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var all sync.WaitGroup
		defer all.Wait()
		defer cancel()
		slots := make(chan bool, maxExplorations)
		outcomes := make([]chan outcome, len(devices))
		for i, device := range devices {
			outcomes[i] = make(chan outcome, 1)
			all.Go(func() {
				slots <- true
				defer func() { <-slots }()
				outcomes[i] <- d.exploreOne(ctx, device)
			})
		}
		for _, o := range outcomes {
			if !yield(<-o) {
				return
			}
		}
	}
}

// exploreOne explores a device, if it may be. The server itself has no table of neighbours
// yet: switches hear it and see its MAC, and so it is found.
func (d *Daemon) exploreOne(ctx context.Context, device *registry.Device) outcome {
	o := outcome{device: device, status: switchFailed}
	switch {
	case device.Type == registry.Server:
		o.status = serverFailed
		return o
	case device.Type != registry.Switch:
		o.status = neverToBeScanned
		return o
	case !registry.ConfBool(device.Conf, "lldp.explore", false):
		o.status = notToBeExplored
		return o
	case device.IP == "":
		o.status = noManagementIP
		return o
	case d.Explorer == nil || ctx.Err() != nil:
		return o
	}
	found, err := d.Explorer.Explore(ctx, contact(device.Device))
	if err != nil {
		d.Print("cannot explore switch %s: %v", device.Name, err)
		return o
	}
	o.Exploration = found
	switch neighbors, stations := found.NeighborsError == "", found.StationsError == ""; {
	case neighbors && stations:
		o.status = explored
	case neighbors:
		o.status = exploredLLDP
	case stations:
		o.status = exploredBridge
	}
	return o
}

// answered tells whether a device has said anything.
func (o outcome) answered() bool {
	return o.status == explored || o.status == exploredLLDP || o.status == exploredBridge
}

// discovered takes over what explorations have found: devices, labels of ports, links.
func (d *Daemon) discovered(ctx context.Context, found []outcome) error {
	d.tables.setScanned()
	found = slices.DeleteFunc(slices.Clone(found), func(o outcome) bool { return !o.answered() })
	if len(found) == 0 {
		return nil
	}
	for _, o := range found {
		if len(o.Labels) > 0 {
			d.labels.learn(o.device.MAC, o.Labels)
		}
	}
	scans, err := d.scans(ctx, found)
	if err != nil {
		return err
	}
	v := d.registry.View()
	kind := func(mac string) topology.Kind { return kindOf(v.ByMAC(mac)) }
	discovery, now := topology.Discover(scans, kind), time.Now().Truncate(time.Microsecond)
	return d.changeTopology(ctx, func(links []db.Topology) []db.Topology {
		return storedLinks(discovery.Update(topologyLinks(links), kind, now))
	})
}

func kindOf(device *registry.Device) topology.Kind {
	if device == nil {
		return topology.None
	}
	switch device.Type {
	case registry.Node:
		return topology.Node
	case registry.Switch:
		return topology.Switch
	case registry.Server:
		return topology.Server
	}
	return topology.Other
}

func topologyLinks(links []db.Topology) []topology.Link {
	list := make([]topology.Link, len(links))
	for i, l := range links {
		list[i] = topology.NewLink(l.MAC1, l.Port1, l.MAC2, l.Port2)
		list[i].Confirmed = l.Confirmed
		if l.LastSeen != nil {
			list[i].LastSeen = *l.LastSeen
		}
	}
	return list
}

func storedLinks(links []topology.Link) []db.Topology {
	list := make([]db.Topology, len(links))
	for i, l := range links {
		list[i] = db.Topology{MAC1: l.MAC1, MAC2: l.MAC2, Port1: l.Port1, Port2: l.Port2, Confirmed: l.Confirmed, LastSeen: &l.LastSeen}
	}
	return list
}

// scans returns what switches have said, by the MACs that their neighbours have here. New
// neighbours are registered, as by DHCP.
func (d *Daemon) scans(ctx context.Context, found []outcome) (scans []topology.Scan, err error) {
	own := d.ownMACs()
	for _, o := range found {
		s := topology.Scan{MAC: o.device.MAC, Addresses: o.Addresses}
		for _, station := range o.Stations {
			s.Stations = append(s.Stations, topology.Sighting{Port: station.Port, MAC: cmp.Or(own[station.MAC], station.MAC)})
		}
		scans = append(scans, s)
	}
	changed := false
	err = d.locked(func() error {
		v := d.registry.View()
		aliases := topology.Aliases(scans, func(mac string) topology.Kind { return kindOf(v.ByMAC(mac)) })
		for i, o := range found {
			for _, n := range o.Neighbors {
				mac := cmp.Or(own[n.MAC], aliases[n.MAC])
				if mac == "" {
					recorded := false
					if mac, recorded, err = d.neighbor(ctx, registry.Sighting{MAC: n.MAC, IP: n.IP, Name: n.Name}); err != nil {
						return err
					}
					changed = changed || recorded
				}
				scans[i].Neighbors = append(scans[i].Neighbors, topology.Sighting{Port: n.Port, MAC: mac})
			}
		}
		return nil
	})
	if err == nil && changed {
		err = d.news.settle(ctx)
	}
	return scans, err
}

// ownMACs returns the MAC of the server by those of its other interfaces: switches hear
// LLDP from the physical one.
func (d *Daemon) ownMACs() map[string]string {
	own := map[string]string{}
	server := d.registry.View().Server()
	if server == nil || d.Interfaces == nil {
		return own
	}
	for _, mac := range d.Interfaces() {
		own[mac] = server.MAC
	}
	return own
}

// neighbor returns the MAC that a neighbour of a switch has here, after having registered
// it if need be. The server, and switches, may speak LLDP with the MAC of another of their
// interfaces: their address tells who they are. writing must be held.
func (d *Daemon) neighbor(ctx context.Context, s registry.Sighting) (mac string, changed bool, err error) {
	v := d.registry.View()
	if server := v.Server(); server != nil && s.IP == server.IP {
		return server.MAC, false, nil
	}
	if owner := v.ByIP(s.IP); owner != nil && v.ByMAC(s.MAC) == nil {
		if owner.Type == registry.Switch {
			return owner.MAC, false, nil
		}
		s.IP = "" // it is another's
	}
	change, err := v.Register(s, d.hasDefaultImage)
	if err != nil {
		d.Print("neighbour of a switch: %v", err)
		return "", false, nil
	}
	if !change.Changed {
		return s.MAC, false, nil
	}
	return change.Device.MAC, true, d.record(ctx, change)
}

// maxLabel bounds the labels of ports, as LLDP does.
const maxLabel = 255

// locate finds out by a scan at which port of a switch a node is, and remembers that this
// is the port that calls itself so. 0 is unknown.
func (d *Daemon) locate(ctx context.Context, sw, node *registry.Device, label string) (int, error) {
	if len(label) > maxLabel || !d.labels.mayScan(sw.MAC) {
		return 0, nil
	}
	o := d.exploreOne(ctx, sw)
	if !o.answered() {
		return 0, nil
	}
	if err := d.discovered(ctx, []outcome{o}); err != nil {
		return 0, err
	}
	at := d.tables.places()[node.MAC]
	if at.mac != sw.MAC || at.port == 0 || !d.tables.confirmed(node.MAC, at) {
		return 0, nil
	}
	d.labels.learn(sw.MAC, map[string]int{label: at.port})
	return at.port, nil
}
