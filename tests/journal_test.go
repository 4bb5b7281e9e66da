package tests

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/waltos/waltos/supervisor/journal"
)

// counting is a unit of the appliance that counts aloud, and somebody who listens.
type counting struct {
	l     *lab
	heard chan []journal.Record // all that was heard, once the appliance has ended
}

const countingUnit = `unit "counting" {
  exec = ["/bin/bash", "-c", "for ((n = 0; ; n++)); do echo $n; sleep 0.05; done"]
}`

// count starts the unit, and returns when the disk of the appliance has had time to lag behind.
// Nothing may have the supervisor flush the journal from then on: most questions of waltctl do.
func (l *lab) count() *counting {
	l.t.Helper()
	l.root("mkdir -p /etc/walt/units.d && echo " + shellQuote(countingUnit) + " >/etc/walt/units.d/counting.hcl && waltctl apply --yes")
	c := &counting{l: l, heard: make(chan []journal.Record, 1)}
	go func() {
		out, _ := l.SSH(l.t.Context(), "waltctl logs --follow --json --lines 0 counting") // an error: that is the power cut
		c.heard <- records(out)
	}()
	l.eventually("counting", func(ctx context.Context) error {
		out, err := l.SSH(ctx, `cat /var/log/walt/journal/*.jsonl | grep -c '"u":"counting"'`)
		const enough = 100
		if n, _ := strconv.Atoi(strings.TrimSpace(out)); n < enough {
			return fmt.Errorf("%d lines so far, %v", n, err)
		}
		return nil
	})
	return c
}

// compare is called once the appliance serves again after a power cut: the journal has what was
// said up to a second before, without a gap.
func (c *counting) compare() {
	c.l.t.Helper()
	heard := <-c.heard
	kept := records(c.l.root("rm -r /etc/walt/units.d && waltctl apply --yes >/dev/null && waltctl logs --boot=-1 --json counting"))
	if len(heard) == 0 || len(kept) == 0 {
		c.l.t.Fatalf("%d lines were heard, %d were kept", len(heard), len(kept))
	}
	for i, r := range kept {
		if r.Text != strconv.Itoa(i) {
			c.l.t.Fatalf("line %d of the journal is %q", i, r.Text)
		}
	}
	lost := max(0, heard[len(heard)-1].Time().Sub(kept[len(kept)-1].Time()))
	c.l.t.Logf("the power cut has cost the last %v: %d of %d lines are kept", lost, len(kept), len(kept)+int(lost/(50*time.Millisecond)))
	// The disk is told twice a second to keep what it has, and then the last second is lost at most;
	// another one is for the disk of a busy machine to do it. A kernel that nobody tells waits for thirty.
	if lost > 2*time.Second {
		c.l.t.Errorf("the power cut has cost the last %v", lost)
	}
}

// records reads what waltctl prints; the last one may be torn.
func records(text string) (list []journal.Record) {
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		var r journal.Record
		if json.Unmarshal(lines.Bytes(), &r) == nil && r.Unit == "counting" {
			list = append(list, r)
		}
	}
	return list
}
