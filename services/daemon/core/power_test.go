package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/db"
)

// switchboard is a PoE that keeps what was asked. It fails for ports in broken.
type switchboard struct {
	mu     sync.Mutex
	start  time.Time
	asked  []string
	broken map[int]error
}

func (s *switchboard) Switch(_ context.Context, ports []PoEPort, on bool) []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := make([]error, len(ports))
	for i, p := range ports {
		s.asked = append(s.asked, fmt.Sprintf("%v %s:%d %v", s.now(), p.Switch.Name, p.Port, on))
		errs[i] = s.broken[p.Port]
	}
	return errs
}

// now tells the time in whole seconds.
func (s *switchboard) now() time.Duration { return time.Since(s.start).Truncate(time.Second) }

func (s *switchboard) fail(ports map[int]error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = ports
}

func (s *switchboard) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	slices.Sort(asked)
	return asked
}

const (
	switchMAC = "02:00:00:00:00:02"
	farMAC    = "02:00:00:00:00:03" // a switch that forbids to switch ports
)

// startPowered runs a platform of free nodes n1 to n3 on ports 1 to 3 of switch sw, n4 on
// a switch that forbids PoE control and n5 in an unknown place.
func startPowered(t *testing.T, poeOff ...db.PoEOff) (*platform, *switchboard) {
	board := &switchboard{start: time.Now()}
	p := start(t, func(c *Config) {
		c.PoE = board
		store := c.Store.(*memory)
		store.poeOff = poeOff
		allowed := map[string]any{"lldp.explore": true, "poe.reboots": true}
		for _, d := range []db.Device{
			{MAC: switchMAC, IP: "192.168.152.2", Name: "sw", Type: registry.Switch, Conf: allowed},
			{MAC: farMAC, IP: "192.168.152.3", Name: "far", Type: registry.Switch},
		} {
			store.all[d.MAC] = d
		}
		image := registry.DefaultImage("pc-x86-64")
		store.images[image] = true
		for n := 1; n <= 5; n++ {
			mac := nodeMAC(n)
			store.all[mac] = db.Device{
				MAC: mac, IP: fmt.Sprint("192.168.152.1", n), Name: fmt.Sprint("n", n), Type: registry.Node, Image: image, Model: "pc-x86-64",
				Conf: map[string]any{"boot.timeout": nil},
			}
			link := db.Topology{MAC1: switchMAC, Port1: n, MAC2: mac, Confirmed: true}
			switch n {
			case 4:
				link.MAC1 = farMAC
			case 5:
				link.Port1 = 0
			}
			store.topology = append(store.topology, link)
		}
	})
	return p, board
}

func nodeMAC(n int) string { return fmt.Sprint("02:00:00:00:00:1", n) }

// expectPower checks what a PoE was asked.
func (s *switchboard) expect(t *testing.T, what string, want ...string) {
	t.Helper()
	if got := s.take(); !slices.Equal(got, want) {
		t.Errorf("%s: PoE was asked %q, want %q", what, got, want)
	}
}

func (p *platform) expectLines(t *testing.T, what string, want ...string) {
	t.Helper()
	if got := p.lines.take(); !slices.Equal(got, want) {
		t.Errorf("%s: logged\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (p *platform) bootedText(name string) string { return p.registry.View().ByName(name).BootedText() }

func TestPoEReboot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, board := startPowered(t)
		board.fail(map[int]error{3: errors.New("node seems not PoE-powered")})
		p.bootChanged("192.168.152.11", true, false)
		p.lines.take()
		u := newUser("alice")
		result, err := p.do(t, u, "reboot_nodes", "all-nodes", true, "acquire")
		if result != "FAILED" || err != nil {
			t.Errorf("reboot_nodes = %v, %v", result, err)
		}
		want := "out:Nodes n1 and n2: rebooted ok.\n" +
			"err:Node n4: failed poe-reboot (forbidden on switch)\n" +
			"err:Node n3: failed poe-reboot (node seems not poe-powered)\n" +
			"err:Node n5: failed poe-reboot (unknown lldp network position)\n"
		if said := u.said(); said != want {
			t.Errorf("said %q", said)
		}
		board.expect(t, "reboot", "0s sw:1 false", "0s sw:2 false", "0s sw:3 false", "2s sw:1 true", "2s sw:2 true")
		p.expectLines(t, "reboot", "platform.nodes: node n1 is down (cause: acquire, method: PoE hard-reboot)")
		if len(p.store.ports()) > 0 {
			t.Errorf("ports recorded off: %v", p.store.ports())
		}
	})
}

