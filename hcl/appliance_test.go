package hcl

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestArchitectures(t *testing.T) {
	const text = `
name    = "test"
version = "1"
debian {
  architecture = "amd64"
  suites       = []
  components   = []
  keys         = []
}
disk {
  esp  = "1M"
  slot = "1M"
}
architecture "amd64" {
  kernel   = "kernel-amd64"
  command  = "console=ttyS0"
  packages = ["emulator-x86"]
}
architecture "arm64" {
  kernel  = "kernel-arm64"
  command = "console=ttyAMA0"
  modules = ["mmio"]
}
boot { modules = ["pci"] }
root { packages = ["server"] }
tool "build" { packages = ["compiler"] }
`
	for _, c := range []struct {
		architecture, chosen string
		boot                 Boot
		packages             []string
		tools                int
	}{
		{"", "amd64", Boot{Kernel: "kernel-amd64", Command: "console=ttyS0", Modules: []string{"pci"}}, []string{"server", "emulator-x86"}, 1},
		{"amd64", "amd64", Boot{Kernel: "kernel-amd64", Command: "console=ttyS0", Modules: []string{"pci"}}, []string{"server", "emulator-x86"}, 1},
		{"arm64", "arm64", Boot{Kernel: "kernel-arm64", Command: "console=ttyAMA0", Modules: []string{"pci", "mmio"}}, []string{"server"}, 0},
	} {
		a, err := ParseAppliance([]byte(text), "test.hcl", c.architecture)
		if err != nil {
			t.Fatal(err)
		}
		if a.Debian.Architecture != c.chosen || len(a.Tools) != c.tools {
			t.Errorf("%q: got one of %s with %d tools", c.architecture, a.Debian.Architecture, len(a.Tools))
		}
		if diff := cmp.Diff(&c.boot, a.Boot); diff != "" {
			t.Errorf("%q: %s", c.architecture, diff)
		}
		if diff := cmp.Diff(c.packages, a.Root.Packages); diff != "" {
			t.Errorf("%q: %s", c.architecture, diff)
		}
	}
	if _, err := ParseAppliance([]byte(text), "test.hcl", "riscv64"); err == nil || !strings.Contains(err.Error(), `No block architecture "riscv64"`) {
		t.Errorf("an architecture without a block: %v", err)
	}
}
