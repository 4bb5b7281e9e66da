package snmp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waltos/waltos/services/daemon/blocking/snmptest"
)

// session opens a session with an agent.
func session(t testing.TB, a *snmptest.Agent, version int, community string) *Session {
	t.Helper()
	c := &Client{
		Dial: func(ctx context.Context, _ netip.Addr) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "udp", a.Address().String())
		},
		Timeout: time.Second, Retries: 2,
	}
	s, err := c.Open(t.Context(), Target{netip.MustParseAddr("127.0.0.1"), version, community})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func newSwitch(t testing.TB, m snmptest.Make) *snmptest.Switch {
	t.Helper()
	sw, err := snmptest.NewSwitch(snmptest.Loopback, "02:aa:00:00:00:01", "private", m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sw.Close)
	return sw
}

func TestExplorationOfEachMake(t *testing.T) {
	for name, m := range map[string]snmptest.Make{
		"netgear": snmptest.Netgear, "standard": snmptest.Standard, "tplink": snmptest.TPLink, "offset": snmptest.Offset,
	} {
		for _, version := range []int{1, 2} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				sw := newSwitch(t, m)
				sw.Neighbor(2, "02:00:00:00:00:02", "192.168.152.2", "Other-Switch")
				sw.Neighbor(5, "02:00:00:00:00:05", "", "rpi")
				sw.Station(2, "02:00:00:00:00:02", "02:00:00:00:00:77")
				sw.Station(7, "02:00:00:00:00:07")
				s := session(t, sw.Agent, version, "private")
				ctx := t.Context()

				var variant *LLDP
				var neighbors []Neighbor
				for _, v := range LLDPs() {
					found, err := v.Neighbors(ctx, s)
					if err == nil {
						variant, neighbors = v, found
						break
					}
					if !errors.Is(err, ErrNoSuchObject) {
						t.Fatal(err)
					}
				}
				want := []Neighbor{{2, "02:00:00:00:00:02", "192.168.152.2", "other-switch"}, {5, "02:00:00:00:00:05", "", "rpi"}}
				if m.LLDP == "tplink" {
					want[0].IP = "" // its tables have none
				}
				if d := cmp.Diff(want, neighbors); d != "" {
					t.Error(d)
				}
				n, err := s.Numbering(ctx, variant)
				if err != nil {
					t.Fatal(err)
				}
				if got := n.Interface(3); got != m.FirstInterface+2 {
					t.Errorf("port 3 is interface %d", got)
				}
				label := "g3"
				if m.LLDP == "tplink" {
					label = "gigabitEthernet 1/0/3"
				}
				if n.Labels[label] != 3 {
					t.Errorf("labels %v", n.Labels)
				}
				stations, err := s.Stations(ctx, n)
				if err != nil {
					t.Fatal(err)
				}
				wantStations := []Station{{2, "02:00:00:00:00:02"}, {7, "02:00:00:00:00:07"}, {2, "02:00:00:00:00:77"}}
				if d := cmp.Diff(wantStations, stations); d != "" {
					t.Error(d)
				}
				addresses, err := s.Addresses(ctx)
				if d := cmp.Diff([]string{"02:aa:00:00:00:01"}, addresses); d != "" || err != nil {
					t.Error(d, err)
				}
				if kind, err := s.Kind(ctx); kind != "."+m.Kind || err != nil {
					t.Errorf("kind %q, %v", kind, err)
				}
			})
		}
	}
}
