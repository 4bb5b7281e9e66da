package core

import (
	"context"
	"slices"
	"time"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/daemon/db"
)

const (
	// powersaveAfter is how long a free node is left alone before its power is cut
	// (server-state §2.13).
	powersaveAfter = 2 * time.Hour
	// restoreRetry is the time between two tries at ports that an earlier life of the
	// daemon has left off: a switch may start more slowly than the server.
	restoreRetry = time.Minute
)

// powersaveStream is the log stream about power that cannot be switched.
const powersaveStream = "platform.powersave.error"

// followIdle begins or stops to measure how long a node is idle: nodes that boot the
// default image of their model belong to nobody.
func (d *Daemon) followIdle(device db.Device) {
	if device.Type == registry.Node && device.Image == registry.DefaultImage(device.Model) {
		d.idle.Follow(device.MAC)
		return
	}
	d.idle.Leave(device.MAC)
}

// notIdle begins again to measure how long nodes are idle.
func (d *Daemon) notIdle(devices []*registry.Device) {
	for _, device := range devices {
		d.idle.Restart(device.MAC)
	}
}

// sleep cuts the power of idle nodes. Those whose power cannot be switched are tried again
// when they were idle for as long once more.
func (d *Daemon) sleep(ctx context.Context, macs []string) {
	v := d.registry.View()
	places := d.tables.places()
	var ports []PoEPort
	var asleep []*registry.Device
	for _, mac := range macs {
		node := v.ByMAC(mac)
		if node == nil || d.tables.isOff(places[mac]) {
			continue
		}
		if port, err := feed(v, places[mac]); err == nil {
			ports, asleep = append(ports, port), append(asleep, node)
		}
	}
	failures := map[string][]string{}
	for i, err := range d.cut(ctx, ports, offForPowersave) {
		if err != nil {
			failures[err.Error()] = append(failures[err.Error()], asleep[i].Name)
			continue
		}
		d.asleep(asleep[i])
	}
	for _, reason := range sortedKeys(failures) {
		d.logf(powersaveStream, "%s", text.Sentence("%s: failed to turn PoE off ("+reason+")", failures[reason]))
	}
}

// asleep records that a node is down because its power was cut.
func (d *Daemon) asleep(node *registry.Device) {
	d.down(node, "(cause: powersave, method: PoE)")
	d.monitor.Down(node.MAC, true)
	d.news.poke()
}

// wakeUp gives power back to devices whose port is off to save power, and to what switches
// among them feed, and tells the client (N11, N12).
func (c *call) wakeUp(devices []*registry.Device) {
	places := c.tables.places()
	names := map[place][]string{}
	for _, device := range devices {
		names[places[device.MAC]] = append(names[places[device.MAC]], device.Name)
	}
	v := c.registry.View()
	ports := c.offPorts(func(off db.PoEOff) bool {
		at := place{off.MAC, off.Port}
		if sw := v.ByMAC(off.MAC); names[at] == nil && slices.Contains(devices, sw) {
			names[at] = []string{sw.Name}
		}
		return off.Reason == offForPowersave && names[at] != nil
	})
	if len(ports) == 0 {
		return
	}
	c.out("Reactivating related switch port(s) in powersave mode.\n")
	failures := map[string][]string{}
	for i, err := range c.restore(c, ports) {
		if err != nil {
			at := place{ports[i].Switch.MAC, ports[i].Port}
			failures[err.Error()] = append(failures[err.Error()], names[at]...)
		}
	}
	for _, reason := range sortedKeys(failures) {
		c.err(text.Sentence("%s: warning, failed to reactivate PoE ("+reason+")", failures[reason]) + "\n")
	}
}

// restoreAll gives power back to the ports that an earlier life of the daemon has left
// off, until all of them have it or ctx ends.
func (d *Daemon) restoreAll(ctx context.Context, left []PoEPort) {
	for first := true; len(left) > 0; first = false {
		var failed []PoEPort
		for i, err := range d.restore(ctx, left) {
			if err == nil {
				continue
			}
			failed = append(failed, left[i])
			if first {
				d.logf(powersaveStream, "failed to restore PoE on switch %s port %d -- %v", left[i].Switch.Name, left[i].Port, err)
			}
		}
		if len(failed) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(restoreRetry):
		}
		left = d.offPorts(func(off db.PoEOff) bool {
			return containsPort(failed, place{off.MAC, off.Port})
		})
	}
}

// forgetMoved handles the nodes that are waiting in moving.
func (d *Daemon) forgetMoved(ctx context.Context) {
	d.moving.Range(func(mac, _ any) bool {
		d.moving.Delete(mac)
		if node := d.registry.View().ByMAC(mac.(string)); node != nil {
			d.moved(ctx, node)
		}
		return true
	})
}

// moved handles the boot of a node whose port is off: it is no longer there. The port gets
// its power back, for what is connected to it now, and the link is forgotten.
func (d *Daemon) moved(ctx context.Context, node *registry.Device) {
	at := d.tables.places()[node.MAC]
	ports := d.offPorts(func(off db.PoEOff) bool { return place{off.MAC, off.Port} == at })
	if len(ports) == 0 {
		return
	}
	d.idle.Restart(node.MAC)
	err := d.changeTopology(ctx, func(links []db.Topology) []db.Topology {
		return slices.DeleteFunc(links, func(l db.Topology) bool {
			peer, found := at.peer(l)
			return found && peer == node.MAC
		})
	})
	if err != nil {
		d.Print("cannot forget where %s was connected: %v", node.Name, err)
	}
	for i, err := range d.restore(ctx, ports) {
		if err != nil {
			d.logf(powersaveStream, "failed to restore PoE on switch %s port %d -- %v", ports[i].Switch.Name, ports[i].Port, err)
		}
	}
}
