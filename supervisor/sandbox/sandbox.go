// Package sandbox takes away from the process of a unit what the unit does not need: it is
// entered between clone and exec, by the process itself (package process, shim).
//
// What hcl.Sandbox declares is done with mount, network and IPC namespaces, capabilities,
// no_new_privs, Landlock and a filter of system calls (package seccomp). It needs Linux 5.12
// (mount_setattr) and the rights of root. Any step that fails ends the start: a unit never
// runs with more than is declared. Only Landlock is left out where the kernel has none, but
// for units with the root of the machine, which it alone keeps from writing.
package sandbox

import (
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/supervisor/loopback"
	"github.com/waltos/waltos/supervisor/sandbox/seccomp"
	"golang.org/x/sys/unix"
)

// Plan is all that a process must do to itself before it becomes the command of a unit. It
// travels as JSON.
type Plan struct {
	// Identity, if the process is not the user already.
	Become       bool
	UID, GID     int
	Groups       []int
	Capabilities []string

	Files     int // RLIMIT_NOFILE
	Directory string
	Own       []string     // folders made for the unit
	Sandbox   *hcl.Sandbox // nil: none
	Outlived  bool         // hcl.Unit.Outlived
}

// confined tells whether the plan has a sandbox that closes anything.
func (p *Plan) confined() bool { return p.Sandbox != nil && p.Sandbox.Unconfined == "" }

// Check compiles what can be without a process, for every architecture.
func Check(u *hcl.Unit) error {
	p := Plan{Sandbox: u.Sandbox, Capabilities: u.Capabilities}
	if _, err := ParseCapabilities(u.Capabilities); err != nil {
		return err
	}
	if !p.confined() {
		return nil
	}
	for _, arch := range seccomp.Architectures() {
		if _, err := p.policy(arch).Compile(); err != nil {
			return err
		}
	}
	return nil
}

// Enter does what the plan says, to the calling thread: what it executes then is bound.
// After an error the process must end.
func (p *Plan) Enter() error {
	runtime.LockOSThread()
	if err := limitFiles(uint64(p.Files)); err != nil {
		return err
	}
	capabilities, err := ParseCapabilities(p.Capabilities)
	if err != nil {
		return err
	}
	var filters []seccomp.Filter
	if p.confined() {
		if filters, err = p.policy(runtime.GOARCH).Compile(); err != nil {
			return err
		}
		if err := p.leave(); err != nil {
			return err
		}
		if err := dropBounding(capabilities); err != nil {
			return err
		}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("cannot forbid new privileges: %w", err)
		}
		if !MayMount(p.Sandbox) {
			if err := p.restrict(); err != nil {
				return err
			}
		}
	}
	if err := p.become(capabilities); err != nil {
		return err
	}
	if err := unix.Chdir(p.Directory); err != nil {
		return fmt.Errorf("cannot enter folder %s: %w", p.Directory, err)
	}
	if filters != nil {
		return seccomp.Load(filters)
	}
	return nil
}

// leave parts with the namespaces, the keys and the file permissions of the machine.
func (p *Plan) leave() error {
	s := p.Sandbox
	flags := 0
	if s.Root == "private" {
		flags |= unix.CLONE_NEWNS
	}
	if !s.Network {
		flags |= unix.CLONE_NEWNET
	}
	if !s.IPC {
		flags |= unix.CLONE_NEWIPC
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("cannot make namespaces: %w", err)
	}
	if !s.Network {
		if err := loopback.Up(); err != nil {
			return err
		}
	}
	if s.Root == "private" {
		unix.Umask(0)
		if err := enterView(s, p.Own); err != nil {
			return err
		}
	}
	if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil && err != unix.ENOSYS {
		return fmt.Errorf("cannot make a keyring: %w", err)
	}
	mask, err := strconv.ParseUint(s.UMask, 8, 9)
	if err != nil {
		return fmt.Errorf("cannot understand the umask %q: %w", s.UMask, err)
	}
	unix.Umask(int(mask))
	return nil
}

// MayMount tells whether a sandbox lets the unit mount.
func MayMount(s *hcl.Sandbox) bool {
	calls, err := seccomp.Expand(s.Syscalls)
	return len(s.Mounts) > 0 || err == nil && calls["mount"]
}

// families of sockets, as AF_UNIX.
var families = map[string]uint32{
	"unix": unix.AF_UNIX, "inet": unix.AF_INET, "inet6": unix.AF_INET6, "netlink": unix.AF_NETLINK,
	"packet": unix.AF_PACKET, "vsock": unix.AF_VSOCK, "alg": unix.AF_ALG, "xdp": unix.AF_XDP, "key": unix.AF_KEY,
}

// Families lists the families of sockets that a sandbox allows.
func Families(s *hcl.Sandbox) []string {
	list := []string{"unix"}
	if s.Network {
		list = append(list, "inet", "inet6")
	}
	return append(list, s.Families...)
}

// policy is the declaration of the unit in terms of system calls.
func (p *Plan) policy(arch string) seccomp.Policy {
	s := p.Sandbox
	policy := seccomp.Policy{
		Arch: arch, Allow: append([]string{"@service"}, s.Syscalls...),
		WriteExecute: s.WriteExecute, Kill: s.Refusal == "kill",
	}
	for _, name := range Families(s) {
		policy.Families = append(policy.Families, families[name])
	}
	for _, name := range s.Namespaces {
		policy.Namespaces |= seccomp.Namespaces[name]
	}
	return policy
}

func limitFiles(files uint64) error {
	// The supervisor's own limit is far higher; lowering needs no privilege.
	var have unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &have); err != nil {
		return fmt.Errorf("cannot read the limit of open files: %w", err)
	}
	limit := syscall.Rlimit{Cur: min(files, have.Max), Max: min(files, have.Max)}
	if err := syscall.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("cannot limit open files: %w", err)
	}
	return nil
}

// Own lists the folders that are made for a unit.
func Own(u *hcl.Unit, runDir, stateDir string) []string {
	var paths []string
	for _, name := range u.RuntimeDirectories {
		paths = append(paths, filepath.Join(runDir, name))
	}
	for _, name := range u.StateDirectories {
		paths = append(paths, filepath.Join(stateDir, name))
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}
