package hcl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnitContradictions: what is refused of a unit alone, beyond TestUnits.
func TestUnitContradictions(t *testing.T) {
	for _, c := range []struct{ body, text string }{
		{`exec = ["/a"]
		  ready { fd = 3 }
		  socket "s" { listen = "unix:/s" }`, "it must be 4 to 1023"},
		{`exec = ["/a"]
		  ready { http = "https://1.2.3.4:5/" }`, "http://ADDR:PORT/PATH"},
		{`exec = ["/a"]
		  ready { http = "http://localhost/" }`, "in numbers"},
		{`exec = ["/a"]
		  ready { tcp = "localhost:80" }`, "in numbers"},
		{`exec = ["/a"]
		  alive {
		    notify = true
		    tcp = "127.0.0.1:1"
		  }`, "2 kinds of proof"},
		{`exec = ["/a"]
		  alive { }`, "0 kinds of proof"},
		{`exec = ["/a"]
		  alive {
		    notify = true
		    threshold = 2
		  }`, "with notify it is 1"},
		{`exec = ["/a"]
		  alive {
		    tcp = "127.0.0.1:1"
		    period = "1s"
		    timeout = "2s"
		  }`, "longer than the period"},
		{`exec = ["/a"]
		  timer { every = "1h" }`, "timer has no meaning for a service"},
		{`type = "oneshot"
		  exec = ["/a"]
		  timer { }`, "either every or daily"},
		{`type = "oneshot"
		  exec = ["/a"]
		  timer { daily = "25:00" }`, "time of day"},
		{`type = "oneshot"
		  exec = ["/a"]
		  timer { every = "10ms" }`, "1s at least"},
		{`type = "oneshot"
		  exec = ["/a"]
		  stop = ["/b"]
		  timer { every = "1h" }`, "nothing to undo"},
		{`type = "oneshot"
		  exec = ["/a"]
		  restart { policy = "always" }
		  timer { every = "1h" }`, "never wait for its time"},
		{`exec = ["/a"]
		  stop = ["/b"]`, "stop has no meaning for a service"},
		{`type = "group"
		  ready { notify = true }`, "Readiness has no meaning for a group"},
		{`exec = ["/a"]
		  on_demand = true`, "on_demand needs a socket"},
		{`exec = ["/a"]
		  needs = ["b"]
		  after = ["b"]`, `"b" is in needs and in after`},
		{`exec = ["/a"]
		  wants = ["a"]`, "names itself"},
		{`exec = ["/a"]
		  reload { }`, "either signal or exec"},
		{`exec = ["/a"]
		  reload { signal = "HPU" }`, `did you mean "HUP"?`},
		{`exec = ["/a"]
		  descripton = "x"`, `Did you mean "description"?`},
		{`exec = ["/a"]
		  type = "onshot"`, `did you mean "oneshot"?`},
		{`exec = ["/a"]
		  shutdown { kill = "all" }`, "one of group, main"},
		{`exec = ["/a"]
		  restart {
		    delay = "20s"
		    max = "10s"
		  }`, "longer than its max"},
		{`exec = ["/a"]
		  state_directories = ["../etc"]`, "below /run or /var/lib"},
		{`exec = ["/a"]
		  socket "s" { listen = "tcp:host:1" }`, "not an address with a port"},
		{`exec = ["/a"]
		  socket "s" {
		    listen = "unix:/s"
		    mode = "rw"
		  }`, "not octal"},
	} {
		_, err := ParseUnits([]byte("unit \"a\" {\n"+c.body+"\n}"), "u.hcl")
		if err == nil || !strings.Contains(strings.Join(strings.Fields(err.Error()), " "), c.text) || !strings.Contains(err.Error(), "u.hcl") {
			t.Errorf("%s\ngot %v, want %q", c.body, err, c.text)
		}
	}
}

