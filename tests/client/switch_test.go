package client

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/waltos/waltos/services/daemon/blocking/snmptest"
	"github.com/waltos/waltos/tests/native"
)

// TestSwitch has the real client scan a platform whose switch is an SNMP agent at port 161
// of its address, reboot nodes through it, and survive its failures.
func TestSwitch(t *testing.T) {
	p := startPlatform(t)
	sw, err := snmptest.NewSwitch(netip.MustParseAddrPort("192.168.152.5:161"), device(5, "", "").MAC, "s e$cret", snmptest.Netgear)
	if err != nil {
		t.Fatal(err)
	}
	defer sw.Close()
	sw.Neighbor(1, native.ServerMAC, native.ServerIP, "walt-server")
	for port, node := range map[int]int{2: 11, 3: 12, 4: 13} {
		sw.Station(port, device(node, "", "node").MAC)
		sw.Feed(port)
	}
	var mu sync.Mutex
	var power []string
	sw.OnPower(func(port int, on bool) {
		mu.Lock()
		defer mu.Unlock()
		power = append(power, fmt.Sprint(port, " ", on))
	})
	expect := func(line string, code int, want ...string) {
		t.Helper()
		r, err := p.run(t, "alice", "", words(line)...)
		if got := r.out + r.err; err != nil || r.code != code || !matches(strings.Join(want, "\n")+"\n", show(got)) {
			t.Errorf("%s: %v, exit code %d\n%s", line, err, r.code, got)
		}
	}
	expect("walt device config switch1 snmp.version=2 'snmp.community=s e$cret'", 0, "Done.")
	expect("walt device config switch1 lldp.explore=true poe.reboots=true", 0, "Done.")
	expect("walt device rescan", 0,
		"Querying switch1                   OK",
		"Querying walt server               FAILED (LLDP SNMP issue)")
	expect("walt device tree", 0, "",
		"-- switch1 --",
		" ├─1: walt-server",
		" ├─2: n1",
		" ├─3: n2",
		" └─4: n3",
		"…")
	expect("walt device port-config switch1", 0,
		"WalT currently uses the following ports of switch1:",
		`1: name="1" poe=on peer=walt-server`,
		`2: name="2" poe=on peer=n1`,
		`3: name="3" poe=on peer=n2`,
		`4: name="4" poe=on peer=n3`,
		"The other switch ports are in their default configuration.")
	expect("walt node reboot --hard n1", 0, "Node n1: rebooted ok.")
	mu.Lock()
	if want := []string{"2 false", "2 true"}; !slices.Equal(power, want) {
		t.Errorf("power of ports: %q", power)
	}
	mu.Unlock()
	sw.Unplug(4) // n3 is switched off
	expect("walt device rescan switch1", 0, "Querying switch1                   OK")
	expect("walt device tree", 0, "…", " └─4: (n3)", "…")

	// What was found outlives server-main.
	p.Kill("server-main")
	p.Up("server-main")
	p.Await()
	expect("walt device tree", 0, "",
		"-- switch1 --",
		" ├─1: walt-server",
		" ├─2: n1",
		" ├─3: n2",
		" └─4: (n3)",
		"",
		"notes:",
		"- this view comes from last network scan (use 'walt device rescan' to update)",
		"- devices marked with parentheses were not detected at last scan",
		"…")

	// server-blocking dies; a command in between fails or waits, none hangs.
	p.Kill("server-blocking")
	p.Up("server-blocking")
	expect("walt device rescan switch1", 0, "Querying switch1                   OK")
	expect("walt device config switch1 snmp.community=wrong", 0, "Done.")
	expect("walt device rescan switch1", 0, "Querying switch1                   FAILED (LLDP and BRIDGE SNMP issues)")
	expect("walt device rescan n1", 0, "Querying n1                        INVALID (can only scan switches or the server)")
	expect("walt device rescan nowhere", 0, "No device with name 'nowhere' found.")
}
