package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/waltos/waltos/supervisor/unit"
)

// Plan is what the unit files would change.
type Plan struct {
	ID    string      `json:"id"`
	Steps []unit.Step `json:"steps"` // of all units, in the order in which they start
}

// Planner exchanges the definitions of units.
type Planner interface {
	// Plan reads the unit files.
	Plan() (Plan, error)
	// ApplyPlan reads them again and applies the plan if it is still that one. The channel
	// is closed when every unit that it touches has had its result.
	ApplyPlan(id string) (Plan, <-chan struct{}, error)
}

func (s *Server) plan(w http.ResponseWriter, _ *http.Request) error {
	p, err := s.Planner.Plan()
	if err != nil {
		return err
	}
	return answer(w, p)
}

func (s *Server) applyPlan(w http.ResponseWriter, r *http.Request) error {
	seen := s.History.Last()
	p, done, err := s.Planner.ApplyPlan(r.PathValue("id"))
	if err != nil {
		return err
	}
	units := map[string]bool{}
	for _, step := range p.Steps {
		units[step.Unit] = step.Action != unit.Keep
	}
	out := newLines(w)
	if s.progress(out, r, seen, units, done) {
		out.send(Step{})
	}
	return nil
}

// Plan asks what the unit files would change.
func (c Client) Plan(ctx context.Context) (p Plan, err error) {
	return p, c.ask(ctx, "GET", "/v1/plan", &p)
}

// ApplyPlan applies a plan, tells the events on the way and waits for the result.
func (c Client) ApplyPlan(ctx context.Context, id string, progress func(Event)) error {
	ended := false
	err := stream(ctx, c, "POST", "/v1/plan/"+url.PathEscape(id), func(s Step) error {
		switch {
		case s.Error != "":
			return errors.New(s.Error)
		case s.Event != nil:
			progress(*s.Event)
		default:
			ended = true
		}
		return nil
	})
	if err == nil && !ended {
		err = fmt.Errorf("the supervisor went away before the result")
	}
	return err
}
