package core

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/db"
)

// Why ports are off, as in table poeoff.
const (
	offForPowersave = "powersave"
	offForReboot    = "hard-reboot"
)

// powerTimeout bounds a change of the power of ports, whatever becomes of the client that
// asked for it: no port must stay off because a client has left.
const powerTimeout = time.Minute

// Why the power of a device cannot be switched, in the words of 10.0 (server-state §1.7).
var (
	errUnknownPosition = errors.New("unknown LLDP network position")
	errForbidden       = errors.New("forbidden on switch")
)

// feed returns the port that feeds a device, or why it cannot be switched.
func feed(v *registry.View, p place) (PoEPort, error) {
	sw := v.ByMAC(p.mac)
	switch {
	case p.port == 0 || sw == nil || sw.IP == "":
		return PoEPort{}, errUnknownPosition
	case !registry.ConfBool(sw.Conf, "poe.reboots", false):
		return PoEPort{}, errForbidden
	}
	return PoEPort{Switch: sw.Device, Port: p.port}, nil
}

// cut switches ports off, and records why. They are recorded before they are off: a daemon
// that dies meanwhile switches them on again. The errors are those of the ports.
func (d *Daemon) cut(ctx context.Context, ports []PoEPort, reason string) []error {
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), powerTimeout)
	defer cancel()
	errs := make([]error, len(ports))
	var recorded []PoEPort
	var index []int
	for i, p := range ports {
		off := db.PoEOff{MAC: p.Switch.MAC, Port: p.Port, Reason: reason}
		if errs[i] = d.stored(within, func(ctx context.Context) error { return d.Store.SavePoEOff(ctx, off) }); errs[i] == nil {
			d.tables.setOff(off)
			recorded = append(recorded, p)
			index = append(index, i)
		}
	}
	for i, err := range d.PoE.Switch(within, recorded, false) {
		if err != nil {
			errs[index[i]] = err
			d.recordOn(within, recorded[i])
		}
	}
	d.markPowersave()
	return errs
}

// restore switches ports on. Nodes that they feed begin to boot, and are not idle. The
// errors are those of the ports.
func (d *Daemon) restore(ctx context.Context, ports []PoEPort) []error {
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), powerTimeout)
	defer cancel()
	errs := d.PoE.Switch(within, ports, true)
	for i, p := range ports {
		if errs[i] != nil {
			continue
		}
		d.recordOn(within, p)
		for _, mac := range d.tables.fed(p.Switch.MAC, p.Port) {
			d.idle.Restart(mac)
			d.monitor.Starting(mac, false)
		}
	}
	d.markPowersave()
	return errs
}

// recordOn forgets that a port is off. A record that stays makes the port be switched on
// once more, which does no harm.
func (d *Daemon) recordOn(ctx context.Context, p PoEPort) {
	if err := d.stored(ctx, func(ctx context.Context) error { return d.Store.DeletePoEOff(ctx, p.Switch.MAC, p.Port) }); err != nil {
		d.Print("cannot record that port %d of %s is on: %v", p.Port, p.Switch.Name, err)
		return
	}
	d.tables.setOn(p.Switch.MAC, p.Port)
}

// markPowersave makes the registry tell which nodes are off to save power.
func (d *Daemon) markPowersave() {
	asleep := map[string]bool{}
	for _, off := range d.tables.off() {
		if off.Reason == offForPowersave {
			for _, mac := range d.tables.fed(off.MAC, off.Port) {
				asleep[mac] = true
			}
		}
	}
	d.registry.SetPowersave(asleep)
}

// offPorts returns the ports that are off and whose switch is known, among those that
// keep accepts.
func (d *Daemon) offPorts(keep func(db.PoEOff) bool) []PoEPort {
	v := d.registry.View()
	var ports []PoEPort
	for _, off := range d.tables.off() {
		if sw := v.ByMAC(off.MAC); sw != nil && keep(off) {
			ports = append(ports, PoEPort{Switch: sw.Device, Port: off.Port})
		}
	}
	slices.SortFunc(ports, comparePorts)
	return ports
}

// cycles counts the reboots that have ports off for a moment. What stays off at the end of
// the daemon is switched on at its next start.
type cycles struct {
	mu   sync.Mutex
	open int
	none chan struct{} // closed when open gets 0
}

func (c *cycles) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open++; c.open == 1 {
		c.none = make(chan struct{})
	}
}

func (c *cycles) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open--; c.open == 0 {
		close(c.none)
	}
}

// wait returns when no reboot has ports off, or after the timeout.
func (c *cycles) wait(timeout time.Duration) {
	c.mu.Lock()
	open, none := c.open, c.none
	c.mu.Unlock()
	if open == 0 {
		return
	}
	select {
	case <-none:
	case <-time.After(timeout):
	}
}
