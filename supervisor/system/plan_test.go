package system

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/supervisor/unit"
)

// launcher starts nothing; its runs are ready at once, and end when they are told to.
type launcher struct{}

type run struct{ report func(unit.Event) }

func (launcher) Launch(_ *hcl.Unit, _ unit.Task, report func(unit.Event)) unit.Run {
	go report(unit.Event{Kind: unit.Ready})
	return run{report}
}
func (launcher) Update(*hcl.Unit)            {}
func (launcher) Release(*hcl.Unit)           {}
func (launcher) Forget(*hcl.Unit)            {}
func (launcher) LastRun(*hcl.Unit) time.Time { return time.Time{} }

func (r run) Signal(syscall.Signal) { go r.report(unit.Event{Kind: unit.Exited, OK: true}) }
func (r run) Kill()                 { r.Signal(syscall.SIGKILL) }

func (run) Probe(hcl.Probe, time.Duration)                 {}
func (run) Reload(syscall.Signal, []string, time.Duration) {}

// TestPlanOfFolders reads real folders: a plan is applied only if it is what was shown.
func TestPlanOfFolders(t *testing.T) {
	image, own := t.TempDir(), t.TempDir()
	write := func(dir, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "units.hcl"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(image, `unit "a" { exec = ["/a"] }
unit "b" { exec = ["/b"] }`)
	units, err := hcl.LoadUnits(image, own)
	if err != nil {
		t.Fatal(err)
	}
	m, err := unit.New(unit.Config{
		Units: units, Launcher: launcher{}, Clock: unit.SystemClock{}, Jitter: func() float64 { return 0 }, Changed: func(unit.Change) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	m.StartAll()
	await := func(done <-chan struct{}) {
		t.Helper()
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Fatalf("no result: %+v", m.Snapshot())
		}
	}
	await(m.When(unit.Settled))
	p := planner{m, []string{image, own}}
	write(own, `unit "b" { exec = ["/b", "-mine"] }
unit "c" { exec = ["/c"] }`)
	shown, err := p.Plan()
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, s := range shown.Steps {
		actions = append(actions, s.Unit+" "+string(s.Action))
	}
	if got := strings.Join(actions, ", "); got != "a keep, b restart, c add" {
		t.Errorf("plan: %s", got)
	}
	write(own, `unit "b" { exec = ["/b", "-other"] }`)
	if _, _, err := p.ApplyPlan(shown.ID); err == nil || !strings.Contains(err.Error(), "plan again") {
		t.Errorf("another plan than was shown is applied: %v", err)
	}
	if shown, err = p.Plan(); err != nil {
		t.Fatal(err)
	}
	_, done, err := p.ApplyPlan(shown.ID)
	if err != nil {
		t.Fatal(err)
	}
	await(done)
	for _, u := range m.Snapshot() {
		if u.State != unit.Running {
			t.Errorf("%s is %s", u.Name, u.State)
		}
	}
	if _, _, err := p.ApplyPlan(shown.ID); err == nil {
		t.Error("a plan is applied twice")
	}
	if again, err := p.Plan(); err != nil || again.Steps[1].Action != unit.Keep {
		t.Errorf("%+v, %v", again, err)
	}
	if err := os.Remove(filepath.Join(own, "units.hcl")); err != nil {
		t.Fatal(err)
	}
	write(image, `unit "a" { exec = ["/a"] }`)
	if shown, err = p.Plan(); err != nil {
		t.Fatal(err)
	}
	if _, done, err = p.ApplyPlan(shown.ID); err != nil {
		t.Fatal(err)
	}
	await(done)
	if all := m.Snapshot(); len(all) != 1 {
		t.Errorf("%d units are left", len(all))
	}
	write(own, `unit "d" { needs = ["nobody"] }`)
	if _, err := p.Plan(); err == nil || !strings.Contains(err.Error(), "units.hcl") {
		t.Errorf("got %v", err)
	}
}
