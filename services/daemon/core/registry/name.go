package registry

import (
	"fmt"
	"strings"

	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/internal/pattern"
)

var (
	deviceName = pattern.Lazy(`^[a-zA-Z][a-zA-Z0-9-]+$`)
	notInName  = pattern.Lazy(`[^a-zA-Z0-9-]+`)
)

// reserved are the names that commands understand otherwise.
var reserved = map[string]bool{
	"server": true, "my-nodes": true, "all-nodes": true, "free-nodes": true, "all-switches": true,
	"explorable-switches": true, "all-devices": true, "booted-image": true,
}

// CheckNewName refuses a name for a device: one that is used (G6), or not valid (G7).
// Keywords of sets are not valid either, although 10.0 accepted them.
func (v *View) CheckNewName(name string) error {
	switch {
	case v.ByName(name) != nil:
		return text.DeviceExists(name)
	case !ValidName(name):
		return &text.Refusal{Text: text.InvalidDeviceName}
	}
	return nil
}

// ValidName tells whether a device can have that name.
func ValidName(name string) bool {
	return len(name) <= 63 && deviceName().MatchString(name) && !reserved[name]
}

// cleanName makes a valid name of what a device calls itself, or returns "".
func cleanName(proposed string) string {
	proposed, _, _ = strings.Cut(proposed, ".")
	proposed = notInName().ReplaceAllString(proposed, "-")
	if !ValidName(proposed) {
		return ""
	}
	return proposed
}

// AutomaticName returns a free name for a device of that type, as "unknown-18d55d".
func (v *View) AutomaticName(kind, mac string) string {
	return v.free(kind + "-" + lastBytes(mac))
}

// free returns a name, with the first free suffix "-2", "-3" … if it is taken.
func (v *View) free(name string) string {
	candidate := name
	for n := 2; v.ByName(candidate) != nil; n++ {
		candidate = fmt.Sprintf("%s-%d", name, n)
	}
	return candidate
}

// lastBytes returns the last three bytes of a MAC in hexadecimal.
func lastBytes(mac string) string {
	digits := strings.ReplaceAll(mac, ":", "")
	return digits[max(0, len(digits)-6):]
}
