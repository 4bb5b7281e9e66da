package hcl

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	hcl2 "github.com/hashicorp/hcl/v2"
)

// Kernel is how the kernel is set, in appliance.hcl for all sites and in walt.hcl for one.
type Kernel struct {
	// Sysctl are values below /proc/sys, by their dotted names or paths, as
	// { "net.core.rmem_max" = 16777216 }.
	Sysctl map[string]string `hcl:"sysctl,optional"`
	// Modules are settings of kernel modules.
	Modules []*Module `hcl:"module,block"`
}

// Module is what the site wants of one kernel module.
type Module struct {
	Name    string            `hcl:"name,label"`
	Options map[string]string `hcl:"options,optional"` // parameters, as { "nested" = 1 }
	// Blacklist keeps devices from having the module loaded.
	Blacklist bool `hcl:"blacklist,optional"`
	// Load loads it although no device asks for it.
	Load bool `hcl:"load,optional"`

	Range hcl2.Range `hcl:",def_range"`
}

// Watchdog is how a machine that does not do its work is reset.
type Watchdog struct {
	Enabled *bool  `hcl:"enabled,optional"` // default true, if the machine has a watchdog
	Timeout string `hcl:"timeout,optional"` // of the device: a machine that hangs is reset after it; default "60s"
	// Grace is how long the health goal may fail before the machine is reset; default "10m".
	Grace string `hcl:"grace,optional"`
	// Goal are the units that must be up, with all that they need; default those without
	// which there is no platform.
	Goal []string `hcl:"goal,optional"`
}

// Times are Timeout and Grace.
func (w *Watchdog) Times() (timeout, grace time.Duration) {
	timeout, err := time.ParseDuration(w.Timeout)
	if err == nil {
		grace, err = time.ParseDuration(w.Grace)
	}
	if err != nil {
		panic("internal error: a Site was not checked: " + err.Error())
	}
	return timeout, grace
}

// defaultGoal are the units whose failure a reset may mend.
var defaultGoal = []string{"walt-server-netconfig", "walt-server-hub", "walt-server-main"}

func (w *Watchdog) complete() {
	if w.Enabled == nil {
		enabled := true
		w.Enabled = &enabled
	}
	setDefault(&w.Timeout, "60s")
	setDefault(&w.Grace, "10m")
	if w.Goal == nil {
		w.Goal = slices.Clone(defaultGoal)
	}
}

// Bounds of the times of a watchdog: hardware counts seconds, and none counts for long.
const (
	shortestTimeout = 5 * time.Second
	longestTimeout  = 10 * time.Minute
)

func (w *Watchdog) check(d *document, file hcl2.Range) {
	if t, err := time.ParseDuration(w.Timeout); err != nil || t < shortestTimeout || t > longestTimeout {
		d.refuse(&file, "Invalid watchdog", "timeout is %q; write a duration between %v and %v.", w.Timeout, shortestTimeout, longestTimeout)
	}
	if t, err := time.ParseDuration(w.Grace); err != nil || t < 0 {
		d.refuse(&file, "Invalid watchdog", "grace is %q; write a duration such as \"10m\".", w.Grace)
	}
}

var (
	sysctlName      = regexp.MustCompile(`^[a-z][a-z0-9_]*([./][A-Za-z0-9_@:-]+)+$`)
	moduleName      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)
	moduleParameter = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
)

func checkKernel(d *document, k *Kernel, file hcl2.Range) {
	for _, name := range slices.Sorted(maps.Keys(k.Sysctl)) {
		if !sysctlName.MatchString(name) {
			d.refuse(&file, "Invalid sysctl", "%q is no name of a value below /proc/sys; write as \"net.core.rmem_max\" or, if a part of it has a dot, \"net/ipv4/conf/eth0.7/forwarding\".", name)
		}
		if strings.ContainsAny(k.Sysctl[name], "\n\x00") {
			d.refuse(&file, "Invalid sysctl", "The value of %s has several lines.", name)
		}
	}
	seen := map[string]bool{}
	for _, m := range k.Modules {
		refuse := func(format string, args ...any) {
			d.refuse(&m.Range, fmt.Sprintf("Invalid module %q", m.Name), format, args...)
		}
		canonical := strings.ReplaceAll(m.Name, "-", "_")
		if !moduleName.MatchString(m.Name) {
			refuse("A module name is made of letters, digits, dashes and underscores.")
		}
		if seen[canonical] {
			refuse("This module is already set.")
		}
		seen[canonical] = true
		if m.Blacklist && m.Load {
			refuse("It cannot be both loaded and blacklisted.")
		}
		for _, name := range slices.Sorted(maps.Keys(m.Options)) {
			if !moduleParameter.MatchString(name) {
				refuse("%q is no name of a parameter.", name)
			}
			if strings.ContainsAny(m.Options[name], " \t\n\"\x00") {
				refuse("The value of parameter %s is %q; blanks and quotes cannot be passed.", name, m.Options[name])
			}
		}
	}
}

// SysctlPath is the path of a value below /proc/sys: names whose first separator is a slash
// have slashes, others dots (sysctl.d(5)).
func SysctlPath(name string) string {
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '.' {
		return strings.NewReplacer(".", "/", "/", ".").Replace(name)
	}
	return name
}

// SysctlConf writes values as sysctl.d(5) has them.
func (k *Kernel) SysctlConf() []byte {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(k.Sysctl)) {
		fmt.Fprintf(&text, "%s = %s\n", name, k.Sysctl[name])
	}
	return []byte(text.String())
}

// ModprobeConf writes the settings of modules as modprobe.d(5) has them.
func (k *Kernel) ModprobeConf() []byte {
	var text strings.Builder
	for _, m := range k.Modules {
		if m.Blacklist {
			fmt.Fprintf(&text, "blacklist %s\n", m.Name)
		}
		if len(m.Options) > 0 {
			fmt.Fprintf(&text, "options %s", m.Name)
			for _, name := range slices.Sorted(maps.Keys(m.Options)) {
				fmt.Fprintf(&text, " %s=%s", name, m.Options[name])
			}
			text.WriteString("\n")
		}
	}
	return []byte(text.String())
}

// Loaded are the modules to load without being asked.
func (k *Kernel) Loaded() (names []string) {
	for _, m := range k.Modules {
		if m.Load {
			names = append(names, m.Name)
		}
	}
	return names
}
