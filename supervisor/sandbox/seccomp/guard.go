package seccomp

import (
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// guard decides about a call by one of its arguments, of which the kernel itself looks at
// no more than the lower half.
type guard struct {
	// always guards the call also for those whom its group is not given, who get none else.
	always bool

	argument  uint32 // its number
	mask      uint32 // the bits that count
	values    []uint32
	match     bpf.RetConstant // if those bits are one of the values
	otherwise bpf.RetConstant
}

// instructions decide about the call of that number, and leave others to what follows.
func (g guard) instructions(number uint32) []bpf.Instruction {
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArgs + 8*g.argument, Size: 4},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: g.mask},
	}
	for _, value := range g.values {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipFalse: 1}, g.match)
	}
	program = append(program, g.otherwise)
	return append([]bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpEqual, Val: number, SkipFalse: uint8(len(program))}}, program...)
}

// Namespaces that can be made, by name; as CLONE_NEWNET.
var Namespaces = map[string]uint32{
	"mount": unix.CLONE_NEWNS, "cgroup": unix.CLONE_NEWCGROUP, "uts": unix.CLONE_NEWUTS, "ipc": unix.CLONE_NEWIPC,
	"user": unix.CLONE_NEWUSER, "pid": unix.CLONE_NEWPID, "net": unix.CLONE_NEWNET, "time": unix.CLONE_NEWTIME,
}

const (
	every     = 0xffffffff // as a mask
	shmExec   = 0o100000   // shmat(2)
	ask       = 0xffffffff // personality(2): what it is
	linux     = 0          // personality(2): what every process has
	writeExec = unix.PROT_WRITE | unix.PROT_EXEC
	typeIn    = 0x5412 // ioctl TIOCSTI: types into a terminal, as if its user did
	pasteIn   = 0x541c // ioctl TIOCLINUX: so does the console, with what is selected
)

// guards by the name of their calls.
func (p Policy) guards(refused bpf.RetConstant) map[string]guard {
	families := guard{mask: every, values: p.Families, match: allow, otherwise: fails(unix.EAFNOSUPPORT)}
	all := map[string]guard{
		"socket":     families,
		"socketpair": families,
		"ioctl":      {argument: 1, mask: every, values: []uint32{typeIn, pasteIn}, match: refused, otherwise: allow},
	}
	var open []uint32
	for _, kind := range Namespaces {
		if p.Namespaces&kind != 0 {
			open = append(open, kind)
		}
	}
	if closed := p.closed(); closed != 0 {
		none := guard{mask: closed, values: []uint32{0}, match: allow, otherwise: refused}
		all["clone"] = none
		none.always = p.Namespaces != 0
		all["unshare"] = none
		all["setns"] = guard{always: none.always, argument: 1, mask: every, values: open, match: allow, otherwise: refused}
	}
	if !p.WriteExecute {
		all["mmap"] = guard{argument: 2, mask: writeExec, values: []uint32{writeExec}, match: refused, otherwise: allow}
		executable := guard{argument: 2, mask: unix.PROT_EXEC, values: []uint32{0}, match: allow, otherwise: refused}
		all["mprotect"], all["pkey_mprotect"] = executable, executable
		all["shmat"] = guard{argument: 2, mask: shmExec, values: []uint32{0}, match: allow, otherwise: refused}
	}
	return all
}

// closed are the namespaces that may not be made.
func (p Policy) closed() uint32 {
	var closed uint32
	for _, kind := range Namespaces {
		closed |= kind &^ p.Namespaces
	}
	return closed
}

// personalities guard the call from those who have not been given it.
func personalities(refused bpf.RetConstant) guard {
	return guard{always: true, mask: every, values: []uint32{linux, ask}, match: allow, otherwise: refused}
}
