// Package state is what the network services (DHCP, DNS, TFTP, HTTP) know of the
// platform: a snapshot of its devices, pushed by server-main at every change over
// its socket, so that a new device or name is live at once and every reply is made
// from memory. The last snapshot is kept in a file, so that a service also answers
// while the daemon restarts.
package state

// Socket is where server-main serves this protocol.
const Socket = "/run/walt/daemon/state.sock"

// Snapshot is the whole state at one moment.
type Snapshot struct {
	Version uint64   // grows with each change, within one life of the daemon
	Devices []Device // sorted by name; the server itself included

	index *index // filled when a Watcher takes the snapshot over; nil: searched
}

// index finds the devices of one snapshot; values are positions in Devices.
type index struct {
	mac, ip, name map[string]int
}

// indexed returns a copy of s that finds its devices by index.
func (s Snapshot) indexed() *Snapshot {
	x := &index{
		mac:  make(map[string]int, len(s.Devices)),
		ip:   make(map[string]int, len(s.Devices)),
		name: make(map[string]int, len(s.Devices)),
	}
	for i, d := range s.Devices {
		x.mac[d.MAC] = i
		x.name[d.Name] = i
		if d.IP != "" {
			x.ip[d.IP] = i
		}
	}
	s.index = x
	return &s
}

// ByMAC returns the device of that address (lower case, colons).
func (s *Snapshot) ByMAC(mac string) (Device, bool) {
	return s.find(mac, func(x *index) map[string]int { return x.mac }, func(d *Device) string { return d.MAC })
}

// ByIP returns the device of that dotted quad.
func (s *Snapshot) ByIP(ip string) (Device, bool) {
	return s.find(ip, func(x *index) map[string]int { return x.ip }, func(d *Device) string { return d.IP })
}

// ByName returns the device of that name.
func (s *Snapshot) ByName(name string) (Device, bool) {
	return s.find(name, func(x *index) map[string]int { return x.name }, func(d *Device) string { return d.Name })
}

func (s *Snapshot) find(key string, in func(*index) map[string]int, of func(*Device) string) (Device, bool) {
	if key == "" {
		return Device{}, false
	}
	if s.index != nil {
		i, ok := in(s.index)[key]
		if !ok {
			return Device{}, false
		}
		return s.Devices[i], true
	}
	for i := range s.Devices {
		if of(&s.Devices[i]) == key {
			return s.Devices[i], true
		}
	}
	return Device{}, false
}

// Device is one device of the platform.
type Device struct {
	MAC     string // lower case, colons
	IP      string // dotted quad, or "" if unknown
	Name    string
	Type    string // "server", "node", "switch", "unknown"
	Model   string // nodes and switches, else ""
	Image   string // nodes: full name, else ""
	Virtual bool
	Booted  bool
	NAT     bool           // setting netsetup is NAT
	Config  map[string]any // effective settings, as the web API shows them (netsetup "NAT" or "LAN")

	// Root is the mounted image of a node, as /var/lib/walt/images/ID/fs, and BootDir
	// the folder below it that its TFTP and HTTP boot requests are served from. Both
	// are "" until the image is mounted.
	Root    string
	BootDir string
}

// Registration is what DHCP learnt of a client at an acknowledged lease.
type Registration struct {
	VCI  string // option 60
	UCI  string // option 77
	IP   string
	MAC  string
	Name string // proposed name, already completed by the rules of node-protocols 1.2.5; may be ""
}
