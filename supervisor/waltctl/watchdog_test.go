package waltctl

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/supervisor/watchdog"
)

func TestPrintWatchdog(t *testing.T) {
	for _, c := range []struct {
		status watchdog.Status
		want   string
	}{
		{watchdog.Status{}, ""},
		{watchdog.Status{State: watchdog.Absent}, "watchdog: none on this machine\n"},
		{watchdog.Status{State: watchdog.Off}, "watchdog: disabled by the site file\n"},
		{watchdog.Status{State: watchdog.Suspended}, "watchdog: off by request, until the next boot\n"},
		{watchdog.Status{State: watchdog.Armed, Device: "iTCO\x1b", Timeout: time.Minute, Trouble: "cannot feed"}, "watchdog: on (iTCO?, 1m0s); cannot feed\n"},
		{watchdog.Status{State: watchdog.Grace, Device: "d", Left: 9 * time.Minute, Why: "x is failed"}, "watchdog: on (d, 0s); reset unless this ends within 9m0s: x is failed\n"},
		{watchdog.Status{State: watchdog.Starving, Device: "d", Why: "x is failed"}, "watchdog: on (d, 0s); RESET at any moment: x is failed\n"},
		{watchdog.Status{State: watchdog.Ending}, "watchdog: the machine is ending\n"},
	} {
		var out bytes.Buffer
		(&Tool{Out: &out}).printWatchdog(c.status)
		if got := out.String(); got != c.want {
			t.Errorf("%s: %q, want %q", c.status.State, got, c.want)
		}
	}
}

func TestWatchdogCommand(t *testing.T) {
	d := newDesk(t)
	for _, args := range [][]string{{"watchdog", "on"}, {"watchdog", "off"}} {
		code, out, errors := d.run(args...)
		if code != exitDone || !strings.Contains(out, "watchdog: on (dog, 1m0s)") || <-d.machine.did != strings.Join(args, " ") {
			t.Errorf("%v: %d, %q, %q", args, code, out, errors)
		}
	}
	if code, _, errors := d.run("watchdog", "bite"); code != exitUsage {
		t.Errorf("%d, %q", code, errors)
	}
}
