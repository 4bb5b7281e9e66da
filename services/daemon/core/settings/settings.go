// Package settings is what `walt node config` and `walt device config` set: the table of
// settings, their categories, checks and texts (client-api §2.9, server-state §2.5). It
// checks and plans; applying a plan is the caller's business. It refuses everything that
// walt 10.0 refuses, with its words.
package settings

import (
	"maps"
	"slices"
	"strings"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
)

// A category is the set of devices that a setting applies to.
type category string

const (
	managed  category = "walt-net-devices"
	server   category = "server"
	nodes    category = "nodes"
	virtual  category = "virtual-nodes"
	unknowns category = "unknown-devices"
	switches category = "switches"
)

// has tells whether a device belongs to the category.
func (c category) has(v *registry.View, d *registry.Device) bool {
	switch c {
	case managed:
		return v.Managed(d)
	case server:
		return d.Type == registry.Server
	case nodes:
		return d.Type == registry.Node
	case virtual:
		return d.Type == registry.Node && d.Virtual
	case unknowns:
		return d.Type == registry.Unknown
	case switches:
		return d.Type == registry.Switch
	}
	return false
}

// setting is one row of the table.
type setting struct {
	name     string
	category category
	absent   any // its value where it is not stored
	reboots  bool
	// parse returns the value to store, or a refusal.
	parse func(r *request, value string) (any, error)
}

// table is sorted by name, as settings are shown.
var table = []setting{
	{"boot.delay", virtual, "random", true, runnable("boot_delay", parseBootDelay)},
	{"boot.retries", nodes, int64(9), false, parseBootRetries},
	{"boot.timeout", nodes, int64(180), false, parseBootTimeout},
	{"cpu.cores", virtual, int64(4), true, runnable("cpu_cores", parseCores)},
	{"disks", virtual, "none", true, runnable("disks", parseDisks)},
	{"expose", managed, "none", false, parseExpose},
	{"kexec.allow", nodes, true, false, parseBool},
	{"lldp.explore", switches, false, false, parseExplore},
	{"mount.persist", nodes, true, true, parseBool},
	{"netsetup", managed, int64(0), true, parseNetSetup},
	{"networks", virtual, "walt-net", true, runnable("networks", parseNetworks)},
	{"poe.reboots", switches, false, false, parsePoE},
	{"ram", virtual, "512M", true, runnable("ram", parseRAM)},
	{"snmp.community", switches, nil, false, func(_ *request, value string) (any, error) { return value, nil }},
	{"snmp.version", switches, nil, false, parseSNMPVersion},
	{"type", unknowns, registry.Unknown, false, parseType},
}

func find(name string) *setting {
	for i := range table {
		if table[i].name == name {
			return &table[i]
		}
	}
	return nil
}

// Effective returns the settings of a device: what is stored, and the defaults of the
// rest. Values are int64, bool, string or nil.
func Effective(v *registry.View, d *registry.Device) map[string]any {
	all := map[string]any{}
	for i := range table {
		if table[i].category.has(v, d) {
			all[table[i].name] = table[i].absent
		}
	}
	maps.Copy(all, d.Conf)
	return all
}

// MainCategory is the most specific category of a device.
func MainCategory(v *registry.View, d *registry.Device) string {
	switch {
	case virtual.has(v, d):
		return string(virtual)
	case d.Type == registry.Node:
		return string(nodes)
	case d.Type == registry.Server:
		return string(server)
	case d.Type == registry.Switch:
		return string(switches)
	}
	return string(unknowns)
}

// Common returns the names of the settings that all these devices have, sorted.
func Common(v *registry.View, devices []*registry.Device) []string {
	var names []string
	for i := range table {
		if !slices.ContainsFunc(devices, func(d *registry.Device) bool { return !table[i].category.has(v, d) }) {
			names = append(names, table[i].name)
		}
	}
	return names
}

// nouns are how each main category calls its devices.
var nouns = map[string]text.Noun{
	string(nodes):    text.Nodes,
	string(virtual):  {None: "No virtual nodes", One: "Virtual node", Many: "Virtual nodes"},
	string(unknowns): {None: "No unknown devices", One: "Unknown device", Many: "Unknown devices"},
	string(switches): {None: "No switches", One: "Switch", Many: "Switches"},
}

// Describe is the text of get_device_config (§2.9.3): devices of the same category and
// settings are described together.
func Describe(v *registry.View, devices []*registry.Device) string {
	type group struct {
		names []string
		lines string
	}
	var order []string
	byCategory := map[string][]*group{}
	for _, d := range devices {
		c := MainCategory(v, d)
		if byCategory[c] == nil {
			order = append(order, c)
		}
		lines := describe(Effective(v, d))
		at := slices.IndexFunc(byCategory[c], func(g *group) bool { return g.lines == lines })
		if at < 0 {
			at = len(byCategory[c])
			byCategory[c] = append(byCategory[c], &group{lines: lines})
		}
		byCategory[c][at].names = append(byCategory[c][at].names, d.Name)
	}
	var blocks []string
	for _, c := range order {
		for _, g := range byCategory[c] {
			block := "Server has"
			if c != string(server) {
				block = text.About("%s has(have)", g.names, nouns[c], "and")
			}
			if g.lines == "" {
				block += " no config option available.\n"
			} else {
				block += " the following config applied:\n" + g.lines
			}
			blocks = append(blocks, block)
		}
	}
	return strings.Join(blocks, "\n\n") + "\n"
}

func describe(effective map[string]any) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(effective)) {
		b.WriteString(name + "=" + valueText(name, effective[name]) + "\n")
	}
	return b.String()
}
