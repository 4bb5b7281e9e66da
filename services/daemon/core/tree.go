package core

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/daemon/db"
)

// deviceTree shows how devices are connected (client-api §2.10.4).
func (c *call) deviceTree() (any, error) {
	t := &tree{view: c.registry.View(), all: c.flag("show_all"), seen: map[string]bool{}, networks: c.Site.Subnets()}
	t.load(&c.tables)
	root := t.root()
	if root == nil {
		return t.unknown(), nil
	}
	encoding, _ := c.client.Callback(c, "stdout.get_encoding")
	name, _ := encoding.(string)
	t.glyphs = [4]string{"|", "|", "-", "|"}
	if canDraw(name) {
		t.glyphs = [4]string{"├", "└", "─", "│"}
	}
	t.text.WriteString("\n" + t.label(root) + "\n")
	t.seen[root.MAC] = true
	t.children(root, " ")
	return t.text.String() + "\n" + t.notes() + "\n" + t.tips(), nil
}

// drawing begins the names, in Python, of the encodings that have the characters of a tree.
var drawing = []string{
	"utf", "u8", "u16", "u32", "cp437", "cp65001", "cp85", "cp86", "437", "85", "86", "koi8", "gb", "euc", "shift", "sjis", "big5", "cp93", "cp94", "cp95",
}

