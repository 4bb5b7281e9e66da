package waltctl

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/supervisor/unit"
)

var somePlan = control.Plan{ID: "0123", Steps: []unit.Step{
	{Unit: "old", Action: unit.Discard},
	{Unit: "base", Action: unit.Keep},
	{Unit: "sshd", Action: unit.Renew, Changes: []hcl.Difference{
		{Path: "exec", Old: `["/a"]`, New: `["/b"]`}, {Path: "limits.memory", New: `"64M"`, Live: true},
	}},
	{Unit: "user", Action: unit.Renew, Because: "it is bound to sshd"},
	{Unit: "new", Action: unit.Add},
}}

func (m *machine) Plan() (control.Plan, error) { return somePlan, nil }

func (m *machine) ApplyPlan(id string) (control.Plan, <-chan struct{}, error) {
	m.did <- "apply " + id
	if id != somePlan.ID {
		return control.Plan{}, nil, errors.New("plan again")
	}
	for _, name := range []string{"base", "sshd"} {
		m.history.Add(unit.Change{Unit: name, Old: unit.Running, New: unit.Stopping, Reason: "its definition has changed", Time: time.Unix(1e9, 0)})
	}
	done := make(chan struct{})
	close(done)
	return somePlan, done, nil
}

const planText = `remove   old
restart  sshd
           exec: ["/a"] -> ["/b"] (needs the restart)
           limits.memory: (not given) -> "64M"
restart  user: it is bound to sshd
add      new
unchanged: 1
`

func TestPlanIsShownThenApplied(t *testing.T) {
	d := newDesk(t)
	if status, out, errs := d.run("plan"); status != exitDone || out != planText {
		t.Errorf("%d, %s%s", status, out, errs)
	}
	status, out, errs := d.run("apply")
	if status != exitFailed || !strings.HasPrefix(out, planText) || !strings.Contains(errs, "nothing was changed") {
		t.Errorf("without an answer: %d, %s%s", status, out, errs)
	}
	if len(d.machine.did) != 0 {
		t.Fatalf("it did %s", <-d.machine.did)
	}
	var o, e bytes.Buffer
	tool := d.tool(&o, &e)
	tool.In = strings.NewReader("y\n")
	if status := tool.Main(context.Background(), []string{"apply"}); status != exitDone || <-d.machine.did != "apply 0123" {
		t.Errorf("%d, %s%s", status, o.String(), e.String())
	}
	if !strings.Contains(o.String(), "sshd: running") || strings.Contains(o.String(), "base: running") {
		t.Errorf("progress: %s", o.String())
	}
	if status, _, errs := d.run("apply", "--yes", "--json"); status != exitDone || <-d.machine.did != "apply 0123" {
		t.Errorf("%d, %s", status, errs)
	}
}

func TestHelpOnUnits(t *testing.T) {
	d := newDesk(t)
	if status, out, _ := d.run("help", "units"); status != exitDone || !strings.Contains(out, "| `binds` |") {
		t.Errorf("%d, %s", status, out)
	}
}
