// Package security tells what a unit can do to the machine and why: what its file declares,
// beside what the kernel says of its main process (proc(5), cgroups(7)). Where the two
// differ, that is told.
//
// Two things the kernel tells nobody: which system calls a filter lets pass, and what Landlock
// forbids. Of the filter it is told whether there is one; of Landlock, whether the kernel has
// it.
package security

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/supervisor/cgroup"
	"github.com/waltos/waltos/supervisor/sandbox"
)

// Report is what one unit can do.
type Report struct {
	Unit    string    `json:"unit"`
	PID     int       `json:"pid,omitempty"` // 0: no process runs, all is as declared
	Reason  string    `json:"reason"`        // why it is not confined, if it is not
	Aspects []Aspect  `json:"aspects"`
	Differs []string  `json:"differs,omitempty"` // where the kernel says otherwise
	Refused []Refused `json:"refused,omitempty"` // system calls, since the boot
}

// Aspect is one kind of right.
type Aspect struct {
	Name string `json:"name"`
	Can  string `json:"can"`
	Why  string `json:"why"` // attribute of the unit that gives it
}

// Config says where to look.
type Config struct {
	Proc             string // "/proc"
	Cgroups          string // folder of the groups of units
	RunDir, StateDir string // where folders of units are made
}

// Look reports on a unit whose main process has that number, or 0.
func (c Config) Look(u *hcl.Unit, pid int) Report {
	r := Report{Unit: u.Name, PID: pid}
	var p *process
	if pid != 0 {
		var err error
		if p, err = c.read(pid); err != nil {
			r.PID = 0 // it has just ended
		}
	}
	s := u.Sandbox
	switch {
	case s == nil:
		r.Reason = "the unit has no block sandbox"
	case s.Unconfined != "":
		r.Reason, s = s.Unconfined, nil
	}
	r.rights(u, s, p)
	r.files(u, s, p, sandbox.Own(u, c.RunDir, c.StateDir))
	r.surroundings(s, p)
	r.limits(u.Limits, cgroup.Look(c.Cgroups, u.Name), p != nil)
	return r
}

func (r *Report) add(name, can, why string) {
	if can == "" {
		can = "none"
	}
	r.Aspects = append(r.Aspects, Aspect{name, can, why})
}

func (r *Report) differ(format string, args ...any) {
	r.Differs = append(r.Differs, fmt.Sprintf(format, args...))
}

// rights are user, capabilities, privileges and system calls.
func (r *Report) rights(u *hcl.Unit, s *hcl.Sandbox, p *process) {
	groups := ""
	if len(u.Groups) > 0 {
		groups = ", groups " + strings.Join(u.Groups, " ")
	}
	r.add("user", u.User+groups, "user")
	declared, err := sandbox.ParseCapabilities(u.Capabilities)
	if err != nil {
		r.differ("%v", err)
	}
	capabilities := strings.Join(declared.Names(), " ")
	if s == nil && u.User == "root" {
		capabilities = "all"
	}
	r.add("capabilities", capabilities, "capabilities")
	if s == nil {
		r.add("new privileges", "by set-id programs", "no sandbox")
		r.add("system calls", "all", "no sandbox")
		return
	}
	r.add("new privileges", "none", "sandbox")
	r.add("system calls", strings.Join(append([]string{"@service"}, s.Syscalls...), " "), "syscalls")
	r.add("a refused call", map[string]string{"error": "fails", "kill": "ends the process"}[s.Refusal], "refusal")
	memory := "what is written is never executed"
	if s.WriteExecute {
		memory = "what is written may be executed"
	}
	r.add("memory", memory, "write_execute")
	r.add("namespaces", strings.Join(s.Namespaces, " "), "namespaces")
	if p == nil {
		return
	}
	// What is less than declared is no danger: chronyd and rpcbind give up more themselves.
	for name, set := range map[string]sandbox.Capabilities{"effective": p.effective, "permitted": p.permitted, "bounding": p.bounding} {
		if more := set &^ declared; more != 0 {
			r.differ("%s capabilities are more than declared: %s", name, strings.Join(more.Names(), " "))
		}
	}
	if !p.noNewPrivileges {
		r.differ("new privileges are possible")
	}
	if p.filters == 0 {
		r.differ("no filter of system calls is loaded")
	}
	slices.Sort(r.Differs)
}

