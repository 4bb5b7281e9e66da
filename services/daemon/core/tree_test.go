package core

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/trackexec"
)

func TestDeviceTree(t *testing.T) {
	r := registry.New(netip.MustParsePrefix("192.168.152.1/24"))
	explore := map[string]any{"lldp.explore": true}
	r.Put(
		db.Device{MAC: "02:00:00:00:00:01", Name: "walt-server", Type: registry.Server},
		db.Device{MAC: "02:00:00:00:00:02", Name: "switch1", IP: "192.168.152.2", Type: registry.Switch, Conf: explore},
		db.Device{MAC: "02:00:00:00:00:03", Name: "switch2", Type: registry.Switch, Conf: explore},
		db.Device{MAC: "02:00:00:00:00:04", Name: "vn2", Type: registry.Node},
		db.Device{MAC: "02:00:00:00:00:05", Name: "rpi1", Type: registry.Node},
		db.Device{MAC: "02:00:00:00:00:06", Name: "switch3", Type: registry.Switch},
		db.Device{MAC: "02:00:00:00:00:07", Name: "odd", Type: registry.Unknown},
	)
	site, err := hcl.ParseSite([]byte(`network "walt-net" { ip = "192.168.152.1/24" }`), "walt.hcl")
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{registry: r, Config: Config{Site: site}}
	d.tables.set(db.Everything{
		SwitchPorts: []db.SwitchPort{{MAC: "02:00:00:00:00:02", Port: 32, Name: "SR32"}},
		Topology: []db.Topology{
			{MAC1: "02:00:00:00:00:01", MAC2: "02:00:00:00:00:02", Port2: 1, Confirmed: true},
			{MAC1: "02:00:00:00:00:02", MAC2: "02:00:00:00:00:03", Port1: 7, Port2: 1},
			{MAC1: "02:00:00:00:00:03", MAC2: "02:00:00:00:00:04", Port1: 3},
			{MAC1: "02:00:00:00:00:02", MAC2: "02:00:00:00:00:05", Port1: 32, Confirmed: true},
			{MAC1: "02:00:00:00:00:02", MAC2: "02:00:00:00:00:06", Port1: 12, Confirmed: true},
			{MAC1: "02:00:00:00:00:02", MAC2: "02:00:00:00:00:07", Confirmed: true},
		},
	})
	show := func(all bool) string {
		c := &call{Scope: trackexec.Scope{Context: t.Context()}, Daemon: d, client: newUser("alice"), api: "CSAPI", method: apis["CSAPI"]["device_tree"], values: []any{all}}
		text, err := c.deviceTree()
		if err != nil {
			t.Fatal(err)
		}
		return text.(string)
	}
	want := `
-- switch1 --
 ├─1: walt-server
 ├─7: (-- switch2 --)
 │    ├─1: ~> back to -- switch1 --
 │    └─3: (vn2)
 ├─12: -- switch3 --
 │     └─[...] ~> forbidden (cf. walt device config)
 └─SR32: rpi1

notes:
- this view comes from last network scan (use 'walt device rescan' to update)
- devices marked with parentheses were not detected at last scan

tips:
- use 'walt device tree --all' to see all devices detected
`
	if got := show(false); !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	d.tables.scanned = time.Now().Add(-time.Hour - time.Minute)
	if got := show(false); !strings.Contains(got, "last network scan, issued 1 hour and 1 minute ago (use") {
		t.Errorf("after a scan:\n%s", got)
	}
	if got := show(true); !strings.Contains(got, "\n ├─?: <? odd ?>\n ├─1: walt-server\n") || !strings.Contains(got, "\n ├─12: -- switch3 --\n └─SR32: rpi1\n") {
		t.Errorf("with all devices:\n%s", got)
	}
}

func TestDelay(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Millisecond:                "1 second",
		59 * time.Second:                "59 seconds",
		time.Minute:                     "1 minute",
		time.Hour + 1*time.Second:       "1 hour and 1 second",
		49*time.Hour + 5*time.Minute:    "2 days and 1 hour",
		24*time.Hour + 90*time.Second:   "1 day and 1 minute",
		2*time.Hour + 3*60*time.Second:  "2 hours and 3 minutes",
		26*time.Hour + 61*time.Second:   "1 day and 2 hours",
		61*time.Minute + 30*time.Second: "1 hour and 1 minute",
	} {
		if got := delay(d); got != want {
			t.Errorf("delay(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestTreeEncodings(t *testing.T) {
	for encoding, want := range map[string]bool{"utf-8": true, "UTF8": true, "cp437": true, "ascii": false, "US-ASCII": false, "latin-1": false, "cp1252": false, "": false} {
		if got := canDraw(encoding); got != want {
			t.Errorf("canDraw(%q) = %v", encoding, got)
		}
	}
}
