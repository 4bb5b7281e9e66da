// Package images keeps the operating system images of the platform: it reads and
// tags images of the container stores (containers-storage format, overlay driver),
// mounts those that nodes use, prepares each mounted root for nodes (server-state
// 3.7, node-protocols 2), exports it with NFS, and keeps the tree
// /var/lib/walt/nodes of links through which nodes find their image.
//
// Everything is reconciled: what should be is computed from the devices given, and
// compared with what the kernel and the disk hold. Nothing has to be undone at a
// stop, and a restart finds the mounts it made. What is written inside an image is
// confined to it, whatever links the image holds. What users stored (persist_dirs,
// disks) is deleted by Forget alone, never by reconciling.
package images

import (
	"net/netip"
	"time"
)

// Config says where things are. All paths are absolute.
type Config struct {
	Store     string   // writable container store: /var/lib/containers/storage
	ReadOnly  []string // read-only stores, searched after it: /usr/lib/walt/storage
	State     string   // /var/lib/walt: images, nodes, keys, ssh
	Exports   string   // folder of the export files: /run/walt/exports.d
	Exportfs  []string // command that applies them: /usr/sbin/exportfs -r -f; none: not run
	ServerSSH string   // /root/.ssh: the key pair the server reaches nodes with
	NodeTool  string   // program of nodes: /usr/lib/walt/node/walt-node; "": none is installed
	Spec      string   // /etc/walt/server.spec; a missing file is no error
	Zone      string   // time zone of the platform, as "Europe/Paris"; "": images keep theirs

	ServerMAC string       // of walt-net
	Network   netip.Prefix // address of the server in walt-net, with its length
	Grace     time.Duration
	Warn      func(format string, args ...any) // a problem that did not stop the work
}

// DefaultGrace is how long an image no node uses any more stays mounted: a node
// that reboots away from it may still run its files.
const DefaultGrace = 60 * time.Second

// DefaultConfig holds the paths of the appliance; the fields about the network are
// to be filled in.
func DefaultConfig() Config {
	return Config{
		Store:     "/var/lib/containers/storage",
		ReadOnly:  []string{"/usr/lib/walt/storage"},
		State:     "/var/lib/walt",
		Exports:   "/run/walt/exports.d",
		Exportfs:  []string{"/usr/sbin/exportfs", "-r", "-f"},
		ServerSSH: "/root/.ssh",
		NodeTool:  "/usr/lib/walt/node/walt-node",
		Spec:      "/etc/walt/server.spec",
		Grace:     DefaultGrace,
	}
}

// Image is a WalT image: an image of a store with the label walt.node.models.
type Image struct {
	ID      string   // 64 hex digits
	Names   []string // full names, as "waltplatform/pc-x86-64-default:latest", sorted
	Labels  map[string]string
	Models  []string // of label walt.node.models
	Created time.Time
	Size    int64 // bytes, uncompressed
	Layers  int
	Digest  string // of its manifest, "sha256:..."
}

// Device is what reconciling must know of one device.
type Device struct {
	MAC     string // lower case, colons
	IP      string // "" if unknown
	Name    string
	Type    string // "server", "node", "switch", "unknown"
	Image   string // nodes: full name
	Model   string // nodes
	Persist bool   // nodes: setting mount.persist
}
