package snmp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waltos/waltos/services/daemon/blocking/snmptest"
)

// netSNMP returns a program of net-snmp, or skips the test.
func netSNMP(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("net-snmp is not here to be judge: %v", err)
	}
	return path
}

// run runs a program of net-snmp, which keeps its files in a folder of the test.
func run(t *testing.T, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), netSNMP(t, name), args...)
	cmd.Env = append(os.Environ(), "SNMP_PERSISTENT_DIR="+t.TempDir(), "MIBS=")
	return cmd
}

// The agent of the tests speaks as net-snmp expects it.
func TestAgentAsNetSNMPSeesIt(t *testing.T) {
	sw := newSwitch(t, snmptest.Netgear)
	sw.Neighbor(2, "02:00:00:00:00:02", "192.168.152.2", "other")
	sw.Feed(3)
	address := sw.Address().String()
	walks := map[string]string{}
	for _, how := range [][]string{{"snmpwalk", "-v1"}, {"snmpwalk", "-v2c"}, {"snmpbulkwalk", "-v2c"}} {
		out, err := run(t, how[0], how[1], "-c", "private", "-On", "-t1", "-r2", address, ".1").CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", how, err, out)
		}
		walks[strings.Join(how, " ")] = strings.SplitAfter(string(out), "No more variables")[0]
	}
	want := strings.Count(walks["snmpwalk -v1"], "\n")
	for how, text := range walks {
		if n := strings.Count(text, "\n"); n < 80 || n < want-1 || n > want+1 { // one line more tells the end
			t.Errorf("%s: %d objects, and %d by snmpwalk -v1", how, n, want)
		}
		for _, line := range []string{
			".1.3.6.1.2.1.1.2.0 = OID: .1.3.6.1.4.1.4526.100.4.19\n",
			".1.0.8802.1.1.2.1.4.1.1.5.0.2.1 = Hex-STRING: 02 00 00 00 00 02 \n",
			".1.3.6.1.2.1.2.2.1.5.1 = Gauge32: 1000000000\n",
			".1.3.6.1.4.1.4526.11.16.1.1.1.6.1.3 = INTEGER: 3\n",
		} {
			if !strings.Contains(text, line) {
				t.Errorf("%s: no %q", how, line)
			}
		}
	}
	if out, err := run(t, "snmpset", "-v2c", "-c", "private", address, ".1.3.6.1.4.1.4526.11.16.1.1.1.3.1.3", "i", "2").CombinedOutput(); err != nil || sw.Powered(3) {
		t.Errorf("snmpset: %v\n%s", err, out)
	}
	if out, err := run(t, "snmpset", "-v2c", "-c", "private", address, ".1.3.6.1.2.1.1.2.0", "i", "2").CombinedOutput(); err == nil {
		t.Errorf("snmpset of what is read-only: %s", out)
	}
	if out, err := run(t, "snmpget", "-v2c", "-c", "public", "-t0.1", "-r0", address, ".1.3.6.1.2.1.1.2.0").CombinedOutput(); err == nil {
		t.Errorf("another community: %s", out)
	}
}

// A switch whose agent is net-snmp is explored and controlled.
func TestNetSNMPAsASwitch(t *testing.T) {
	daemon := netSNMP(t, "snmpd")
	free, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.LocalAddr().String()
	free.Close()
	lines := []string{"rwcommunity private 127.0.0.1", "agentAddress udp:" + address}
	for port := 1; port <= 8; port++ {
		lines = append(lines,
			fmt.Sprintf("override -rw 1.3.6.1.2.1.105.1.1.1.3.1.%d integer 1", port),
			fmt.Sprintf("override 1.3.6.1.2.1.105.1.1.1.6.1.%d integer %d", port, 2+port%2),
			fmt.Sprintf("override 1.0.8802.1.1.2.1.3.7.1.2.%d integer 7", port),
			fmt.Sprintf("override 1.0.8802.1.1.2.1.3.7.1.3.%d octet_str \"p%d\"", port, port),
			fmt.Sprintf("override 1.0.8802.1.1.2.1.4.1.1.4.0.%d.1 integer 4", port),
			fmt.Sprintf("override 1.0.8802.1.1.2.1.4.1.1.5.0.%d.1 octet_str 0x02000000000%d", port, port),
			fmt.Sprintf("override 1.0.8802.1.1.2.1.4.1.1.9.0.%d.1 octet_str \"Peer%d\"", port, port),
			fmt.Sprintf("override 1.3.6.1.2.1.17.7.1.2.2.1.2.1.2.0.0.0.0.%d integer %d", port, port),
			fmt.Sprintf("override 1.3.6.1.2.1.17.7.1.2.2.1.3.1.2.0.0.0.0.%d integer 3", port))
	}
	config := filepath.Join(t.TempDir(), "snmpd.conf")
	if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := run(t, daemon, "-f", "-Lf", filepath.Join(t.TempDir(), "log"), "-C", "-c", config, "-p", filepath.Join(t.TempDir(), "pid"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	}()
	c := &Client{Timeout: time.Second, Retries: 20, Dial: func(ctx context.Context, _ netip.Addr) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", address)
	}}
	for _, version := range []int{1, 2} {
		ctx := t.Context()
		s, err := c.Open(ctx, Target{netip.MustParseAddr("127.0.0.1"), version, "private"})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for { // until it listens
			kind, err := s.Kind(ctx)
			if err == nil {
				if !strings.HasPrefix(kind, ".1.3.6.1.4.1.8072.") {
					t.Errorf("kind %s", kind)
				}
				break
			}
			if !errors.Is(err, ErrMute) {
				t.Fatal(err)
			}
		}
		variant := LLDPs()[0]
		neighbors, err := variant.Neighbors(ctx, s)
		if err != nil || len(neighbors) != 8 || !slices.Contains(neighbors, Neighbor{Port: 3, MAC: "02:00:00:00:00:03", Name: "peer3"}) {
			t.Errorf("v%d: neighbours %v, %v", version, neighbors, err)
		}
		if _, err := LLDPs()[1].Neighbors(ctx, s); !errors.Is(err, ErrNoSuchObject) {
			t.Errorf("v%d: tables of TP-Link: %v", version, err)
		}
		n, err := s.Numbering(ctx, variant)
		if err != nil || n.Labels["p5"] != 5 {
			t.Errorf("v%d: labels %v, %v", version, n.Labels, err)
		}
		stations, err := s.Stations(ctx, Numbering{})
		if err != nil || len(stations) != 8 || !slices.Contains(stations, Station{3, "02:00:00:00:00:03"}) {
			t.Errorf("v%d: stations %v, %v", version, stations, err)
		}
		poe := PoEs()[1]
		ports, err := poe.Rows(ctx, s)
		if d := cmp.Diff(poeRows(8), ports); d != "" || err != nil {
			t.Errorf("v%d: power table: %s %v", version, d, err)
		}
		if err := poe.Set(ctx, s, PoEPort{1, 1}, false); err != nil {
			t.Errorf("v%d: off: %v", version, err)
		}
		if err := poe.Set(ctx, s, PoEPort{1, 2}, false); err != ErrNotPowered {
			t.Errorf("v%d: off without power: %v", version, err)
		}
		if err := poe.Set(ctx, s, PoEPort{1, 1}, true); err != nil {
			t.Errorf("v%d: on: %v", version, err)
		}
		if err := poe.Set(ctx, s, PoEPort{1, 9}, true); err == nil {
			t.Errorf("v%d: a port that is not there is on", version)
		}
	}
}
