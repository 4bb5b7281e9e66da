package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/waltos/waltos/supervisor/security"
)

// strays are units of an administrator that do what they may not.
const strays = `unit "glutton" {
  type = "oneshot"
  exec = ["/bin/sh", "-c", "x=$(head -c 100000000 /dev/zero | tr '\\0' a); echo $x"]
  limits {
    memory = "32M"
  }
  sandbox {}
}

unit "intruder" {
  exec = ["/bin/sh", "-c", "touch /etc/x; while true; do mount -t tmpfs none /tmp; sleep 0.1; done"]
  limits {
    memory_high = "64M"
    swap        = "0"
    tasks       = 20
    cpu         = 50
    cpu_max     = "50%"
    io          = 50
    io_max      = "20M"
  }
  sandbox {}
}
`

// unitsAreConfined compares what units can do with what their files say, on the kernel of the
// appliance, and has some go too far.
func unitsAreConfined(l *lab) {
	l.t.Log("\n" + l.root("waltctl security"))
	l.t.Log("\n" + l.root("waltctl security walt-server-main"))
	for _, r := range l.securities() {
		if len(r.Differs) > 0 || r.Reason == "" && len(r.Refused) > 0 {
			l.t.Errorf("%s differs by %q and was refused %v", r.Unit, r.Differs, r.Refused)
		}
	}
	l.root("mkdir -p /etc/walt/units.d && cat > /etc/walt/units.d/strays.hcl <<'END'\n" + strays + "END\nwaltctl apply --yes || true")
	l.eventually("the end of a unit that takes too much", func(context.Context) error {
		if out := l.root("waltctl events glutton"); !strings.Contains(out, "out of memory (limit 32M)") {
			return fmt.Errorf("its events are:\n%s", out)
		}
		return nil
	})
	l.eventually("the report of a refused system call", func(context.Context) error {
		for _, r := range l.securities() {
			if r.Unit == "intruder" && len(r.Refused) > 0 {
				return nil
			}
		}
		return fmt.Errorf("its log is:\n%s", l.root("waltctl logs intruder -n 5"))
	})
	group := l.root("cd /sys/fs/cgroup/units/intruder && grep -H . memory.high memory.swap.max pids.max cpu.weight cpu.max io.weight io.max")
	l.want(group, "memory.high:67108864", "memory.swap.max:0", "pids.max:20", "cpu.weight:50", "cpu.max:50000 100000", "io.weight:default 50", " rbps=20971520 wbps=20971520 ")
	l.want(l.root("waltctl logs intruder -n 0"), "its sandbox refused the system call ", "of mount", "Read-only file system")
	l.root("rm /etc/walt/units.d/strays.hcl && waltctl apply --yes")
}

func (l *lab) securities() (all []security.Report) {
	l.t.Helper()
	if err := json.Unmarshal([]byte(l.root("waltctl security --json")), &all); err != nil {
		l.t.Fatal(err)
	}
	return all
}