func TestCheckGraph(t *testing.T) {
	for name, c := range map[string]struct{ src, text string }{
		"unknown": {`unit "a" {
  exec = ["/a"]
  needs = ["netcofig"]
}
unit "netconfig" { exec = ["/b"] }`, `did you mean "netconfig"?`},
		"cycle": {`unit "a" {
  exec = ["/a"]
  needs = ["b"]
}
unit "b" {
  exec = ["/b"]
  after = ["a"]
}`, "u.hcl:3: a needs b"},
		"long cycle": {`unit "a" {
  exec = ["/a"]
  needs = [
    "x",
    "b",
  ]
}
unit "b" {
  exec = ["/b"]
  wants = ["c"]
}
unit "c" {
  exec = ["/c"]
  binds = ["a"]
}
unit "x" { exec = ["/x"] }`, "u.hcl:5: a needs b\n  DIR/u.hcl:10: b wants c\n  DIR/u.hcl:14: c binds a"},
		"one address": {`unit "a" {
  exec = ["/a"]
  socket "s" { listen = "tcp:0.0.0.0:80" }
}
unit "b" {
  exec = ["/b"]
  socket "t" { listen = "tcp:0.0.0.0:80" }
}`, `u.hcl:7: socket "t" of unit "b" listens on tcp:0.0.0.0:80, as does socket "s" of unit "a" at DIR/u.hcl:3`},
		"all at once": {`unit "a" {
  exec = ["/a"]
  needs = ["y"]
  wants = ["z"]
}`, "u.hcl:4: unit \"a\" wants \"z\", which no unit file defines"},
		"twice": {`unit "a" { exec = ["/a"] }
unit "a" { exec = ["/a"] }`, "u.hcl:2: unit \"a\" is already defined at DIR/u.hcl:1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "u.hcl"), []byte(c.src), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := LoadUnits(dir)
			if want := strings.ReplaceAll(c.text, "DIR", dir); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}

func TestLoadUnitsOfTwoFolders(t *testing.T) {
	image, own := t.TempDir(), t.TempDir()
	write := func(dir, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(image, "image.hcl", "unit \"a\" { exec = [\"/a\"] }\nunit \"b\" {\n exec = [\"/b\"]\n needs = [\"a\"]\n}")
	write(image, "notes.txt", "no unit")
	if units, err := LoadUnits(image, filepath.Join(own, "none")); err != nil || len(units) != 2 {
		t.Errorf("%d units, %v", len(units), err)
	}
	write(own, "mine.hcl", "unit \"a\" { exec = [\"/mine\"] }\nunit \"c\" { exec = [\"/c\"] }")
	units, err := LoadUnits(image, own)
	if err != nil || len(units) != 3 {
		t.Fatalf("%d units, %v", len(units), err)
	}
	for _, u := range units {
		if u.Name == "a" && u.Exec[0] != "/mine" {
			t.Error("the administrator's unit does not stand in for the image's")
		}
	}
	write(own, "bad1.hcl", "unit \"d\" { }")
	write(own, "bad2.hcl", "unit {")
	if _, err := LoadUnits(image, own); err == nil || !strings.Contains(err.Error(), "bad1.hcl") || !strings.Contains(err.Error(), "bad2.hcl") {
		t.Errorf("not both bad files are named: %v", err)
	}
	if _, err := LoadUnits(own + "/none"); err == nil {
		t.Error("a missing image folder is no error")
	}
}

func TestDifferences(t *testing.T) {
	parse := func(text string) *Unit {
		t.Helper()
		units, err := ParseUnits([]byte(text), "u.hcl")
		if err != nil {
			t.Fatal(err)
		}
		return units[0]
	}
	old := parse(`unit "a" {
		exec = ["/a"]
		environment = { A = "1" }
		socket "s" { listen = "unix:/s" }
		limits { memory = "1M" }
	}`)
	same := parse(`


	unit "a" {
		limits { memory = "1M" }
		exec = ["/a"]
		environment = { A = "1" }

		socket "s" {
			listen = "unix:/s"
			mode = "0600"
		}
	}`)
	if d := Differences(old, same); len(d) != 0 {
		t.Errorf("the same unit differs: %v", d)
	}
	changed := parse(`unit "a" {
		exec = ["/a", "-v"]
		environment = { A = "2" }
		description = "new"
		socket "s" { listen = "unix:/t" }
		alive { tcp = "127.0.0.1:1" }
		restart { policy = "never" }
		limits {
			memory = "2M"
			files = 100
		}
	}`)
	var got []string
	for _, d := range Differences(old, changed) {
		live := ""
		if d.Live {
			live = " live"
		}
		got = append(got, d.Path+live)
	}
	want := "description live, exec, environment, socket, alive, restart live, limits.memory live, limits.files"
	if text := strings.Join(got, ", "); text != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	if d := Differences(old, changed)[1]; d.Old != `["/a"]` || d.New != `["/a","-v"]` {
		t.Errorf("%+v", d)
	}
}