func canDraw(encoding string) bool {
	name := strings.ToLower(strings.TrimSpace(encoding))
	return slices.ContainsFunc(drawing, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// tree is a device tree being drawn.
type tree struct {
	view   *registry.View
	all    bool
	links  []db.Topology
	ports  map[string]map[int]string // names, by MAC of the switch
	glyphs [4]string                 // not last, last, bar, vertical
	seen   map[string]bool           // drawn, by MAC
	age    time.Duration             // of the last scan; 0: none since the start
	text   strings.Builder

	networks  []netip.Prefix  // where the root may be
	confirmed map[string]bool // what the last scan has seen, by MAC; the others have links too
}

func (t *tree) load(from *tables) {
	from.mu.Lock()
	defer from.mu.Unlock()
	t.links = slices.Clone(from.topology)
	if !from.scanned.IsZero() {
		t.age = max(time.Since(from.scanned), time.Second)
	}
	t.ports = map[string]map[int]string{}
	t.confirmed = map[string]bool{}
	for _, l := range t.links {
		for _, mac := range []string{l.MAC1, l.MAC2} {
			t.confirmed[mac] = t.confirmed[mac] || l.Confirmed
		}
	}
	for _, p := range from.ports {
		if t.ports[p.MAC] == nil {
			t.ports[p.MAC] = map[int]string{}
		}
		t.ports[p.MAC][p.Port] = p.Name
	}
}

// root is the switch next to the server, on a network of WalT: one that the last scan has
// seen there, if any.
func (t *tree) root() *registry.Device {
	var found *registry.Device
	for _, n := range t.neighbors() {
		if n.device.Type == registry.Switch && (found == nil || n.confirmed) {
			found = n.device
			if n.confirmed {
				break
			}
		}
	}
	return found
}

// neighbor is a device next to the server.
type neighbor struct {
	device    *registry.Device
	confirmed bool
}

// neighbors are those of the server that a network of WalT has.
func (t *tree) neighbors() (list []neighbor) {
	server := t.view.Server()
	if server == nil {
		return nil
	}
	for _, l := range t.links {
		other := ""
		switch server.MAC {
		case l.MAC1:
			other = l.MAC2
		case l.MAC2:
			other = l.MAC1
		}
		if d := t.view.ByMAC(other); d != nil && t.inWalT(d.IP) {
			list = append(list, neighbor{d, l.Confirmed})
		}
	}
	return list
}

func (t *tree) inWalT(ip string) bool {
	addr, err := netip.ParseAddr(ip)
	return err == nil && slices.ContainsFunc(t.networks, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// unknown is the text of a platform whose topology is not known (D3, D4).
func (t *tree) unknown() string {
	var names []string
	for _, n := range t.neighbors() {
		if n.device.Type == registry.Unknown {
			names = append(names, n.device.Name)
		}
	}
	if len(names) == 0 {
		return text.UnknownTopology
	}
	return text.UnknownTopology + text.About("Note: %s was(were) detected, but its(their) type is unknown.\n"+
		"If it(one of them) is a switch, use:\n$ walt device config <device> type=switch\n", names,
		text.Noun{None: "no devices", One: "device", Many: "devices"}, "and")
}

func (t *tree) label(d *registry.Device) string {
	label := d.Name
	switch d.Type {
	case registry.Switch:
		label = "-- " + d.Name + " --"
	case registry.Unknown:
		label = "<? " + d.Name + " ?>"
	}
	if !t.confirmed[d.MAC] {
		label = "(" + label + ")"
	}
	return label
}

// branch is a device connected to a switch.
type branch struct {
	device   *registry.Device
	port     int
	position string // "" if unknown
}

// branches lists what is connected to a switch: unknown positions first, then numbers,
// then names.
func (t *tree) branches(parent *registry.Device) []branch {
	var list []branch
	for _, l := range t.links {
		other, port := l.MAC2, l.Port1
		if l.MAC2 == parent.MAC {
			other, port = l.MAC1, l.Port2
		} else if l.MAC1 != parent.MAC {
			continue
		}
		d := t.view.ByMAC(other)
		if d == nil || d.Type == registry.Unknown && !t.all {
			continue
		}
		b := branch{device: d, port: port}
		if port != 0 {
			if b.position = t.ports[parent.MAC][port]; b.position == "" {
				b.position = strconv.Itoa(port)
			}
		}
		list = append(list, b)
	}
	rank := func(b branch) int {
		switch {
		case b.position == "":
			return 0
		case b.position == strconv.Itoa(b.port):
			return 1
		}
		return 2
	}
	slices.SortFunc(list, func(a, b branch) int {
		byPort := 0
		if rank(a) == 1 && rank(b) == 1 {
			byPort = cmp.Compare(a.port, b.port)
		}
		return cmp.Or(cmp.Compare(rank(a), rank(b)), byPort, cmp.Compare(a.position, b.position), cmp.Compare(a.device.Name, b.device.Name))
	})
	return list
}

// hasNodes tells whether nodes are found below a switch, without coming back to those
// drawn or visited.
func (t *tree) hasNodes(d *registry.Device, visited map[string]bool) bool {
	visited[d.MAC] = true
	for _, b := range t.branches(d) {
		if visited[b.device.MAC] || t.seen[b.device.MAC] && b.device.Type == registry.Switch {
			continue
		}
		if b.device.Type == registry.Node || b.device.Type == registry.Switch && t.hasNodes(b.device, visited) {
			return true
		}
	}
	return false
}

func (t *tree) children(parent *registry.Device, prefix string) {
	if !t.all && !t.hasNodes(parent, map[string]bool{}) {
		why := "no nodes there"
		if !registry.ConfBool(parent.Conf, "lldp.explore", false) {
			why = "forbidden (cf. walt device config)"
		}
		t.text.WriteString(prefix + t.glyphs[1] + t.glyphs[2] + "[...] ~> " + why + "\n")
		return
	}
	list := slices.DeleteFunc(t.branches(parent), func(b branch) bool { return t.seen[b.device.MAC] && b.position == "" })
	for i, b := range list {
		corner, below := t.glyphs[0], t.glyphs[3]
		if i == len(list)-1 {
			corner, below = t.glyphs[1], " "
		}
		position := b.position
		if position == "" {
			position = "?"
		}
		line := prefix + corner + t.glyphs[2] + position + ": "
		if t.seen[b.device.MAC] {
			t.text.WriteString(line + "~> back to " + t.label(b.device) + "\n")
			continue
		}
		t.seen[b.device.MAC] = true
		t.text.WriteString(line + t.label(b.device) + "\n")
		if b.device.Type == registry.Switch {
			t.children(b.device, prefix+below+strings.Repeat(" ", len([]rune(position))+3))
		}
	}
}

func (t *tree) notes() string {
	issued := ""
	if t.age > 0 {
		issued = ", issued " + delay(t.age) + " ago"
	}
	notes := []string{"this view comes from last network scan" + issued + " (use 'walt device rescan' to update)"}
	if slices.Contains(slices.Collect(maps.Values(t.confirmed)), false) {
		notes = append(notes, "devices marked with parentheses were not detected at last scan")
	}
	if t.all {
		notes = append(notes, "type of devices marked with <? ... ?> is unknown")
	}
	return itemize("note", notes)
}

func (t *tree) tips() string {
	first := "use 'walt device tree --all' to see all devices detected"
	if t.all {
		first = "use 'walt device config <device> type=switch' to let WalT know a given device is a switch"
	}
	return itemize("tip", []string{
		first,
		"use 'walt device show' for device details",
		"use 'walt device config ...' (see walt help show device-config) to let WalT explore forbidden switches",
		"use 'walt device port-config ...' (see walt help show device-port-config) to give sensible names to switch ports",
		"use 'walt device rescan' to update",
	})
}

// delay writes a duration in its two largest units, as "1 hour and 1 minute".
func delay(d time.Duration) string {
	seconds := int(d / time.Second)
	var parts []string
	for _, unit := range []struct {
		name string
		size int
	}{{"day", 24 * 3600}, {"hour", 3600}, {"minute", 60}, {"second", 1}} {
		n := seconds / unit.size
		seconds %= unit.size
		switch {
		case n == 0 || len(parts) == 2:
			continue
		case n > 1:
			unit.name += "s"
		}
		parts = append(parts, fmt.Sprint(n, " ", unit.name))
	}
	if len(parts) == 0 {
		return "1 second"
	}
	return strings.Join(parts, " and ")
}

// itemize writes a block of notes or tips.
func itemize(word string, items []string) string {
	if len(items) == 1 {
		return word + ": " + items[0] + ".\n"
	}
	return word + "s:\n- " + strings.Join(items, "\n- ") + "\n"
}
