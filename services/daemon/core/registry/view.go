package registry

import (
	"cmp"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/waltos/waltos/services/daemon/core/text"
)

// View is the platform at one moment.
type View struct {
	Network netip.Prefix // of walt-net, the address being the server's

	superseded chan struct{}

	byName []*Device // sorted
	*order
	nodes func() []*Device // sorted by owner, then name
	texts memo
}

// order is which devices there are, and how they are found: their positions in the list
// of all. Views between which nodes only booted share it, because all nodes of a platform
// may boot at once.
type order struct {
	mac, name, ip map[string]int
	owned         []int // of nodes, sorted by owner, then name
}

func newView(network netip.Prefix, devices map[string]*Device) *View {
	all := slices.SortedFunc(maps.Values(devices), func(a, b *Device) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.MAC, b.MAC))
	})
	o := &order{
		mac:  make(map[string]int, len(all)),
		name: make(map[string]int, len(all)),
		ip:   make(map[string]int, len(all)),
	}
	for i, d := range all {
		o.mac[d.MAC] = i
		o.name[d.Name] = i
		if d.IP != "" {
			o.ip[d.IP] = i
		}
		if d.Type == Node {
			o.owned = append(o.owned, i)
		}
	}
	slices.SortStableFunc(o.owned, func(a, b int) int { return cmp.Compare(all[a].Owner(), all[b].Owner()) })
	return viewOf(network, all, o)
}

func viewOf(network netip.Prefix, all []*Device, o *order) *View {
	v := &View{Network: network, superseded: make(chan struct{}), byName: all, order: o}
	v.nodes = sync.OnceValue(func() []*Device {
		nodes := make([]*Device, len(o.owned))
		for i, at := range o.owned {
			nodes[i] = all[at]
		}
		return nodes
	})
	return v
}

// with returns the view after a change of what is known of the boot of a device.
func (v *View) with(d *Device) *View {
	all := slices.Clone(v.byName)
	all[v.mac[d.MAC]] = d
	return viewOf(v.Network, all, v.order)
}

// at returns the device that an index gives for a key, or nil.
func (v *View) at(index map[string]int, key string) *Device {
	if i, known := index[key]; known {
		return v.byName[i]
	}
	return nil
}

// Superseded is closed once the view is no longer the present state.
func (v *View) Superseded() <-chan struct{} { return v.superseded }

// Devices returns all devices, sorted by name. The slice must not be modified.
func (v *View) Devices() []*Device { return v.byName }

// Nodes returns the nodes, sorted by owner, then name. The slice must not be modified.
func (v *View) Nodes() []*Device { return v.nodes() }

// ByName returns a device, or nil.
func (v *View) ByName(name string) *Device { return v.at(v.name, name) }

// ByMAC returns a device, or nil.
func (v *View) ByMAC(mac string) *Device { return v.at(v.mac, mac) }

// ByIP returns a device, or nil.
func (v *View) ByIP(ip string) *Device { return v.at(v.ip, ip) }

// Server returns the server itself, or nil before it is recorded.
func (v *View) Server() *Device {
	for _, d := range v.byName {
		if d.Type == Server {
			return d
		}
	}
	return nil
}

// FreeIP returns the lowest address of walt-net that no device has.
func (v *View) FreeIP() (ip string, found bool) {
	for addr := v.Network.Masked().Addr().Next(); v.InNetwork(addr.String()); addr = addr.Next() {
		if addr != v.Network.Addr() && v.ByIP(addr.String()) == nil {
			return addr.String(), true
		}
	}
	return "", false
}

// InNetwork tells whether an address is one that a device of walt-net can have: inside
// the subnet, without the addresses of the network itself and of broadcast.
func (v *View) InNetwork(ip string) bool {
	addr, err := netip.ParseAddr(ip)
	if err != nil || !v.Network.Contains(addr) || addr == v.Network.Masked().Addr() {
		return false
	}
	next := addr.Next()
	return next.IsValid() && v.Network.Contains(next)
}

// Managed tells whether a device is in walt-net and is not the server: category
// walt-net-devices.
func (v *View) Managed(d *Device) bool { return d.Type != Server && v.InNetwork(d.IP) }

// Netmask is the mask of walt-net as a dotted quad.
func (v *View) Netmask() string {
	return net.IP(net.CIDRMask(v.Network.Bits(), 32)).String()
}

