// Package health judges whether the machine does what it is for: the health goal, a list of
// units that must be up and live, each with what it needs.
//
// A unit that nobody wants, because an administrator has stopped it, is no failure, and
// neither is a name that no unit has.
package health

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/waltos/waltos/supervisor/unit"
)

// steady is how long a unit that has failed before must be up again to count: one that
// crashes again and again is up now and then.
const steady = 30 * time.Second

// Missing tells what keeps the goal from holding; empty: it holds.
func Missing(units []unit.Snapshot, goal []string, now time.Time) string {
	byName := map[string]unit.Snapshot{}
	for _, u := range units {
		byName[u.Name] = u
	}
	var missing []string
	names := slices.Clone(goal)
	for i := 0; i < len(names); i++ {
		u, known := byName[names[i]]
		if !known || !u.Wanted {
			continue
		}
		switch {
		case !up(u):
			missing = append(missing, fmt.Sprintf("%s is %s", u.Name, u.State))
		case u.Consecutive > 0 && now.Sub(u.Since) < steady:
			missing = append(missing, fmt.Sprintf("%s has failed %d times", u.Name, u.Consecutive))
		}
		for _, other := range slices.Concat(u.Needs, u.Binds) {
			if !slices.Contains(names, other) {
				names = append(names, other)
			}
		}
	}
	return strings.Join(missing, ", ")
}

func up(u unit.Snapshot) bool {
	switch u.State {
	case unit.Running, unit.Reloading, unit.Done, unit.Scheduled, unit.Listening:
		return true
	}
	return false
}
