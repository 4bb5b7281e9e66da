// Package tests tries the whole appliance: it is built, booted in the lab, used by
// the real client and by nodes that boot over the network, and then mistreated.
//
// The tests of one lab share it, in order; each leaves the platform as it found it.
package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/qemu/platform"
	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/supervisor/unit"
	"github.com/waltos/waltos/tests/supplies"
)

// patience bounds each wait for the platform: five times what it takes on a quiet
// machine without KVM.
const patience = 5 * time.Minute

// lab is a running platform and the test that looks at it.
type lab struct {
	*platform.Lab
	t *testing.T
}

// start builds the appliance if necessary and starts a lab with it. When the test
// fails, the consoles are attached to it.
func start(t *testing.T, o platform.Options) *lab {
	t.Helper()
	prepared := supplies.Get(t)
	o.Image, o.Tools, o.Client = prepared.Image, prepared.Tools, prepared.Client
	if o.Folder == "" {
		o.Folder = t.TempDir()
	}
	// A lab of a developer on 127.0.0.1 is left alone.
	o.Address = netip.MustParseAddr("127.0.0.7")
	o.Patience = patience
	o.Progress = func(line string) { t.Log(line) }
	l, err := platform.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			keepConsoles(t, o.Folder)
			var report strings.Builder
			l.Report(&report)
			t.Log(report.String())
		}
		l.Stop()
	})
	return &lab{Lab: l, t: t}
}

// keepConsoles copies the whole consoles out of the folder that the test removes.
func keepConsoles(t *testing.T, folder string) {
	target := os.Getenv("WALT_TEST_EVIDENCE")
	if target == "" {
		return
	}
	logs, _ := filepath.Glob(filepath.Join(folder, "consoles", "*.log"))
	for _, file := range logs {
		content, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(target, strings.ReplaceAll(t.Name(), "/", "-")+"-"+filepath.Base(file)), content, 0o644)
		}
		if err != nil {
			t.Log(err)
		}
	}
}

// on returns the same lab for a subtest.
func (l *lab) on(t *testing.T) *lab { return &lab{Lab: l.Lab, t: t} }

// eventually tries until there is no error.
func (l *lab) eventually(what string, try func(ctx context.Context) error) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			l.t.Fatalf("%s did not happen in %v: %v", what, patience, err)
		}
	}
}

// root runs a command on the appliance, which must succeed.
func (l *lab) root(command string) string {
	l.t.Helper()
	out, err := l.SSH(l.t.Context(), command)
	if err != nil {
		l.t.Fatalf("%s: %v", command, err)
	}
	return out
}

// status asks the supervisor.
func (l *lab) status(ctx context.Context) (control.Status, error) {
	var s control.Status
	out, err := l.SSH(ctx, "waltctl status --json")
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal([]byte(out), &s)
}

// units returns the units by name.
func (l *lab) units(ctx context.Context) (map[string]control.Unit, error) {
	s, err := l.status(ctx)
	units := map[string]control.Unit{}
	for _, u := range s.Units {
		units[u.Name] = u
	}
	return units, err
}

// healthy tells what is wrong with the units, if anything.
func (l *lab) healthy(ctx context.Context) error {
	units, err := l.units(ctx)
	if err != nil {
		return err
	}
	for name, u := range units {
		if u.Wanted && u.State != unit.Running && u.State != unit.Done && u.State != unit.Scheduled {
			return fmt.Errorf("unit %s is %s: %s", name, u.State, u.Reason)
		}
	}
	return nil
}

// walt runs the real client, which must succeed, and returns what it printed.
func (l *lab) walt(args ...string) string {
	l.t.Helper()
	stdout, stderr, code, err := l.Walt(l.t.Context(), args...)
	if err != nil || code != 0 {
		l.t.Fatalf("walt %s: exit code %d, %v\n%s%s", strings.Join(args, " "), code, err, stdout, stderr)
	}
	return stdout + stderr
}

// want checks that a text has some parts.
func (l *lab) want(text string, parts ...string) {
	l.t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			l.t.Errorf("this lacks %q:\n%s", part, text)
		}
	}
}

// node returns what the server knows of the first node.
func (l *lab) node() *platform.Known {
	l.t.Helper()
	known, err := l.Inventory(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	n := known[l.Nodes()[0].MAC]
	if n == nil {
		l.t.Fatalf("the server does not know the node %s: %v", l.Nodes()[0].MAC, known)
	}
	return n
}

// onNode runs a command on the first node, by ssh from the server.
func (l *lab) onNode(command string) string {
	l.t.Helper()
	return l.root(nodeShell(l.node().IP) + shellQuote(command))
}

func nodeShell(ip string) string {
	return "ssh -o PreferredAuthentications=publickey -o UserKnownHostsFile=/var/lib/walt/ssh/known_hosts.nodes" +
		" -o HostKeyAlias=walt.node -o ConnectTimeout=10 root@" + ip + " "
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// bootID identifies one boot of the first node.
func (l *lab) bootID() string {
	l.t.Helper()
	return strings.TrimSpace(l.onNode("cat /proc/sys/kernel/random/boot_id"))
}
