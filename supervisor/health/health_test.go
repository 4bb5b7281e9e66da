package health

import (
	"testing"
	"time"

	"github.com/waltos/waltos/supervisor/unit"
)

func TestMissing(t *testing.T) {
	now := time.Unix(1e9, 0)
	one := func(name string, state unit.State, needs ...string) unit.Snapshot {
		return unit.Snapshot{Name: name, State: state, Wanted: true, Since: now.Add(-time.Hour), Needs: needs}
	}
	with := func(u unit.Snapshot, change func(*unit.Snapshot)) unit.Snapshot {
		change(&u)
		return u
	}
	for name, c := range map[string]struct {
		units []unit.Snapshot
		want  string
	}{
		"all up":                {units: []unit.Snapshot{one("all", unit.Done, "a", "b"), one("a", unit.Running), one("b", unit.Listening)}},
		"one below a group":     {units: []unit.Snapshot{one("all", unit.Done, "a"), one("a", unit.Backoff)}, want: "a is backoff"},
		"still starting":        {units: []unit.Snapshot{one("all", unit.Waiting, "a"), one("a", unit.Starting)}, want: "all is waiting, a is starting"},
		"not of the goal":       {units: []unit.Snapshot{one("all", unit.Done), one("a", unit.Failed)}},
		"circle of names":       {units: []unit.Snapshot{one("all", unit.Done, "a"), one("a", unit.Running, "all")}},
		"no such unit":          {units: []unit.Snapshot{one("other", unit.Failed)}},
		"stopped by a person":   {units: []unit.Snapshot{with(one("all", unit.Stopped), func(u *unit.Snapshot) { u.Wanted = false })}},
		"bound to a failed one": {units: []unit.Snapshot{with(one("all", unit.Running), func(u *unit.Snapshot) { u.Binds = []string{"a"} }), one("a", unit.Failed)}, want: "a is failed"},
		"crashed, up for a moment": {units: []unit.Snapshot{with(one("all", unit.Running), func(u *unit.Snapshot) {
			u.Consecutive, u.Since = 4, now.Add(-time.Second)
		})}, want: "all has failed 4 times"},
		"crashed once, long ago": {units: []unit.Snapshot{with(one("all", unit.Running), func(u *unit.Snapshot) { u.Consecutive = 1 })}},
	} {
		if got := Missing(c.units, []string{"all"}, now); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