// Gateway is the router that a node is told of: the server, or none ("").
func (v *View) Gateway(d *Device) string {
	if d.NAT() {
		return v.Network.Addr().String()
	}
	return ""
}

// Named returns a device, or refusal G1.
func (v *View) Named(name string) (*Device, error) {
	if d := v.ByName(name); d != nil {
		return d, nil
	}
	return nil, text.NoSuchDevice(name)
}

// NodeNamed returns a node, or refusal G1 or G4.
func (v *View) NodeNamed(name string) (*Device, error) {
	d, err := v.Named(name)
	if err != nil {
		return nil, err
	}
	if d.Type != Node {
		return nil, text.NotANode(name, d.Type)
	}
	return d, nil
}

// A User gives the name of the user that a call is made for. It is asked only when a set
// needs it, since the answer may come from the client.
type User func() (string, error)

// Resolve returns the devices of a set (client-api §2.4), sorted by name and at least one.
// It returns refusals G1 and G2, or the error of user.
func (v *View) Resolve(set string, user User) ([]*Device, error) {
	return v.ResolveWithin(set, "", user)
}

// ResolveNodes is Resolve for a set of nodes; it also returns refusal G4.
func (v *View) ResolveNodes(set string, user User) ([]*Device, error) {
	devices, err := v.Resolve(set, user)
	if err != nil {
		return nil, err
	}
	for _, d := range devices {
		if d.Type != Node {
			return nil, text.NotANode(d.Name, d.Type)
		}
	}
	return devices, nil
}

// ResolveWithin is Resolve for a set that must be within another ("": any); it also
// returns refusal G3.
func (v *View) ResolveWithin(set, allowed string, user User) ([]*Device, error) {
	devices, err := v.union(set, user)
	if err != nil {
		return nil, err
	}
	if allowed != "" {
		within, err := v.union(allowed, user)
		if err != nil {
			return nil, err
		}
		for _, d := range devices {
			if _, found := slices.BinarySearchFunc(within, d.Name, compareName); !found {
				return nil, text.NotAllowed(set, allowed)
			}
		}
	}
	if len(devices) == 0 {
		return nil, &text.Refusal{Text: text.NoMatchingDevice}
	}
	return devices, nil
}

func compareName(d *Device, name string) int { return cmp.Compare(d.Name, name) }

// union resolves the comma-separated parts of a set; it may be empty.
func (v *View) union(set string, user User) ([]*Device, error) {
	var all []*Device
	for part := range strings.SplitSeq(set, ",") {
		devices, err := v.part(part, user)
		if err != nil {
			return nil, err
		}
		all = append(all, devices...)
	}
	slices.SortFunc(all, func(a, b *Device) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.MAC, b.MAC))
	})
	return slices.Compact(all), nil
}

// part resolves one keyword or name; keywords win over names.
func (v *View) part(part string, user User) ([]*Device, error) {
	switch part {
	case "server":
		return v.filter(func(d *Device) bool { return d.Type == Server }), nil
	case "my-nodes":
		name, err := user()
		if err != nil {
			return nil, err
		}
		return v.filter(func(d *Device) bool { return d.Type == Node && d.Owner() == name }), nil
	case "all-nodes":
		return v.filter(func(d *Device) bool { return d.Type == Node }), nil
	case "free-nodes":
		return v.filter(func(d *Device) bool { return d.Type == Node && d.Image == DefaultImage(d.Model) }), nil
	case "all-switches":
		return v.filter(func(d *Device) bool { return d.Type == Switch }), nil
	case "explorable-switches":
		return v.filter(func(d *Device) bool { return d.Type == Switch && ConfBool(d.Conf, "lldp.explore", false) }), nil
	case "all-devices":
		return v.byName, nil
	}
	d, err := v.Named(part)
	if err != nil {
		return nil, err
	}
	return []*Device{d}, nil
}

func (v *View) filter(keep func(*Device) bool) []*Device {
	var kept []*Device
	for _, d := range v.byName {
		if keep(d) {
			kept = append(kept, d)
		}
	}
	return kept
}

// Names returns the names of devices.
func Names(devices []*Device) []string {
	names := make([]string, len(devices))
	for i, d := range devices {
		names[i] = d.Name
	}
	return names
}
