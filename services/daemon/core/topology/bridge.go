package topology

import (
	"maps"
	"slices"
)

// table is what a device sees: the ports where it sees others, by their MAC, and how many
// it sees on a port.
type table struct {
	at    map[string][]int
	count map[int]int
}

func (t *table) remove(mac string, port int) {
	t.count[port]--
	if t.at[mac] = slices.DeleteFunc(t.at[mac], func(p int) bool { return p == port }); len(t.at[mac]) == 0 {
		delete(t.at, mac)
	}
}

// seen are tables, by the MAC of the device that sees.
type seen map[string]*table

func (s seen) add(mac string, port int, candidate string) {
	if port == 0 || mac == candidate {
		return
	}
	t := s[mac]
	if t == nil {
		t = &table{map[string][]int{}, map[int]int{}}
		s[mac] = t
	}
	if !slices.Contains(t.at[candidate], port) {
		t.at[candidate] = append(t.at[candidate], port)
		t.count[port]++
	}
}

// nobody tells whether a device sees nobody on a port.
func (s seen) nobody(mac string, port int) bool { return s[mac] == nil || s[mac].count[port] == 0 }

// links returns the link of each port where one device alone is seen.
func (s seen) links() (links []Link) {
	for mac, t := range s {
		for candidate, ports := range t.at {
			for _, port := range ports {
				if t.count[port] == 1 {
					links = append(links, NewLink(mac, port, candidate, 0))
				}
			}
		}
	}
	return links
}

// analyse deduces links from forwarding tables: a port that sees one device alone leads to
// it. The links that LLDP has shown count as entries of both tables, so that the ports
// towards devices without such a table, as the server, are found too.
func analyse(scans []Scan, lldp []Link, kind func(mac string) Kind) []Link {
	backbone, edge := seen{}, seen{}
	add := func(mac string, port int, candidate string) {
		switch k := kind(candidate); {
		case k.backbone():
			backbone.add(mac, port, candidate)
		case k != None:
			edge.add(mac, port, candidate)
		}
	}
	for _, scan := range scans {
		for _, s := range scan.Stations {
			add(scan.MAC, s.Port, s.MAC)
		}
	}
	for _, l := range lldp {
		add(l.MAC1, l.Port1, l.MAC2)
		add(l.MAC2, l.Port2, l.MAC1)
	}
	// Devices seen together with a switch or the server are behind it.
	links := slices.DeleteFunc(edge.links(), func(l Link) bool {
		return !backbone.nobody(l.MAC1, l.Port1) || !backbone.nobody(l.MAC2, l.Port2)
	})
	backbone.reduce()
	return append(links, backbone.links()...)
}

// reduce drops the candidates that are behind another one, until none is left. (10.0 stops
// after the first pass that has changed something.)
func (s seen) reduce() {
	macs := slices.Sorted(maps.Keys(s))
	for changed := true; changed; {
		changed = false
		for _, a := range macs {
			for _, b := range macs {
				if a != b {
					changed = s.closer(a, b) || changed
					changed = s.facing(a, b) || changed
				}
			}
		}
	}
}

// closer drops from b what a sees elsewhere than towards b: a is closer to it. It tells
// whether something has changed.
func (s seen) closer(a, b string) (changed bool) {
	towards := s[a].at[b]
	for mac, ports := range s[b].at {
		elsewhere := slices.ContainsFunc(s[a].at[mac], func(port int) bool {
			return slices.ContainsFunc(towards, func(other int) bool { return other != port })
		})
		if mac == a || !elsewhere {
			continue
		}
		for _, port := range slices.Clone(ports) {
			s[b].remove(mac, port)
		}
		changed = true
	}
	return changed
}

// facing makes a the only candidate of the port of b where it is seen, if b is the only
// one of a port of a. It tells whether something has changed.
func (s seen) facing(a, b string) (changed bool) {
	if !slices.ContainsFunc(s[a].at[b], func(port int) bool { return s[a].count[port] == 1 }) {
		return false
	}
	for _, port := range s[b].at[a] {
		for mac, ports := range s[b].at {
			if mac != a && slices.Contains(ports, port) {
				s[b].remove(mac, port)
				changed = true
			}
		}
	}
	return changed
}
