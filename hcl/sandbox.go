package hcl

import (
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Sandbox closes everything to a unit that it does not open again: an empty block leaves
// the unit a read-only system without the data of others, without devices, network,
// capabilities and new privileges, and the system calls that every program needs.
//
// A unit without the block can do what its user and its capabilities can do.
type Sandbox struct {
	// Unconfined opens everything. The value is the reason, which `waltctl security` shows;
	// no other attribute is then allowed.
	Unconfined string `hcl:"unconfined,optional"`

	// Root is "private" (default: a view of the file systems of its own, read-only) or
	// "machine": the view that PID 1 has, for what the kernel keeps a reference into
	// (exports of NFS). Then Landlock alone keeps the unit from writing, and nothing is
	// hidden.
	Root string `hcl:"root,optional"`

	// Write lists the files and folders that the unit may write, beside its runtime and
	// state directories. What can be written cannot be executed.
	Write []string `hcl:"write,optional"`

	// Read lists what the unit may see of the folders that are hidden.
	Read []string `hcl:"read,optional"`

	// Hide lists folders that the unit sees empty, beside /home, /root, /boot, /media, /mnt,
	// /srv and /var, of which it sees what Write and Read name.
	Hide []string `hcl:"hide,optional"`

	// Mounts lists writable folders in which mounts of the unit are those of the machine.
	Mounts []string `hcl:"mounts,optional"`

	// Devices lists device files, as "/dev/kvm", beside those of memory (null, zero, full,
	// random, urandom) and terminals of the unit's own.
	Devices []string `hcl:"devices,optional"`

	// Proc is what /proc shows: "own" (default: the processes of the unit's user, and the
	// kernel's files, read-only), "processes" (only those processes) or "machine" (all).
	Proc string `hcl:"proc,optional"`

	// Network gives the network of the machine, and sockets of the families inet and
	// inet6. Otherwise the unit has a loopback interface of its own and what sockets it
	// is passed.
	Network bool `hcl:"network,optional"`

	// Families of sockets beside "unix": "netlink", "packet", "vsock", "alg", "xdp", "key".
	Families []string `hcl:"families,optional"`

	// Syscalls lists groups of system calls ("@mount") or single ones ("ptrace") beside
	// @service; waltctl security --groups shows what they are.
	Syscalls []string `hcl:"syscalls,optional"`

	// Refusal is what a refused system call does: "error" (default: EPERM) or "kill". Both
	// are logged with the name of the unit.
	Refusal string `hcl:"refusal,optional"`

	// Namespaces that the unit may make and enter: "mount", "cgroup", "uts", "ipc", "user",
	// "pid", "net", "time".
	Namespaces []string `hcl:"namespaces,optional"`

	// WriteExecute allows memory that is written, then executed, as compilers at run time do.
	WriteExecute bool `hcl:"write_execute,optional"`

	// IPC gives the System V objects and message queues of the machine.
	IPC bool `hcl:"ipc,optional"`

	// UMask is what is taken from the permissions of new files, in octal; default "0022".
	UMask string `hcl:"umask,optional"`
}

// Limits bound the control group of a unit.
type Limits struct {
	// Memory in bytes (memory.max), with K, M or G, as "256M"; the kernel kills a process of the
	// unit that needs more.
	Memory string `hcl:"memory,optional" plan:"live"`
	// MemoryHigh is where the unit is slowed down and made to give memory back (memory.high).
	MemoryHigh string `hcl:"memory_high,optional" plan:"live"`
	// Swap is how much of the unit may be on a swap device (memory.swap.max), "0" for nothing.
	Swap string `hcl:"swap,optional" plan:"live"`
	// Tasks is the number of processes and threads (pids.max).
	Tasks int `hcl:"tasks,optional" plan:"live"`
	// CPU is the share of the processor against other units (cpu.weight), 1 to 10000; 100 is
	// the kernel's default.
	CPU int `hcl:"cpu,optional" plan:"live"`
	// CPUMax is the most processor time, in percent of one processor (cpu.max), as "150%".
	CPUMax string `hcl:"cpu_max,optional" plan:"live"`
	// IO is the share of the disks against other units (io.weight), 1 to 10000; 100 is the
	// kernel's default.
	IO int `hcl:"io,optional" plan:"live"`
	// IOMax is the most that is read, and the most that is written, of the disk of the data
	// partition (io.max), in bytes a second, as "20M".
	IOMax string `hcl:"io_max,optional" plan:"live"`
	// Files is the number of open files (RLIMIT_NOFILE), default 16384.
	Files int `hcl:"files,optional"`
}

// Values of the attributes of Sandbox.
var (
	SandboxRoots      = []string{"private", "machine"}
	SandboxProcs      = []string{"own", "processes", "machine"}
	SandboxRefusals   = []string{"error", "kill"}
	SandboxFamilies   = []string{"netlink", "packet", "vsock", "alg", "xdp", "key"}
	SandboxNamespaces = []string{"mount", "cgroup", "uts", "ipc", "user", "pid", "net", "time"}
)

func (s *Sandbox) complete() {
	setDefault(&s.Root, "private")
	setDefault(&s.Proc, "own")
	setDefault(&s.Refusal, "error")
	setDefault(&s.UMask, "0022")
}

var (
	callOrGroup = regexp.MustCompile(`^(@[a-z][a-z-]*|[a-z_][a-z0-9_]*)$`)
	capability  = regexp.MustCompile(`^CAP_[A-Z_]+$`)
)

// check refuses what cannot be; what the kernel of the machine lacks shows when it starts.
func (s *Sandbox) check(refuse func(format string, args ...any)) {
	if s.Unconfined != "" {
		alone := Sandbox{Unconfined: s.Unconfined}
		alone.complete()
		if !reflect.DeepEqual(*s, alone) {
			refuse("sandbox: unconfined opens everything; remove the other attributes.")
		}
		return
	}
	oneOf := func(attribute string, allowed []string, values ...string) {
		for _, value := range values {
			if !slices.Contains(allowed, value) {
				refuse("sandbox: %s names %q; it must be one of %s%s", attribute, value, strings.Join(allowed, ", "), didYouMean(value, allowed))
			}
		}
	}
	oneOf("root", SandboxRoots, s.Root)
	oneOf("proc", SandboxProcs, s.Proc)
	oneOf("refusal", SandboxRefusals, s.Refusal)
	oneOf("families", SandboxFamilies, s.Families...)
	oneOf("namespaces", SandboxNamespaces, s.Namespaces...)
	for attribute, paths := range map[string][]string{"write": s.Write, "read": s.Read, "hide": s.Hide, "mounts": s.Mounts, "devices": s.Devices} {
		for _, path := range paths {
			switch {
			case !filepath.IsAbs(path) || filepath.Clean(path) != path:
				refuse("sandbox: %s names %q; write an absolute path without \"..\" or a slash at the end.", attribute, path)
			case attribute == "devices" && !strings.HasPrefix(path, "/dev/"):
				refuse("sandbox: devices names %q, which is not below /dev.", path)
			case path == "/":
				refuse("sandbox: %s names the whole system; write the paths below it.", attribute)
			}
		}
	}
	for _, name := range s.Syscalls {
		if !callOrGroup.MatchString(name) {
			refuse("sandbox: syscalls names %q; write \"@GROUP\" or the name of a call.", name)
		}
	}
	if s.Root == "machine" && len(s.Hide)+len(s.Read)+len(s.Mounts)+len(s.Devices) > 0 {
		refuse("sandbox: hide, read, mounts and devices have no meaning with the root of the machine.")
	}
	if _, err := strconv.ParseUint(s.UMask, 8, 9); err != nil {
		refuse("sandbox: umask is %q; write it in octal, as \"0022\".", s.UMask)
	}
}

func (l *Limits) check(refuse func(format string, args ...any)) {
	for attribute, size := range map[string]string{"memory": l.Memory, "memory_high": l.MemoryHigh, "swap": l.Swap, "io_max": l.IOMax} {
		if _, err := ParseSize(size); size != "" && err != nil {
			refuse("limits: %s: %v.", attribute, err)
		}
	}
	for attribute, weight := range map[string]int{"cpu": l.CPU, "io": l.IO} {
		if weight < 0 || weight > 10000 {
			refuse("limits: %s is %d; a weight is 1 to 10000.", attribute, weight)
		}
	}
	if _, err := ParsePercent(l.CPUMax); l.CPUMax != "" && err != nil {
		refuse("limits: cpu_max: %v.", err)
	}
	if l.Tasks < 0 || l.Files < 0 {
		refuse("limits: a number of tasks or files cannot be negative.")
	}
}

// ParsePercent reads a positive percentage such as "150%".
func ParsePercent(text string) (int, error) {
	number, ok := strings.CutSuffix(text, "%")
	v, err := strconv.ParseUint(number, 10, 31)
	if !ok || err != nil || v == 0 || v > 100000 {
		return 0, fmt.Errorf("%q is not a percentage such as 150%%", text)
	}
	return int(v), nil
}
