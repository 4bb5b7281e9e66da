// Package seccomp makes filters of system calls: allow-lists of named groups, with a look
// at the arguments of the calls that need one.
//
// Specifications: seccomp(2) and Documentation/userspace-api/seccomp_filter.rst of Linux.
// The groups are in groups.txt, the numbers of the calls of amd64 and arm64 in table_*.txt;
// calls of another architecture or ABI than the machine's own end the process.
//
// Refused: unknown groups, calls and architectures, and a filter that would not let a
// program be executed at all.
package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Policy is what a program may ask of the kernel.
type Policy struct {
	Arch  string   // as GOARCH
	Allow []string // "@group", or the name of one call
	// Families of sockets that may be made, as AF_UNIX.
	Families []uint32
	// Namespaces that may be made or entered, as CLONE_NEWNET.
	Namespaces uint32
	// WriteExecute allows memory that can be written and executed, or first one, then the
	// other.
	WriteExecute bool
	// Kill ends the process at a refused call; otherwise the call fails with EPERM. Both are
	// told by the kernel's log, as far as it keeps up.
	Kill bool
}

// Offsets in struct seccomp_data. The halves of an argument are in the byte order of the
// machine, which is little-endian on both architectures.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

// x32 is the bit that marks the calls of a second ABI of amd64.
const x32 = 0x40000000

// longest is what the kernel accepts (BPF_MAXINSNS).
const longest = 4096

var (
	allow = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	kill  = bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}
)

// fails makes a call fail with that error.
func fails(errno unix.Errno) bpf.RetConstant {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

// Filter is a program for the kernel.
type Filter struct {
	Program []bpf.RawInstruction
	// Tell has the kernel log what the filter refuses.
	Tell bool
}

// Compile returns the filters of the policy, ready for [Load]. They are two: the kernel knows
// no filter of which it logs a part.
func (p Policy) Compile() ([]Filter, error) {
	var filters []Filter
	programs, err := p.programs()
	for i, program := range programs {
		if err != nil {
			break
		}
		var raw []bpf.RawInstruction
		raw, err = bpf.Assemble(program)
		filters = append(filters, Filter{raw, i > 0})
	}
	if err != nil {
		return nil, fmt.Errorf("cannot make a system call filter: %w", err)
	}
	return filters, nil
}

// programs returns what makes calls appear to be missing, then what refuses calls.
func (p Policy) programs() ([][]bpf.Instruction, error) {
	numbers, err := table(p.Arch)
	if err != nil {
		return nil, err
	}
	allowed, err := Expand(p.Allow)
	if err != nil {
		return nil, err
	}
	rest, err := p.allowed(numbers, allowed)
	if err != nil {
		return nil, err
	}
	programs := [][]bpf.Instruction{p.missing(numbers, allowed), rest}
	return programs, check(programs, p.Arch, numbers)
}

// missing are the calls that a program finds missing, and does without: those that are younger
// than the table; the one that makes processes with flags in memory, where no filter can
// look for namespaces; rings, which programs try first.
func (p Policy) missing(numbers map[string]uint32, allowed map[string]bool) []bpf.Instruction {
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetNumber, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: slices.Max(slices.Collect(maps.Values(numbers))), SkipTrue: 1},
		fails(unix.ENOSYS),
	}
	for name, is := range map[string]bool{"clone3": p.closed() != 0, "io_uring_setup": !allowed["io_uring_setup"]} {
		if is {
			program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: numbers[name], SkipTrue: 1}, fails(unix.ENOSYS))
		}
	}
	return append(program, allow)
}

// allowed are all others.
func (p Policy) allowed(numbers map[string]uint32, allowed map[string]bool) ([]bpf.Instruction, error) {
	refused := fails(unix.EPERM)
	if p.Kill {
		refused = kill
	}
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: architectures[p.Arch], SkipTrue: 1},
		kill,
		bpf.LoadAbsolute{Off: offsetNumber, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32, SkipTrue: 1},
		kill,
	}
	plain := []uint32{numbers["clone3"], numbers["io_uring_setup"]} // missing, or allowed
	guards := p.guards(refused)
	if !allowed["personality"] {
		guards["personality"] = personalities(refused)
	}
	for _, name := range slices.Sorted(maps.Keys(numbers)) {
		number := numbers[name]
		switch g, guarded := guards[name]; {
		case guarded && (g.always || allowed[name]):
			program = append(program, g.instructions(number)...)
		case !guarded && allowed[name]:
			plain = append(plain, number)
		}
	}
	slices.Sort(plain)
	plain = slices.Compact(plain)
	for i := 0; i < len(plain); {
		first := i
		for i++; i < len(plain) && plain[i] == plain[i-1]+1; i++ {
		}
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: plain[first], SkipFalse: 2},
			bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: plain[i-1], SkipFalse: 1},
			allow)
	}
	youngest := slices.Max(slices.Collect(maps.Values(numbers)))
	program = append(program, bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: youngest, SkipTrue: 1}, allow, refused)
	if len(program) > longest {
		return nil, fmt.Errorf("it has %d instructions, the kernel takes %d", len(program), longest)
	}
	return program, nil
}

// check tries the filters with what every program does.
func check(programs [][]bpf.Instruction, arch string, numbers map[string]uint32) error {
	for _, name := range []string{"execve", "mmap", "read", "write", "exit_group"} {
		verdict, err := run(programs, architectures[arch], numbers[name])
		if err != nil {
			return err
		}
		if verdict != unix.SECCOMP_RET_ALLOW {
			return fmt.Errorf("no program can run without %s", name)
		}
	}
	return nil
}

// run interprets the filters for one call; as the kernel has it, the lowest action counts. The
// machine of package bpf reads big-endian.
func run(programs [][]bpf.Instruction, arch, number uint32, args ...uint32) (verdict uint32, err error) {
	var data [64]byte
	binary.BigEndian.PutUint32(data[offsetNumber:], number)
	binary.BigEndian.PutUint32(data[offsetArch:], arch)
	for i, value := range args {
		binary.BigEndian.PutUint32(data[offsetArgs+8*i:], value)
	}
	verdict = unix.SECCOMP_RET_ALLOW
	for _, program := range programs {
		machine, err := bpf.NewVM(program)
		if err != nil {
			return 0, err
		}
		result, err := machine.Run(data[:])
		if err != nil {
			return 0, err
		}
		// SECCOMP_RET_KILL_PROCESS is the only action that is negative, and below all.
		if int32(uint32(result)&unix.SECCOMP_RET_ACTION_FULL) < int32(verdict&unix.SECCOMP_RET_ACTION_FULL) {
			verdict = uint32(result)
		}
	}
	return verdict, nil
}

// Load puts the calling thread, and what it becomes, under filters.
func Load(filters []Filter) error {
	if len(filters) == 0 {
		return errors.New("cannot load a system call filter: there is none")
	}
	for _, f := range filters {
		program := make([]unix.SockFilter, len(f.Program))
		for i, in := range f.Program {
			program[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
		}
		description := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
		flags := uintptr(0)
		if f.Tell {
			flags = unix.SECCOMP_FILTER_FLAG_LOG
		}
		_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&description)))
		if errno != 0 {
			return fmt.Errorf("cannot load a system call filter: %w", errno)
		}
	}
	return nil
}
