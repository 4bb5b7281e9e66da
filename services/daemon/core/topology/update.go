package topology

import (
	"math"
	"slices"
	"time"
)

// Sighting is a device seen on a port of another.
type Sighting struct {
	Port int
	MAC  string
}

// Scan is what a device has said of its surroundings.
type Scan struct {
	MAC       string     // of the device: its main one
	Neighbors []Sighting // by LLDP
	Stations  []Sighting // forwarding table
	Addresses []string   // all its MACs
}

// Aliases returns the main MACs of the devices that were scanned, by their other MACs. A
// MAC that several have, or that is a device's main one, is no alias.
func Aliases(scans []Scan, kind func(mac string) Kind) map[string]string {
	aliases := map[string]string{}
	for _, scan := range scans {
		for _, mac := range scan.Addresses {
			main, twice := aliases[mac]
			switch {
			case kind(mac) != None:
			case twice && main != scan.MAC:
				aliases[mac] = ""
			default:
				aliases[mac] = scan.MAC
			}
		}
	}
	for mac, main := range aliases {
		if main == "" {
			delete(aliases, mac)
		}
	}
	return aliases
}

// longAgo is when a link was seen whose time is not known: 10.0 stores some without.
var longAgo = time.Unix(1, 0)

// Discovery is what scans show.
type Discovery struct {
	links   []Link
	scanned map[string]bool
}

// Discover works out what scans show. It takes the most of the time of a scan.
func Discover(scans []Scan, kind func(mac string) Kind) Discovery {
	d := Discovery{scanned: map[string]bool{}}
	for _, s := range scans {
		d.scanned[s.MAC] = true
	}
	scans = resolve(scans, kind)
	lldp := lldpLinks(scans)
	for i := range lldp {
		lldp[i].Confirmed = true // more than what is deduced
	}
	d.links = clean(slices.Concat(lldp, analyse(scans, lldp, kind)), kind)
	return d
}

// Update returns the links of a platform after a discovery that was made now, given the
// links that were stored. Links of scanned devices that are not seen any more become
// unconfirmed.
func (d Discovery) Update(stored []Link, kind func(mac string) Kind, now time.Time) []Link {
	all := unconfirm(stored, func(mac string) bool { return d.scanned[mac] })
	for i, l := range all {
		switch {
		case l.LastSeen.IsZero():
			all[i].LastSeen = longAgo
		case l.LastSeen.After(now): // the clock was set back
			all[i].LastSeen = now
		}
	}
	for _, l := range d.links {
		l.Confirmed, l.LastSeen = true, now
		all = append(all, l)
	}
	return clean(all, kind)
}

// resolve replaces aliases by main MACs, and drops what is seen of no device, of the device
// itself, and on ports that cannot be stored.
func resolve(scans []Scan, kind func(mac string) Kind) []Scan {
	aliases := Aliases(scans, kind)
	resolved := make([]Scan, len(scans))
	for i, scan := range scans {
		filter := func(list []Sighting) (kept []Sighting) {
			for _, s := range list {
				if main, is := aliases[s.MAC]; is {
					s.MAC = main
				}
				if s.MAC != scan.MAC && kind(s.MAC) != None && s.Port > 0 && s.Port <= math.MaxInt32 {
					kept = append(kept, s)
				}
			}
			return kept
		}
		resolved[i] = Scan{MAC: scan.MAC, Neighbors: filter(scan.Neighbors), Stations: filter(scan.Stations)}
	}
	return resolved
}

// lldpLinks returns what LLDP says. Both ends may know of a link: each knows its port.
func lldpLinks(scans []Scan) []Link {
	var links []Link
	for _, scan := range scans {
		for _, n := range scan.Neighbors {
			links = append(links, NewLink(scan.MAC, n.Port, n.MAC, 0))
		}
	}
	return merge(links)
}
