package replay

import (
	"errors"
	"strconv"
	"time"

	"github.com/waltos/waltos/services/internal/pattern"
)

var relative = pattern.Lazy(`^([+-])([0-9]{1,9})([smhd])$`)

var units = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}

var errJump = errors.New("write HH:MM:SS.f, YYYY-MM-DD, or ±<n>[smhd]")

// parseJump returns the moment that a text names: a time on the present day, a day, or so
// much after or before now.
func parseJump(text string, now time.Time) (time.Time, error) {
	if m := relative().FindStringSubmatch(text); m != nil {
		n, err := strconv.Atoi(m[1] + m[2])
		if err != nil || n > 100_000 && m[3] == "d" || n < -100_000 && m[3] == "d" {
			return time.Time{}, errJump
		}
		return now.Add(time.Duration(n) * units[m[3]]), nil
	}
	if day, err := time.ParseInLocation(dateLayout, text, now.Location()); err == nil {
		return day, nil
	}
	if clock, err := time.Parse("15:04:05", text); err == nil { // with a fraction or not
		year, month, day := now.Date()
		return time.Date(year, month, day, clock.Hour(), clock.Minute(), clock.Second(), clock.Nanosecond(), now.Location()), nil
	}
	return time.Time{}, errJump
}
