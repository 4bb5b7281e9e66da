package debian

import (
	"fmt"
	"strings"
)

// Version is a package version: [epoch:]upstream[-revision] (Debian policy §5.6.12).
type Version string

// Compare returns -1, 0 or 1 as v is earlier than, equal to or later than w.
func (v Version) Compare(w Version) int {
	ve, vu, vr := v.split()
	we, wu, wr := w.split()
	if c := compareNumbers(ve, we); c != 0 {
		return c
	}
	if c := comparePart(vu, wu); c != 0 {
		return c
	}
	return comparePart(vr, wr)
}

// Check refuses what cannot be a version.
func (v Version) Check() error {
	epoch, upstream, revision := v.split()
	if upstream == "" || len(v) > 256 {
		return fmt.Errorf("%.80q is not a version", string(v))
	}
	for i := range len(epoch) {
		if !digit(epoch[i]) {
			return fmt.Errorf("%.80q has a bad epoch", string(v))
		}
	}
	for _, c := range upstream + revision {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.+-~:", c) {
			return fmt.Errorf("%.80q has the character %q, which no version may have", string(v), c)
		}
	}
	return nil
}

func (v Version) split() (epoch, upstream, revision string) {
	upstream = string(v)
	if i := strings.IndexByte(upstream, ':'); i >= 0 {
		epoch, upstream = upstream[:i], upstream[i+1:]
	}
	if i := strings.LastIndexByte(upstream, '-'); i >= 0 {
		upstream, revision = upstream[:i], upstream[i+1:]
	}
	return epoch, upstream, revision
}

// comparePart walks runs of non-digits and digits in turn.
func comparePart(a, b string) int {
	for a != "" || b != "" {
		for (a != "" && !digit(a[0])) || (b != "" && !digit(b[0])) {
			ca, cb := order(a), order(b)
			if ca != cb {
				if ca < cb {
					return -1
				}
				return 1
			}
			a, b = a[1:], b[1:]
		}
		na, nb := digits(a), digits(b)
		if c := compareNumbers(a[:na], b[:nb]); c != 0 {
			return c
		}
		a, b = a[na:], b[nb:]
	}
	return 0
}

// order ranks the first character: ~ before the end, the end and digits before
// letters, letters before the rest.
func order(s string) int {
	switch {
	case s == "" || digit(s[0]):
		return 0
	case s[0] == '~':
		return -1
	case 'a' <= s[0] && s[0] <= 'z' || 'A' <= s[0] && s[0] <= 'Z':
		return int(s[0])
	default:
		return int(s[0]) + 256
	}
}

// compareNumbers compares decimal numbers of any length.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		if len(a) < len(b) {
			return -1
		}
		return 1
	}
	return strings.Compare(a, b)
}

func digits(s string) int {
	n := 0
	for n < len(s) && digit(s[n]) {
		n++
	}
	return n
}

func digit(c byte) bool { return '0' <= c && c <= '9' }
