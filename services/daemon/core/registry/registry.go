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

// Put inserts or replaces devices by their MAC, keeping what is known of their boot.
func (r *Registry) Put(devices ...db.Device) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range devices {
		if d.Conf == nil {
			d.Conf = map[string]any{}
		}
		fresh := &Device{Device: d}
		if old := r.devices[d.MAC]; old != nil {
			fresh.Booted, fresh.Powersave = old.Booted, old.Powersave
		}
		r.devices[d.MAC] = fresh
	}
	r.view.Store(nil)
}

// Delete removes a device.
func (r *Registry) Delete(mac string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.devices, mac)
	r.view.Store(nil)
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
	r.view.Store(nil)
	return true
}
