// Package registry is the platform as the daemon knows it: its devices and the images
// that nodes boot, in memory (server-state §1.9, §2). It decides names, types, sets and
// ownership; it neither stores nor sends anything.
//
// A [Registry] is written by its owner only; readers take a [View], which never changes,
// so that a listing of all nodes and a boot storm do not wait for each other.
package registry

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/waltos/waltos/services/daemon/db"
)

// Types of devices, as in table devices.
const (
	Server  = "server"
	Node    = "node"
	Switch  = "switch"
	Unknown = "unknown"
)

// ServerName is the name that the server takes at each start.
const ServerName = "walt-server"

// Registry holds the devices. Its methods may be called concurrently.
type Registry struct {
	network netip.Prefix // of walt-net, the address being the server's

	mu      sync.Mutex
	devices map[string]*Device // by MAC
	view    atomic.Pointer[View]
}

// New returns an empty registry of a platform whose server has that address on walt-net.
func New(network netip.Prefix) *Registry {
	return &Registry{network: network, devices: map[string]*Device{}}
}

// View returns the present state.
func (r *Registry) View() *View {
	if v := r.view.Load(); v != nil {
		return v
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if v := r.view.Load(); v != nil {
		return v
	}
	v := newView(r.network, r.devices)
	r.view.Store(v)
	return v
}

// supersede drops the present view, and tells those who hold it. mu must be held.
func (r *Registry) supersede() {
	if old := r.view.Swap(nil); old != nil {
		close(old.superseded)
	}
}

// Put inserts or replaces devices by their MAC, keeping what is known of their boot.
func (r *Registry) Put(devices ...db.Device) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range devices {
		r.devices[d.MAC] = fresh(d, r.devices[d.MAC])
	}
	r.supersede()
}

// Replace makes devices the only ones, keeping what is known of their boot.
func (r *Registry) Replace(devices []db.Device) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string]*Device, len(devices))
	for _, d := range devices {
		all[d.MAC] = fresh(d, r.devices[d.MAC])
	}
	r.devices = all
	r.supersede()
}

func fresh(d db.Device, old *Device) *Device {
	if d.Conf == nil {
		d.Conf = map[string]any{}
	}
	if old == nil {
		return &Device{Device: d}
	}
	return &Device{Device: d, Booted: old.Booted, Powersave: old.Powersave}
}

// Delete removes a device.
func (r *Registry) Delete(mac string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.devices, mac)
	r.supersede()
}

// SetPowersave records which nodes, by MAC, are off to save power; all others are not.
func (r *Registry) SetPowersave(asleep map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := false
	for mac, old := range r.devices {
		if saves := asleep[mac] && old.Type == Node; old.Powersave != saves {
			fresh := *old
			fresh.Powersave = saves
			r.devices[mac] = &fresh
			changed = true
		}
	}
	if changed {
		r.supersede()
	}
}

// SetBooted records whether a node is booted, and tells whether that is a change.
func (r *Registry) SetBooted(mac string, booted bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.devices[mac]
	if old == nil || old.Booted == booted {
		return false
	}
	fresh := *old
	fresh.Booted = booted
	if booted {
		fresh.Powersave = false
	}
	r.devices[mac] = &fresh
	if old := r.view.Load(); old != nil {
		r.view.Store(old.with(&fresh))
		close(old.superseded)
	}
	return true
}
