package core

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
	"github.com/waltos/waltos/services/wire/pickle"
)

// TestPowerAndPlacesAreStored: a real database takes what is recorded of ports and links,
// and another life of the daemon finds it.
func TestPowerAndPlacesAreStored(t *testing.T) {
	store, _ := dbtest.Client(t)
	image := registry.DefaultImage("pc-x86-64")
	if err := errors.Join(
		store.SaveImage(t.Context(), image),
		store.SaveDevice(t.Context(), db.Device{MAC: switchMAC, IP: "192.168.152.2", Name: "sw", Type: registry.Switch,
			Conf: map[string]any{"lldp.explore": true, "poe.reboots": true}}),
		store.SaveDevice(t.Context(), db.Device{MAC: nodeMAC(1), IP: "192.168.152.11", Name: "n1", Type: registry.Node, Model: "pc-x86-64", Image: image}),
	); err != nil {
		t.Fatal(err)
	}
	board := &switchboard{start: time.Now()}
	run := func() *platform {
		return start(t, func(c *Config) {
			c.Store, c.PoE = store, board
			c.PortLabels = func(context.Context, db.Device) (map[string]int, error) { return map[string]int{"g3": 3}, nil }
		})
	}
	stored := func() db.Everything {
		t.Helper()
		all, err := store.LoadAll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	p := run()
	c := &call{client: newUser(nil), api: "NSAPI", peer: netip.MustParseAddr("192.168.152.11")}
	before := time.Now().Truncate(time.Microsecond)
	if _, err := p.serve(t.Context(), c, "report_lldp_neighbor", pickle.Tuple{switchMAC, "g3"}, nil); err != nil {
		t.Fatal(err)
	}
	links := stored().Topology
	if len(links) != 1 || links[0].MAC1 != switchMAC || links[0].Port1 != 3 || !links[0].Confirmed || links[0].LastSeen == nil || links[0].LastSeen.Before(before) {
		t.Fatalf("stored links %+v", links)
	}
	p.sleep(t.Context(), []string{nodeMAC(1)})
	if off := stored().PoEOff; len(off) != 1 || off[0] != (db.PoEOff{MAC: switchMAC, Port: 3, Reason: "powersave"}) {
		t.Fatalf("stored as off: %v", off)
	}
	if got := p.bootedText("n1"); got != "no (powersave)" {
		t.Errorf("n1 is %q", got)
	}
	board.take()

	p = run()
	dbtest.Wait(t, "power of the ports", func(context.Context) error {
		if off := stored().PoEOff; len(off) > 0 {
			return errors.New("some are still recorded off")
		}
		return nil
	})
	if asked := board.take(); len(asked) != 1 {
		t.Errorf("PoE was asked %q", asked)
	}
	if at := p.tables.places()[nodeMAC(1)]; at != (place{switchMAC, 3}) {
		t.Errorf("n1 is at %v", at)
	}
	for _, name := range []string{"sw", "n1"} {
		if result, err := p.do(t, newUser("alice"), "forget", name); result != true || err != nil {
			t.Errorf("forget %s = %v, %v", name, result, err)
		}
	}
	if all := stored(); len(all.Topology)+len(all.PoEOff)+len(all.SwitchPorts) > 0 || len(all.Devices) != 1 {
		t.Errorf("left: %+v", all)
	}
}
