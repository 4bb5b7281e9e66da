// Package topology works out how devices are connected from what switches say: their
// neighbours by LLDP and their forwarding tables (node-protocols §5.5). It is made of
// functions on plain values: it asks, registers and stores nothing.
//
// Links are between pairs of devices: two cables between the same two are one link. What
// comes out is a forest of confirmed links, completed by unconfirmed ones where they close
// no loop, in which each node has one link and each port of a device leads to one other.
package topology

import (
	"cmp"
	"slices"
	"time"
)

// Kind is what a device is, as far as links matter.
type Kind int

// Kinds of devices. None is a MAC that is no device of the platform.
const (
	None Kind = iota
	Other
	Node
	Switch
	Server
)

// backbone tells whether other devices may be behind one.
func (k Kind) backbone() bool { return k == Switch || k == Server }

// Link is a connection of two devices; MAC1 < MAC2, and ports are 0 if unknown.
type Link struct {
	MAC1, MAC2   string
	Port1, Port2 int
	// Confirmed tells that the last exploration of its devices has shown the link.
	Confirmed bool
	LastSeen  time.Time
}

// NewLink returns a link with its devices in order.
func NewLink(mac1 string, port1 int, mac2 string, port2 int) Link {
	if mac1 > mac2 {
		mac1, port1, mac2, port2 = mac2, port2, mac1, port1
	}
	return Link{MAC1: mac1, MAC2: mac2, Port1: port1, Port2: port2}
}

// pair is what links are known by.
type pair struct{ mac1, mac2 string }

func (l Link) pair() pair { return pair{l.MAC1, l.MAC2} }

// port is one end of a link.
type port struct {
	mac    string
	number int
}

// ends returns the ends of a link whose ports are known.
func (l Link) ends() []port {
	ends := make([]port, 0, 2)
	for _, end := range []port{{l.MAC1, l.Port1}, {l.MAC2, l.Port2}} {
		if end.number != 0 {
			ends = append(ends, end)
		}
	}
	return ends
}

// compare puts better links first: confirmed ones, then those seen later. The rest of the
// order only makes results the same whatever the order of what they come from.
func compare(a, b Link) int {
	switch {
	case a.Confirmed && !b.Confirmed:
		return -1
	case b.Confirmed && !a.Confirmed:
		return 1
	}
	return cmp.Or(
		b.LastSeen.Compare(a.LastSeen),
		cmp.Compare(a.MAC1, b.MAC1), cmp.Compare(a.MAC2, b.MAC2),
		comparePorts(a.Port1, b.Port1), comparePorts(a.Port2, b.Port2))
}

// comparePorts puts known ports first.
func comparePorts(a, b int) int {
	switch {
	case (a == 0) == (b == 0):
		return cmp.Compare(a, b)
	case a == 0:
		return 1
	}
	return -1
}

// merge makes one link of those of the same pair: the best one, with ports that it lacks
// from the next best that has them, unless a link better than that one has that port. Best
// links come first.
func merge(links []Link) []Link {
	links = slices.Clone(links)
	slices.SortFunc(links, compare)
	at, owner := map[pair]int{}, map[port]pair{}
	var merged []Link
	fill := func(p pair, mac string, number *int, from int) {
		end := port{mac, from}
		if by, owned := owner[end]; *number == 0 && from != 0 && (!owned || by == p) {
			*number, owner[end] = from, p
		}
	}
	for _, l := range links {
		i, twice := at[l.pair()]
		if !twice {
			at[l.pair()] = len(merged)
			merged = append(merged, l)
			for _, end := range l.ends() {
				if _, owned := owner[end]; !owned {
					owner[end] = l.pair()
				}
			}
			continue
		}
		fill(l.pair(), l.MAC1, &merged[i].Port1, l.Port1)
		fill(l.pair(), l.MAC2, &merged[i].Port2, l.Port2)
	}
	return merged
}

// unconfirm marks the links that touch some devices.
func unconfirm(links []Link, touched func(mac string) bool) []Link {
	links = slices.Clone(links)
	for i, l := range links {
		if touched(l.MAC1) || touched(l.MAC2) {
			links[i].Confirmed = false
		}
	}
	return links
}

// clean makes links consistent. Links of two nodes, and of MACs that are no device, are
// dropped; a pair has one link, a node keeps its best, a port its best, and of each loop
// the worst link goes: the one seen least recently, an unconfirmed one before confirmed
// ones.
//
// Taking the best link first (Kruskal) gives the same unconfirmed links as growing groups
// of confirmed ones by the best link that leaves them (Prim): both are the maximum
// spanning forest.
func clean(links []Link, kind func(mac string) Kind) []Link {
	joined, placed, taken := groups{}, map[string]bool{}, map[port]bool{}
	acceptable := func(l Link) bool {
		kind1, kind2 := kind(l.MAC1), kind(l.MAC2)
		switch {
		case kind1 == None || kind2 == None || kind1 == Node && kind2 == Node || l.MAC1 == l.MAC2:
			return false
		case kind1 == Node && placed[l.MAC1] || kind2 == Node && placed[l.MAC2]:
			return false
		case slices.ContainsFunc(l.ends(), func(end port) bool { return taken[end] }):
			return false
		}
		return joined.join(l.MAC1, l.MAC2)
	}
	var kept []Link
	for _, l := range merge(links) {
		if !acceptable(l) {
			continue
		}
		kept = append(kept, l)
		placed[l.MAC1], placed[l.MAC2] = true, true
		for _, end := range l.ends() {
			taken[end] = true
		}
	}
	return kept
}

// groups are devices that links connect, as parents of each other.
type groups map[string]string

func (g groups) root(mac string) string {
	for {
		parent, has := g[mac]
		if !has {
			return mac
		}
		if above, has := g[parent]; has {
			g[mac] = above // half the way for the next one
		}
		mac = parent
	}
}

// join connects two devices, and tells whether they were not connected.
func (g groups) join(a, b string) bool {
	a, b = g.root(a), g.root(b)
	if a == b {
		return false
	}
	g[a] = b
	return true
}