// TestPoERebootOfAClientThatLeaves: no port stays off because its client has left.
func TestPoERebootOfAClientThatLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, board := startPowered(t)
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		_, _ = p.serve(ctx, &call{client: newUser("alice"), api: "CSAPI"}, "reboot_nodes", []any{"n1", true}, nil)
		board.expect(t, "reboot", "0s sw:1 false", "2s sw:1 true")
	})
}

func TestPowersave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, board := startPowered(t)
		p.bootChanged("192.168.152.11", true, false)
		p.bootChanged("192.168.152.12", true, false)
		p.lines.take()
		u := newUser("alice")

		// n2 is acquired, and n3 asked to reboot; n1 is left alone.
		time.Sleep(time.Hour)
		if result, err := p.do(t, u, "set_image", "n2", "pc-x86-64-default"); result != true || err != nil {
			t.Fatalf("set_image = %v, %v", result, err)
		}
		p.do(t, u, "reboot_nodes", "n3", true)
		board.take()
		u.said()
		time.Sleep(time.Hour + time.Second)
		board.expect(t, "idle for two hours", "2h0m0s sw:1 false")
		p.expectLines(t, "idle for two hours", "platform.nodes: node n1 is down (cause: powersave, method: PoE)")
		if got := fmt.Sprint(p.bootedText("n1"), ", ", p.bootedText("n2"), ", ", p.bootedText("n3")); got != "no (powersave), yes, NO" {
			t.Errorf("booted: %s", got)
		}
		if want := []db.PoEOff{{MAC: switchMAC, Port: 1, Reason: "powersave"}}; !slices.Equal(p.store.ports(), want) {
			t.Errorf("recorded off: %v", p.store.ports())
		}

		// n3 has got two more hours.
		time.Sleep(time.Hour + time.Second)
		board.expect(t, "two hours after a reboot", "3h0m2s sw:3 false")

		// A reboot gives power back to n1, without asking it softly.
		result, err := p.do(t, u, "reboot_nodes", "n1")
		if said := u.said(); result != "OK" || err != nil || said != "out:Node n1: rebooted ok.\n" {
			t.Errorf("reboot_nodes = %v, %v, %q", result, err, said)
		}
		board.expect(t, "reboot of a sleeping node", fmt.Sprint(board.now(), " sw:1 true"))
		if got := p.bootedText("n1"); got != "NO" {
			t.Errorf("n1 is %q", got)
		}

		// Waiting wakes n3 up.
		over := make(chan any)
		go func() {
			value, _ := p.do(t, u, "wait_for_nodes", "n2,n3")
			over <- value
		}()
		synctest.Wait()
		if said := u.said(); said != "out:Reactivating related switch port(s) in powersave mode.\nbusy:Waiting for bootup of node n3\n" {
			t.Errorf("wait_for_nodes says %q", said)
		}
		p.bootChanged("192.168.152.13", true, false)
		if value := <-over; value != int64(0) {
			t.Errorf("wait_for_nodes = %v", value)
		}
		p.lines.take()

		// Released nodes are idle again; a port that cannot be switched is reported, and
		// tried once more two hours later.
		board.take()
		board.fail(map[int]error{2: errors.New("SNMP issue")})
		p.do(t, u, "set_image", "n2", "default")
		released := board.now()
		time.Sleep(2*time.Hour + time.Second)
		if got := p.lines.take(); !slices.Contains(got, "platform.powersave.error: Node n2: failed to turn poe off (snmp issue)") {
			t.Errorf("logged %q", got)
		}
		if got := p.bootedText("n2"); got != "yes" {
			t.Errorf("n2 is %q", got)
		}
		board.fail(nil)
		board.take()
		time.Sleep(2 * time.Hour)
		board.expect(t, "second try", fmt.Sprint(4*time.Hour+released, " sw:2 false"))

		// A node that is forgotten gets its power back first.
		board.fail(map[int]error{1: errors.New("SNMP issue")})
		u.said()
		if result, _ := p.do(t, u, "forget", "n1"); result != true {
			t.Errorf("forget = %v", result)
		}
		if said := u.said(); said != "out:Reactivating related switch port(s) in powersave mode.\nerr:Node n1: warning, failed to reactivate poe (snmp issue)\n" {
			t.Errorf("forget says %q", said)
		}
	})
}

