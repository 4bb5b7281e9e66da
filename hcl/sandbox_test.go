package hcl

import (
	"strings"
	"testing"
)

func TestSandboxDefaults(t *testing.T) {
	units, err := ParseUnits([]byte(`unit "a" {
		exec = ["/a"]
		sandbox {}
	}
	unit "b" { exec = ["/b"] }`), "test.hcl")
	if err != nil {
		t.Fatal(err)
	}
	s := units[0].Sandbox
	if s == nil || s.Root != "private" || s.Proc != "own" || s.Refusal != "error" || s.UMask != "0022" || s.Network || s.IPC || s.WriteExecute {
		t.Errorf("an empty sandbox is %+v", s)
	}
	if units[1].Sandbox != nil {
		t.Error("a unit without the block has a sandbox")
	}
}

func TestSandboxRefusals(t *testing.T) {
	for block, text := range map[string]string{
		`sandbox { root = "jail" }`:                           `root names "jail"; it must be one of private, machine`,
		`sandbox { proc = "owm" }`:                            `did you mean "own"?`,
		`sandbox { refusal = "log" }`:                         "it must be one of error, kill",
		`sandbox { families = ["netlnk"] }`:                   `did you mean "netlink"?`,
		`sandbox { namespaces = ["network"] }`:                "it must be one of mount, cgroup",
		`sandbox { write = ["var"] }`:                         `write names "var"; write an absolute path`,
		`sandbox { read = ["/var/../etc"] }`:                  "write an absolute path",
		`sandbox { mounts = ["/var/"] }`:                      "write an absolute path",
		`sandbox { write = ["/"] }`:                           "write names the whole system",
		`sandbox { hide = ["/"] }`:                            "hide names the whole system",
		`sandbox { devices = ["/etc/passwd"] }`:               "which is not below /dev",
		`sandbox { syscalls = ["@Mount"] }`:                   `write "@GROUP" or the name of a call`,
		`sandbox { umask = "0999" }`:                          "write it in octal",
		`sandbox { umask = "7777" }`:                          "write it in octal",
		`sandbox { unconfined = "why", network = true }`:      "",
		"sandbox {\n unconfined = \"why\"\n ipc = true\n}":    "unconfined opens everything",
		"sandbox {\n root = \"machine\"\n hide = [\"/a\"]\n}": "have no meaning with the root of the machine",
		`sandbox { netwrok = true }`:                          "",
		`limits { memory_high = "much" }`:                     `memory_high: "much" is not a size`,
		`limits { cpu_max = "150" }`:                          `"150" is not a percentage such as 150%`,
		`limits { cpu_max = "0%" }`:                           "is not a percentage",
		`limits { io = 20000 }`:                               "io is 20000; a weight is 1 to 10000",
		`limits { tasks = -1 }`:                               "cannot be negative",
		`capabilities = ["NET_RAW"]`:                          `as "CAP_NET_RAW"`,
	} {
		_, err := ParseUnits([]byte("unit \"u\" {\n exec = [\"/u\"]\n"+block+"\n}"), "test.hcl")
		if err == nil || !strings.Contains(strings.Join(strings.Fields(err.Error()), " "), text) {
			t.Errorf("%s: error %v, want %q", block, err, text)
		}
	}
}

func FuzzSandbox(f *testing.F) {
	f.Add(`write = ["/a"]` + "\n" + `syscalls = ["@mount"]`)
	f.Add(`unconfined = "x"`)
	f.Add("umask = \"77\"\nnetwork = true")
	f.Fuzz(func(t *testing.T, block string) {
		units, err := ParseUnits([]byte("unit \"u\" {\nexec = [\"/u\"]\nsandbox {\n"+block+"\n}\n}"), "fuzz.hcl")
		if err != nil {
			return
		}
		for _, u := range units {
			if u.Sandbox == nil {
				continue
			}
			for _, path := range u.Sandbox.Write {
				if path == "/" || path[0] != '/' || strings.Contains(path, "/../") {
					t.Errorf("write %q is accepted", path)
				}
			}
		}
	})
}
