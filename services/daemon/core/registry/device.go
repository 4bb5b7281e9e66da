package registry

import (
	"strings"

	"github.com/waltos/waltos/services/daemon/db"
)

// Device is one device at one moment. It never changes, nor does what it points to.
type Device struct {
	db.Device
	Booted    bool // nodes only
	Powersave bool // the switch port is off to save power
}

// FreeOwner owns the default images, hence the nodes that nobody uses.
const FreeOwner = "waltplatform"

// Owner is the user whose image a node boots, or "".
func (d *Device) Owner() string {
	owner, _, found := strings.Cut(d.Image, "/")
	if !found {
		return ""
	}
	return owner
}

// Free tells whether nobody owns the node, in the sense of listings and of confirmations.
// The set free-nodes is stricter (CN-22).
func (d *Device) Free() bool { return d.Owner() == FreeOwner }

// NAT tells whether setting netsetup is NAT.
func (d *Device) NAT() bool {
	value, _ := ConfInt(d.Conf, "netsetup")
	return value == 1
}

// virtualPrefix begins the MAC of virtual machines, and of the VPN interface of nodes.
const virtualPrefix = "52:54:00"

// Kind is the type of a node in node show.
func (d *Device) Kind() string {
	switch {
	case !d.Virtual:
		return "physical"
	case strings.HasPrefix(d.MAC, virtualPrefix):
		return "virtual"
	}
	return "vpn"
}

// TypeText is the type of a device in device show, whose rule differs from that of
// node show (CN-21).
func (d *Device) TypeText() string {
	switch {
	case d.Type != Node:
		return d.Type
	case d.Virtual:
		return "node (virtual)"
	case strings.HasPrefix(d.MAC, virtualPrefix):
		return "node (vpn)"
	}
	return "node (physical)"
}

// BootedText is column booted of node show.
func (d *Device) BootedText() string {
	switch {
	case d.Booted:
		return "yes"
	case d.Powersave:
		return "no (powersave)"
	}
	return "NO"
}

// ConfInt returns an integer setting; JSON decoders give several types to numbers.
func ConfInt(conf map[string]any, name string) (int64, bool) {
	switch v := conf[name].(type) {
	case int:
		return int64(v), true
	case int64:
		return v, true
	case uint64:
		return int64(v), true
	case float64:
		return int64(v), true
	}
	return 0, false
}

// ConfBool returns a boolean setting, or absent if it is not stored.
func ConfBool(conf map[string]any, name string, absent bool) bool {
	if v, ok := conf[name].(bool); ok {
		return v
	}
	return absent
}