// TestForgottenSwitchIsLeftOn: the ports of a switch that nobody will control any more have
// their power.
func TestForgottenSwitchIsLeftOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, board := startPowered(t)
		time.Sleep(2*time.Hour + time.Second)
		board.take()
		u := newUser("alice")
		board.fail(map[int]error{3: errors.New("SNMP issue")})
		p.expectSteps(t, u, []step{{"forget", []any{"sw"}, "true",
			"out:Reactivating related switch port(s) in powersave mode.\nerr:Node sw: warning, failed to reactivate poe (snmp issue)\n"}})
		board.expect(t, "forget", "2h0m1s sw:1 true", "2h0m1s sw:2 true", "2h0m1s sw:3 true")
		if off := p.tables.off(); len(off) > 0 {
			t.Errorf("still off: %v", off)
		}
	})
}

// TestPowersaveOfAMovedNode: a node that boots although its port is off is elsewhere.
func TestPowersaveOfAMovedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, board := startPowered(t)
		time.Sleep(2*time.Hour + time.Second)
		board.take()
		p.bootChanged("192.168.152.11", true, true)
		synctest.Wait()
		board.expect(t, "a connection of an earlier life")
		p.registry.SetBooted(nodeMAC(1), false)
		p.markPowersave()
		p.bootChanged("192.168.152.11", true, false)
		synctest.Wait()
		board.expect(t, "boot of a sleeping node", "2h0m1s sw:1 true")
		if at, known := p.tables.places()[nodeMAC(1)]; known {
			t.Errorf("the node is still at %v", at)
		}
		if len(p.store.links()) != 4 {
			t.Errorf("stored links: %v", p.store.links())
		}
		if got := p.bootedText("n1"); got != "yes" {
			t.Errorf("n1 is %q", got)
		}
	})
}

// TestPortsAreRestoredAtStart: what an earlier life has left off gets its power back, even
// if the switch answers later than the server starts.
func TestPortsAreRestoredAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, board := startPowered(t, db.PoEOff{MAC: switchMAC, Port: 1, Reason: "powersave"}, db.PoEOff{MAC: switchMAC, Port: 2, Reason: "hard-reboot"},
			db.PoEOff{MAC: "02:00:00:00:00:99", Port: 1, Reason: "powersave"})
		synctest.Wait()
		board.expect(t, "start", "0s sw:1 true", "0s sw:2 true")
		if got := p.bootedText("n1"); got != "NO" {
			t.Errorf("n1 is %q", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		board := &switchboard{start: time.Now(), broken: map[int]error{1: errors.New("SNMP issue")}}
		p := start(t, func(c *Config) {
			c.PoE = board
			store := c.Store.(*memory)
			store.all[switchMAC] = db.Device{MAC: switchMAC, IP: "192.168.152.2", Name: "sw", Type: registry.Switch}
			store.poeOff = []db.PoEOff{{MAC: switchMAC, Port: 1, Reason: "powersave"}}
		})
		time.Sleep(61 * time.Second)
		board.expect(t, "start", "0s sw:1 true", "1m0s sw:1 true")
		p.expectLines(t, "start", "platform.powersave.error: failed to restore PoE on switch sw port 1 -- SNMP issue")
		board.fail(nil)
		time.Sleep(time.Hour)
		board.expect(t, "later", "2m0s sw:1 true")
		if len(p.store.ports()) > 0 {
			t.Errorf("recorded off: %v", p.store.ports())
		}
	})
}

// TestDaemonEndsWithPortsOn: a daemon that is told to end while ports are off for a reboot
// switches them on first.
func TestDaemonEndsWithPortsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var board *switchboard
		var rebooted sync.WaitGroup
		t.Cleanup(func() { // after the end of the daemon
			board.expect(t, "reboot", "0s sw:1 false", "2s sw:1 true")
			rebooted.Wait()
		})
		var p *platform
		p, board = startPowered(t)
		ctx := context.WithoutCancel(t.Context())
		rebooted.Go(func() {
			if result, err := p.serve(ctx, &call{client: newUser("alice"), api: "CSAPI"}, "reboot_nodes", []any{"n1", true}, nil); result != "OK" || err != nil {
				t.Errorf("reboot_nodes = %v, %v", result, err)
			}
		})
		time.Sleep(time.Second)
	})
}