// files are what it reads and writes, and devices.
func (r *Report) files(u *hcl.Unit, s *hcl.Sandbox, p *process, own []string) {
	if s == nil {
		r.add("files", "what its user may", "no sandbox")
		return
	}
	by := map[sandbox.Access][]string{}
	why := map[sandbox.Access][]string{}
	places := sandbox.View(s, own)
	for _, place := range places {
		by[place.Access] = append(by[place.Access], place.Path)
		if !slices.Contains(why[place.Access], place.Why) {
			why[place.Access] = append(why[place.Access], place.Why)
		}
	}
	show := func(name string, access sandbox.Access) {
		if len(by[access]) > 0 || access == sandbox.Writable {
			r.add(name, strings.Join(by[access], " "), strings.Join(why[access], ", "))
		}
	}
	show("writes", sandbox.Writable)
	show("mounts", sandbox.Mountable)
	show("reads of what is hidden", sandbox.Readable)
	show("does not see", sandbox.Hidden)
	r.add("umask", s.UMask, "umask")
	landlock := "keeps it from writing elsewhere, and from signals to other units"
	switch {
	case sandbox.MayMount(s):
		landlock = "not used: it forbids mounts"
	case sandbox.LandlockVersion() == 0:
		landlock = "the kernel has none"
	case u.Outlived():
		landlock = "keeps it from writing elsewhere"
	}
	r.add("Landlock", landlock, "sandbox")
	switch {
	case s.Root == "machine":
		r.add("view", "that of the machine", "root")
		r.add("devices", "what its user may", "root")
	case slices.Contains(s.Read, "/dev"):
		r.add("view", "its own", "root")
		r.add("devices", "what its user may", "read")
	default:
		r.add("view", "its own", "root")
		r.add("devices", strings.Join(s.Devices, " "), "devices")
	}
	r.add("processes", map[string]string{
		"own": "its own", "processes": "its own, no files of the kernel", "machine": "all",
	}[s.Proc], "proc")
	if p == nil {
		return
	}
	if s.Root == "private" {
		if p.shares("mnt") {
			r.differ("it has the view of the machine")
			return
		}
		for i, place := range places {
			if path, err := filepath.EvalSymlinks(place.Path); err == nil {
				places[i].Path = path
			}
		}
		for _, path := range p.writable(places) {
			r.differ("%s is not read-only", path)
		}
	}
}

// surroundings are network and other processes.
func (r *Report) surroundings(s *hcl.Sandbox, p *process) {
	if s == nil {
		r.add("network", "the machine's", "no sandbox")
		return
	}
	network := "its own loopback"
	if s.Network {
		network = "the machine's"
	}
	r.add("network", network, "network")
	r.add("socket families", strings.Join(sandbox.Families(s), " "), "network, families")
	ipc := "its own"
	if s.IPC {
		ipc = "the machine's"
	}
	r.add("System V IPC", ipc, "ipc")
	if p == nil {
		return
	}
	if !s.Network && p.shares("net") {
		r.differ("it is in the network of the machine")
	}
	if !s.IPC && p.shares("ipc") {
		r.differ("it shares IPC with the machine")
	}
}

// limits compares with the control group.
func (r *Report) limits(l *hcl.Limits, usage cgroup.Usage, running bool) {
	var all []string
	for name, value := range map[string]string{
		"memory": l.Memory, "memory_high": l.MemoryHigh, "swap": l.Swap, "cpu_max": l.CPUMax, "io_max": l.IOMax,
	} {
		if value != "" {
			all = append(all, name+" "+value)
		}
	}
	for name, value := range map[string]int{"tasks": l.Tasks, "cpu": l.CPU, "io": l.IO, "files": l.Files} {
		if value != 0 {
			all = append(all, name+" "+strconv.Itoa(value))
		}
	}
	slices.Sort(all)
	r.add("limits", strings.Join(all, ", "), "limits")
	if !running {
		return
	}
	memory := int64(0)
	if l.Memory != "" {
		memory, _ = hcl.ParseSize(l.Memory) // hcl has checked it
	}
	const page = 64 << 10 // the kernel rounds down to the largest page there is
	if usage.MemoryLimit/page != memory/page {
		r.differ("the limit of memory is %d bytes, not %d (0: none)", usage.MemoryLimit, memory)
	}
	if usage.TasksLimit != int64(l.Tasks) {
		r.differ("the limit of tasks is %d, not %d (0: none)", usage.TasksLimit, l.Tasks)
	}
}
