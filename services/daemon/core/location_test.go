package core

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/wire/pickle"
)

func TestRelocate(t *testing.T) {
	const sw, far, node, other = "02:00:00:00:00:05", "02:00:00:00:00:06", "02:00:00:00:00:01", "02:00:00:00:00:09"
	now := time.Unix(1e9, 0)
	at := place{sw, 3}
	link := func(switchMAC string, port int, mac string, confirmed bool) db.Topology {
		if mac < switchMAC {
			return db.Topology{MAC1: mac, MAC2: switchMAC, Port2: port, Confirmed: confirmed}
		}
		return db.Topology{MAC1: switchMAC, Port1: port, MAC2: mac, Confirmed: confirmed}
	}
	for _, test := range []struct {
		name    string
		links   []db.Topology
		want    []db.Topology
		changed bool
	}{
		{"unknown", nil, []db.Topology{link(sw, 3, node, true)}, true},
		{"there", []db.Topology{link(sw, 3, node, true)}, []db.Topology{link(sw, 3, node, true)}, false},
		{"not sure to be there", []db.Topology{link(sw, 3, node, false)}, []db.Topology{link(sw, 3, node, true)}, false},
		{"at another port", []db.Topology{link(sw, 4, node, true)}, []db.Topology{link(sw, 3, node, true)}, true},
		{"at another switch", []db.Topology{link(far, 3, node, true), link(far, 4, other, true)}, []db.Topology{link(far, 4, other, true), link(sw, 3, node, true)}, true},
		{"at several places", []db.Topology{link(far, 3, node, true), link(sw, 3, node, true)}, []db.Topology{link(sw, 3, node, true)}, true},
		{"at the place of another", []db.Topology{link(sw, 3, other, true)}, []db.Topology{link(sw, 3, node, true)}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, changed := relocate(slices.Clone(test.links), node, at, now)
			i := slices.IndexFunc(got, func(l db.Topology) bool { return l.MAC1 == node || l.MAC2 == node })
			if seen := got[i].LastSeen; seen == nil || !seen.Equal(now) {
				t.Errorf("last seen %v", seen)
			}
			got[i].LastSeen = nil
			if changed != test.changed || !slices.Equal(got, test.want) {
				t.Errorf("links %v, changed %v", got, changed)
			}
		})
	}
}

// TestDefectS6LastSeenOfReportedLinks: a node's report is a link with a date, so that the
// next scan can compare it.
func TestDefectS6LastSeenOfReportedLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		p, _ := startPowered(t)
		p.PortLabels = func(_ context.Context, sw db.Device) (map[string]int, error) {
			asked++
			if sw.MAC != switchMAC {
				return nil, errors.New("SNMP issue")
			}
			return map[string]int{"g7": 7, "g8": 8}, nil
		}
		report := func(ip, mac, label string) {
			t.Helper()
			c := &call{client: newUser(nil), api: "NSAPI", peer: netip.MustParseAddr(ip)}
			if result, err := p.serve(t.Context(), c, "report_lldp_neighbor", pickle.Tuple{mac, label}, nil); result != nil || err != nil {
				t.Errorf("report_lldp_neighbor = %v, %v", result, err)
			}
		}
		p.lines.take()
		report("192.168.152.11", switchMAC, "g7")
		p.expectLines(t, "move", "platform.devices: Node n1 is now connected on sw port 7")
		if at := p.tables.places()[nodeMAC(1)]; at != (place{switchMAC, 7}) {
			t.Errorf("n1 is at %v", at)
		}
		i := slices.IndexFunc(p.store.links(), func(l db.Topology) bool { return l.MAC2 == nodeMAC(1) })
		if stored := p.store.links()[i]; stored.LastSeen == nil || !stored.Confirmed || stored.Port1 != 7 {
			t.Errorf("stored %+v", stored)
		}
		report("192.168.152.11", switchMAC, "g7")     // again
		report("192.168.152.99", switchMAC, "g8")     // not a node
		report("192.168.152.11", farMAC, "g8")        // not to be explored
		report("192.168.152.11", "x", "g8")           // no MAC
		report("192.168.152.11", nodeMAC(2), "g8")    // no switch
		report("192.168.152.12", switchMAC, "no g80") // no port
		p.expectLines(t, "reports without effect")
		if asked != 1 {
			t.Errorf("switches were asked %d times", asked)
		}
		p.tables.namePort(db.SwitchPort{MAC: switchMAC, Port: 8, Name: "SR8"})
		report("192.168.152.12", switchMAC, "g8")
		p.expectLines(t, "move to a named port", "platform.devices: Node n2 is now connected on sw port SR8")
	})
}
