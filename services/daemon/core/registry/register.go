package registry

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/waltos/waltos/services/daemon/db"
)

// nodeClass begins the vendor or user class of a node; its model follows after a dot.
const nodeClass = "walt.node"

// switchVendors are the first bytes of the MACs of known switches, with their model.
var switchVendors = map[string]string{
	"6c:b0:ce": "netgear", "28:c6:8e": "netgear", "44:94:fc": "netgear",
}

// Identify tells the type and the model of a device from its DHCP classes and its MAC
// (server-state §2.1).
func Identify(vci, uci, mac string) (kind, model string) {
	for _, class := range []string{uci, vci} {
		if strings.HasPrefix(class, nodeClass) {
			return Node, class[min(len(class), len(nodeClass)+1):]
		}
	}
	if len(mac) >= 8 {
		if model, known := switchVendors[mac[:8]]; known {
			return Switch, model
		}
	}
	return Unknown, ""
}

// Sighting is a device that asks to be registered.
type Sighting struct {
	VCI, UCI string // DHCP options 60 and 77
	IP       string
	MAC      string
	Name     string // proposed; may be ""
}

// Change is what a sighting changes: nothing if Lines and Renamed are empty and Changed is
// false.
type Change struct {
	Device  db.Device
	Changed bool
	Lines   []string // for log stream platform.devices
	Renamed string   // former name, if the device got another one
}

// ParseMAC returns a MAC in the form of table devices.
func ParseMAC(s string) (string, error) {
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 {
		return "", fmt.Errorf("cannot register a device: %q is not a MAC address", s)
	}
	return mac.String(), nil
}

// Register applies the registration rules (server-state §2.3) to a device. hasImage tells
// whether the default image of a model is there: a node without it is recorded as unknown,
// since obtaining it may fail; register it again once it is there.
func (v *View) Register(s Sighting, hasImage func(model string) bool) (Change, error) {
	mac, err := ParseMAC(s.MAC)
	if err != nil {
		return Change{}, err
	}
	if s.IP != "" {
		if addr, err := netip.ParseAddr(s.IP); err != nil || !addr.Is4() {
			return Change{}, fmt.Errorf("cannot register %s: %q is not an IPv4 address", mac, s.IP)
		}
	}
	kind, model := Identify(s.VCI, s.UCI, mac)
	if kind == Node && !hasImage(model) {
		kind, model = Unknown, ""
	}
	old := v.ByMAC(mac)
	if old == nil {
		d := db.Device{MAC: mac, IP: s.IP, Type: kind, Model: model, Conf: map[string]any{}}
		if kind == Node {
			d.Image = DefaultImage(model)
		}
		if d.Name = cleanName(s.Name); d.Name == "" || v.ByName(d.Name) != nil {
			d.Name = v.AutomaticName(kind, mac)
		}
		return Change{Device: d, Changed: true, Lines: []string{announce(d, false)}}, nil
	}
	c := Change{Device: old.Device}
	if v.moves(old, s.IP) {
		c.Device.IP = s.IP
		c.Changed = true
	}
	if old.Type == Unknown && kind != Unknown {
		v.identified(&c, kind, model)
	}
	return c, nil
}

// moves tells whether a device takes another address. That of a node is where the platform
// expects it, and never changes. 10.0 also keeps the first address of any other device in
// walt-net, so that a switch which was given another one is lost.
func (v *View) moves(d *Device, ip string) bool {
	switch {
	case ip == "" || ip == d.IP:
		return false
	case d.IP == "":
		return true
	case !v.InNetwork(d.IP):
		return v.InNetwork(ip)
	}
	return (d.Type == Switch || d.Type == Unknown) && v.InNetwork(ip) && v.ByIP(ip) == nil
}

// Convert makes an unknown device one of a known type.
func (v *View) Convert(d *Device, kind, model string) Change {
	c := Change{Device: d.Device}
	v.identified(&c, kind, model)
	return c
}

func (v *View) identified(c *Change, kind, model string) {
	c.Changed = true
	c.Device.Type, c.Device.Model = kind, model
	if kind == Node {
		c.Device.Image = DefaultImage(model)
	}
	if strings.Contains(c.Device.Name, Unknown) {
		c.Renamed = c.Device.Name
		c.Device.Name = v.AutomaticName(kind, c.Device.MAC)
		c.Lines = append(c.Lines, fmt.Sprintf("renamed %s to %s for clarity", c.Renamed, c.Device.Name))
	}
	c.Lines = append(c.Lines, announce(c.Device, true))
}

// announce is the line of a new device in stream platform.devices.
func announce(d db.Device, wasUnknown bool) string {
	what := "device"
	if d.Type == Node || d.Type == Switch {
		what = d.Type
	}
	line := "new " + what
	if wasUnknown {
		line += " (device type previously unknown)"
	}
	line += " name=" + d.Name
	switch what {
	case "device":
		line += " type=" + d.Type
	default:
		if d.Model != "" {
			line += " model=" + d.Model
		}
	}
	ip := d.IP
	if ip == "" {
		ip = "None"
	}
	return line + " mac=" + d.MAC + " ip=" + ip
}
