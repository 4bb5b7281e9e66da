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
