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
	// Kill ends the process at a refused call; otherwise the call fails with EPERM.
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

// Compile returns the filter, ready for [Load].
func (p Policy) Compile() ([]bpf.RawInstruction, error) {
	program, err := p.program()
	if err != nil {
		return nil, fmt.Errorf("cannot make a system call filter: %w", err)
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("cannot make a system call filter: %w", err)
	}
	return raw, nil
}

func (p Policy) program() ([]bpf.Instruction, error) {
	numbers, err := table(p.Arch)
	if err != nil {
		return nil, err
	}
	allowed, err := Expand(p.Allow)
	if err != nil {
		return nil, err
	}
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
	var plain []uint32
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
	for i := 0; i < len(plain); {
		first := i
		for i++; i < len(plain) && plain[i] == plain[i-1]+1; i++ {
		}
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: plain[first], SkipFalse: 2},
			bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: plain[i-1], SkipFalse: 1},
			allow)
	}
	// A program that finds a call missing does without; so it should with one that is younger
	// than the table.
	youngest := slices.Max(slices.Collect(maps.Values(numbers)))
	program = append(program,
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: youngest, SkipTrue: 1},
		fails(unix.ENOSYS), refused)
	if len(program) > longest {
		return nil, fmt.Errorf("it has %d instructions, the kernel takes %d", len(program), longest)
	}
	return program, check(program, p.Arch, numbers)
}

// check tries the filter with what every program does.
func check(program []bpf.Instruction, arch string, numbers map[string]uint32) error {
	machine, err := bpf.NewVM(program)
	if err != nil {
		return err
	}
	for _, name := range []string{"execve", "mmap", "read", "write", "exit_group"} {
		verdict, err := run(machine, architectures[arch], numbers[name])
		if err != nil {
			return err
		}
		if verdict != unix.SECCOMP_RET_ALLOW {
			return fmt.Errorf("no program can run without %s", name)
		}
	}
	return nil
}

// run interprets the filter for one call. The machine of package bpf reads big-endian.
func run(machine *bpf.VM, arch, number uint32, args ...uint32) (verdict uint32, err error) {
	var data [64]byte
	put := func(offset int, value uint32) {
		data[offset], data[offset+1], data[offset+2], data[offset+3] = byte(value>>24), byte(value>>16), byte(value>>8), byte(value)
	}
	put(offsetNumber, number)
	put(offsetArch, arch)
	for i, value := range args {
		put(offsetArgs+8*i, value)
	}
	result, err := machine.Run(data[:])
	return uint32(result), err
}

// Load puts the calling thread, and what it becomes, under a filter. Refused calls are told
// by the kernel's log, as far as it keeps up.
func Load(program []bpf.RawInstruction) error {
	if len(program) == 0 {
		return errors.New("cannot load a system call filter: it is empty")
	}
	filters := make([]unix.SockFilter, len(program))
	for i, in := range program {
		filters[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	description := unix.SockFprog{Len: uint16(len(filters)), Filter: &filters[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_LOG,
		uintptr(unsafe.Pointer(&description)))
	if errno != 0 {
		return fmt.Errorf("cannot load a system call filter: %w", errno)
	}
	return nil
}
