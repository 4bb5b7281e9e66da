package debian

import (
	"os/exec"
	"strings"
	"testing"
)

// order is ascending; the first row is the example of Debian policy §5.6.12.
var ordered = [][]string{
	{"~~", "~~a", "~", "0", "a"},
	{"1.0~beta1~svn1245", "1.0~beta1", "1.0", "1.0a", "1.0b", "1.0+", "1.0.", "1.0.1"},
	{"0.9", "1.0-1", "1.0-1+deb13u1", "1.0-1.1", "1.0-2", "1.0-10", "1.00.1-1", "1:0.1", "2:0", "10:0"},
	{"6.12.107-1", "6.12.117-1", "7.3.4-1~bpo13+1", "7.3.4-1"},
	{"17.11-0+deb13u1", "17.12-0+deb13u1"},
	{"1.21.1+git20250501.0-1", "1.21.1+git20250501.0-2"},
	{"99999999999999999999998", "99999999999999999999999"},
	{"1-a-1", "1-a-2", "1-b-1"},
}

func TestOrder(t *testing.T) {
	for _, row := range ordered {
		for i, a := range row {
			for j, b := range row {
				want := 0
				if i < j {
					want = -1
				} else if i > j {
					want = 1
				}
				if got := Version(a).Compare(Version(b)); got != want {
					t.Errorf("Compare(%q, %q) = %d, want %d", a, b, got, want)
				}
			}
		}
	}
	for _, pair := range [][2]string{{"1.0", "1.0-0"}, {"0:1", "1"}, {"1.01", "1.1"}, {"", "0"}, {"1.0-00", "1.0"}} {
		if got := Version(pair[0]).Compare(Version(pair[1])); got != 0 {
			t.Errorf("Compare(%q, %q) = %d, want 0", pair[0], pair[1], got)
		}
	}
}

func TestOrderAgainstDpkg(t *testing.T) {
	dpkg, err := exec.LookPath("dpkg")
	if err != nil {
		t.Skip("dpkg is not on this machine")
	}
	for _, row := range ordered {
		for i := range row[1:] {
			if strings.HasPrefix(row[i], "~") {
				continue // dpkg wants a digit first
			}
			if err := exec.Command(dpkg, "--compare-versions", row[i], "lt", row[i+1]).Run(); err != nil {
				t.Errorf("dpkg does not order %q before %q", row[i], row[i+1])
			}
		}
	}
}

func TestCheck(t *testing.T) {
	for _, good := range []string{"1", "1:2.0-3~a+b", "2025.1", "1-2-3"} {
		if err := Version(good).Check(); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "1 2", "x:1", "1/2", "1\n", strings.Repeat("1", 300)} {
		if Version(bad).Check() == nil {
			t.Errorf("Check accepts %q", bad)
		}
	}
}

func FuzzCompare(f *testing.F) {
	f.Add("1:1.0~b-1", "1.0-1+deb13u1")
	f.Fuzz(func(t *testing.T, a, b string) {
		v, w := Version(a), Version(b)
		if v.Compare(w) != -w.Compare(v) {
			t.Errorf("Compare(%q, %q) is not antisymmetric", a, b)
		}
		if v.Compare(v) != 0 {
			t.Errorf("%q differs from itself", a)
		}
	})
}
