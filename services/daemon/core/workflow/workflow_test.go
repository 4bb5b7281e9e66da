package workflow

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
)

type trace struct {
	mu    sync.Mutex
	lines []string
}

func (t *trace) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, line)
}

func says(name string, outcome Outcome) Step[*trace] {
	return Step[*trace]{name, func(_ context.Context, f *Flow[*trace]) (Outcome, error) {
		f.Env.add(name)
		return outcome, nil
	}}
}

func TestOrderInsertionAndInterruption(t *testing.T) {
	tr := &trace{}
	inserts := Step[*trace]{"b", func(_ context.Context, f *Flow[*trace]) (Outcome, error) {
		f.Env.add("b")
		f.Insert(says("b1", Next), says("b2", Next))
		return Next, nil
	}}
	if err := Run(t.Context(), "test", tr, says("a", Next), inserts, says("c", Interrupt), says("d", Next)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b", "b1", "b2", "c"}; !slices.Equal(tr.lines, want) {
		t.Errorf("steps %q, want %q", tr.lines, want)
	}
}

func TestParallelStepsMeet(t *testing.T) {
	tr := &trace{}
	meet := make(chan bool)
	one := Step[*trace]{"one", func(context.Context, *Flow[*trace]) (Outcome, error) { meet <- true; return Next, nil }}
	two := Step[*trace]{"two", func(_ context.Context, f *Flow[*trace]) (Outcome, error) {
		<-meet
		f.Insert(says("inserted", Next))
		return Next, nil
	}}
	if err := Run(t.Context(), "test", tr, Parallel("both", one, two), says("after", Next)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"inserted", "after"}; !slices.Equal(tr.lines, want) {
		t.Errorf("steps %q, want %q", tr.lines, want)
	}
	if err := Run(t.Context(), "test", tr, Parallel("both", says("x", Interrupt), says("y", Next)), says("never", Next)); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(tr.lines, "never") {
		t.Error("an interruption in parallel is ignored")
	}
}

func TestErrorsNameTheStep(t *testing.T) {
	cause := errors.New("cause")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	fails := Step[*trace]{"two", func(context.Context, *Flow[*trace]) (Outcome, error) { return 0, cause }}
	panics := Step[*trace]{"two", func(context.Context, *Flow[*trace]) (Outcome, error) { panic("oops") }}
	tests := []struct {
		name string
		ctx  context.Context
		step Step[*trace]
		want string
	}{
		{"forgotten continuation", t.Context(), says("two", 0), `cannot go on with test: step "two" ended without saying how`},
		{"failure", t.Context(), fails, `cannot go on with test: step "two": cause`},
		{"panic", t.Context(), panics, `cannot go on with test: step "two" panicked: oops`},
		{"parallel", t.Context(), Parallel("all", says("one", Next), fails), `cannot go on with test: step "all": cannot go on with test: step "two": cause`},
		{"ended", ended, fails, `cannot go on with test before step "two": context canceled`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tr := &trace{}
			err := Run(test.ctx, "test", tr, test.step, says("three", Next))
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("error %v, want %s", err, test.want)
			}
			if len(tr.lines) > 1 {
				t.Errorf("the workflow went on: %q", tr.lines)
			}
		})
	}
}

func TestAfterAnotherWorkflow(t *testing.T) {
	tr := &trace{}
	release := make(chan bool)
	slow := Step[*trace]{"slow", func(_ context.Context, f *Flow[*trace]) (Outcome, error) {
		<-release
		f.Env.add("slow")
		return Next, nil
	}}
	other := Start(t.Context(), "other", tr, slow)
	waits := Start(t.Context(), "test", tr, says("first", Next), After[*trace]("wait for the other", other), says("last", Next))
	close(release)
	if err := waits.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if i, j := slices.Index(tr.lines, "slow"), slices.Index(tr.lines, "last"); i < 0 || j < i {
		t.Errorf("steps %q", tr.lines)
	}

	broken := Start(t.Context(), "broken", tr, says("forgetful", 0))
	err := Run(t.Context(), "test", tr, After[*trace]("wait for the broken one", broken))
	if want := `cannot go on with test: step "wait for the broken one": cannot go on with broken: step "forgetful" ended without saying how`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}

	ctx, cancel := context.WithCancel(t.Context())
	stuck := Start(ctx, "stuck", tr, Step[*trace]{"never", func(ctx context.Context, _ *Flow[*trace]) (Outcome, error) {
		<-ctx.Done()
		return Next, ctx.Err()
	}})
	impatient, leave := context.WithCancel(t.Context())
	leave()
	if err := stuck.Wait(impatient); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "stuck") {
		t.Errorf("error %v", err)
	}
	cancel()
	if err := stuck.Wait(t.Context()); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
