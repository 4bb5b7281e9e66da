package waltctl

import (
	"strings"
	"testing"

	"github.com/waltos/waltos/supervisor/security"
)

func (m *machine) Security() []security.Report {
	return []security.Report{
		{Unit: "bad", PID: 7, Differs: []string{"no filter of system calls is loaded"}, Aspects: []security.Aspect{
			{Name: "user", Can: "nobody", Why: "user"}, {Name: "capabilities", Can: "CAP_NET_RAW", Why: "capabilities"},
			{Name: "system calls", Can: "@service @clock", Why: "syscalls"}, {Name: "network", Can: "the machine's", Why: "network"},
			{Name: "writes", Can: "/a /b /c", Why: "write"},
		}, Refused: []security.Refused{{Call: "mount", Command: "b\x1bad", Count: 3}}},
		{Unit: "sshd", PID: 77, Reason: "administrators", Aspects: []security.Aspect{{Name: "user", Can: "root", Why: "user"}}},
		{Unit: "web", Aspects: []security.Aspect{{Name: "user", Can: "web", Why: "user"}}},
	}
}

func TestSecurity(t *testing.T) {
	d := newDesk(t)
	status, out, errs := d.run("security")
	want := `UNIT  USER    CAPABILITIES  NETWORK  WRITES             SYSTEM CALLS
bad   nobody  net_raw       machine  /a /b and 1 more   @service @clock  DIFFERS: no filter of system calls is loaded
sshd  root                           what its user may                   not confined
web   web                                                                not running

All of a unit, and what gives it: waltctl security UNIT
`
	if status != exitFailed || out != want || errs != "waltctl: more is possible than declared: bad\n" {
		t.Errorf("status %d, %s:\n%s", status, errs, out)
	}
	status, out, _ = d.run("security", "bad")
	want = `bad: confined; as process 7 has it
  ASPECT        CAN              BY
  user          nobody           user
  capabilities  CAP_NET_RAW      capabilities
  system calls  @service @clock  syscalls
  network       the machine's    network
  writes        /a /b /c         write
DIFFERS: no filter of system calls is loaded
refused: mount of b?ad, 3 times
`
	if status != exitFailed || out != want {
		t.Errorf("status %d:\n%s", status, out)
	}
	if status, out, _ := d.run("security", "web", "--json"); status != exitDone || !strings.Contains(out, `"unit": "web"`) {
		t.Errorf("status %d:\n%s", status, out)
	}
	if status, out, _ := d.run("security", "--groups"); status != exitDone || !strings.Contains(out, "\nmount: mount umount2 ") {
		t.Errorf("status %d:\n%s", status, out)
	}
	if status, _, errs := d.run("security", "none"); status != exitFailed || !strings.Contains(errs, "no unit is named") {
		t.Errorf("status %d, %s", status, errs)
	}
}
