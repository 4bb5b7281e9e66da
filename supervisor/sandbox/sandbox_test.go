package sandbox

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/waltos/waltos/hcl"
)

func parse(t *testing.T, text string) *hcl.Unit {
	t.Helper()
	units, err := hcl.ParseUnits([]byte("unit \"u\" {\nexec = [\"/u\"]\n"+text+"\n}"), "test.hcl")
	if err != nil {
		t.Fatal(err)
	}
	return units[0]
}

func TestView(t *testing.T) {
	show := func(places []Place) string {
		text := ""
		for _, p := range places {
			if !slices.Contains(hidden, p.Path) {
				text += fmt.Sprintf("%s %s (%s)\n", p.Access, p.Path, p.Why)
			}
		}
		return text
	}
	for _, test := range []struct{ unit, want string }{
		{"sandbox {}", ""},
		{`state_directories = ["walt", "walt/images", "b"]
		  runtime_directories = ["r"]
		  sandbox {}`, "write /run/r (its directories)\nwrite /var/lib/b (its directories)\nwrite /var/lib/walt (its directories)\n"},
		{`state_directories = ["walt", "walt/images"]
		  sandbox { mounts = ["/var/lib/walt/images"] }`, "write /var/lib/walt (its directories)\nmount /var/lib/walt/images (mounts)\n"},
		{`state_directories = ["walt", "walt/images"]
		  sandbox { mounts = ["/var/lib/walt"] }`, "mount /var/lib/walt (mounts)\n"},
		{`sandbox {
			read = ["/var/lib/walt", "/var/lib/walt/keys/public"]
			hide = ["/var/lib/walt/keys", "/etc/ssh"]
			write = ["/var/lib/walt/new"]
		}`, "hidden /etc/ssh (hide)\nread /var/lib/walt (read)\nhidden /var/lib/walt/keys (hide)\nread /var/lib/walt/keys/public (read)\nwrite /var/lib/walt/new (write)\n"},
		{`sandbox {
			write = ["/a"]
			read  = ["/a"]
		}`, "write /a (write)\n"},
	} {
		u := parse(t, test.unit)
		places := View(u.Sandbox, Own(u, "/run", "/var/lib"))
		if got := show(places); got != test.want {
			t.Errorf("%s is\n%swant\n%s", test.unit, got, test.want)
		}
		for _, path := range hidden {
			if !slices.ContainsFunc(places, func(p Place) bool { return p.Path == path }) {
				t.Errorf("%s: %s is not hidden", test.unit, path)
			}
		}
	}
	if places := View(parse(t, `sandbox { root = "machine" }`).Sandbox, nil); len(places) != 0 {
		t.Errorf("the root of the machine has places %v", places)
	}
}

func TestCapabilities(t *testing.T) {
	names := []string{"CAP_CHOWN", "CAP_NET_RAW", "CAP_CHECKPOINT_RESTORE"}
	set, err := ParseCapabilities(names)
	if err != nil || set != 1|1<<13|1<<40 || !reflect.DeepEqual(set.Names(), names) {
		t.Errorf("%x is %v, %v", set, set.Names(), err)
	}
	if got := Capabilities(1 << 50).Names(); !reflect.DeepEqual(got, []string{"CAP_50"}) {
		t.Errorf("%v", got)
	}
	if _, err := ParseCapabilities([]string{"CAP_NET"}); err == nil {
		t.Error("CAP_NET is accepted")
	}
	for number, name := range capabilityNames {
		if name == "" {
			t.Errorf("capability %d has no name", number)
		}
	}
}

func TestCheck(t *testing.T) {
	for text, good := range map[string]bool{
		"":                                   true,
		`sandbox { unconfined = "why" }`:     true,
		`sandbox { syscalls = ["@mount"] }`:  true,
		`sandbox { syscalls = ["@mounts"] }`: false,
		`capabilities = ["CAP_MAGIC"]`:       false,
	} {
		if err := Check(parse(t, text)); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}
