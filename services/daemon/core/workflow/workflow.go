// Package workflow runs procedures of several steps, such as a reboot of nodes: plain
// values, a list of named steps that share an environment (design §6, server-state §5.6).
// A step may insert others after itself, run some in parallel, wait for another workflow,
// or interrupt the whole.
//
// A step must say how to go on; one that does not is an error with its name, and so is one
// that panics: a procedure never stops in silence, and never takes the daemon with it.
package workflow

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/waltos/waltos/services/daemon/trackexec"
)

// Outcome is how a workflow goes on after a step.
type Outcome int

const (
	_         Outcome = iota // the step forgot to say
	Next                     // the next step
	Interrupt                // no further step; this is no error
)

// Step is one step of a workflow on an environment of type E.
type Step[E any] struct {
	Name string
	Do   func(ctx context.Context, f *Flow[E]) (Outcome, error)
}

// Flow is a workflow under way, as its steps see it.
type Flow[E any] struct {
	Env  E
	name string

	mu   sync.Mutex
	todo []Step[E]
}

// Run executes steps in order, until one fails or interrupts, or ctx ends. Errors begin
// with the names of the workflow and of the step.
func Run[E any](ctx context.Context, name string, env E, steps ...Step[E]) (err error) {
	ctx, span := trackexec.Begin(ctx, trackexec.Task, name)
	defer func() { span.End(err) }()
	f := &Flow[E]{Env: env, name: name, todo: slices.Clone(steps)}
	for {
		step, left := f.take()
		if !left {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("cannot go on with %s before step %q: %w", name, step.Name, err)
		}
		outcome, err := f.do(ctx, step)
		if err != nil || outcome == Interrupt {
			return err
		}
	}
}

// Insert makes steps follow the present one, before those already planned.
func (f *Flow[E]) Insert(steps ...Step[E]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.todo = slices.Insert(f.todo, 0, steps...)
}

func (f *Flow[E]) take() (step Step[E], left bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.todo) == 0 {
		return step, false
	}
	step, f.todo = f.todo[0], f.todo[1:]
	return step, true
}

func (f *Flow[E]) do(ctx context.Context, step Step[E]) (outcome Outcome, err error) {
	ctx, span := trackexec.Begin(ctx, trackexec.Task, step.Name)
	span.Note(f.name, -1)
	defer func() { span.End(err) }()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("cannot go on with %s: step %q panicked: %v\n%s", f.name, step.Name, p, debug.Stack())
		}
	}()
	outcome, err = step.Do(ctx, f)
	switch {
	case err != nil:
		return outcome, fmt.Errorf("cannot go on with %s: step %q: %w", f.name, step.Name, err)
	case outcome != Next && outcome != Interrupt:
		return outcome, fmt.Errorf("cannot go on with %s: step %q ended without saying how", f.name, step.Name)
	}
	return outcome, nil
}

// Parallel is a step that runs several at once and ends with the last of them. If any
// interrupts, so does the whole; the errors of all are joined. What they insert follows
// the whole.
func Parallel[E any](name string, steps ...Step[E]) Step[E] {
	return Step[E]{Name: name, Do: func(ctx context.Context, f *Flow[E]) (Outcome, error) {
		outcomes := make([]Outcome, len(steps))
		errs := make([]error, len(steps))
		var all sync.WaitGroup
		for i, step := range steps {
			all.Go(func() { outcomes[i], errs[i] = f.do(ctx, step) })
		}
		all.Wait()
		if slices.Contains(outcomes, Interrupt) {
			return Interrupt, errors.Join(errs...)
		}
		return Next, errors.Join(errs...)
	}}
}

// Running is a workflow that was started.
type Running struct {
	name string
	done chan struct{}
	err  error
}

// Start is Run in the background.
func Start[E any](ctx context.Context, name string, env E, steps ...Step[E]) *Running {
	r := &Running{name: name, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = Run(ctx, name, env, steps...)
	}()
	return r
}

// Wait returns the error of the workflow once it has ended, or that of ctx.
func (r *Running) Wait(ctx context.Context) error {
	select {
	case <-r.done:
		return r.err
	default:
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("cannot wait for %s any longer: %w", r.name, ctx.Err())
	}
}

// After is a step that ends with another workflow; it fails if that one did.
func After[E any](name string, other *Running) Step[E] {
	return Step[E]{Name: name, Do: func(ctx context.Context, _ *Flow[E]) (Outcome, error) { return Next, other.Wait(ctx) }}
}
