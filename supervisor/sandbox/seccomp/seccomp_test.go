package seccomp

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTables compares the tables with those of golang.org/x/sys, which are made from the
// headers of the kernel.
func TestTables(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		t.Fatal(err)
	}
	for arch := range architectures {
		numbers, err := table(arch)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(strings.TrimSpace(string(dir)), "unix", "zsysnum_linux_"+arch+".go")
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		count := 0
		for name, object := range file.Scope.Objects {
			name = strings.ToLower(strings.TrimPrefix(name, "SYS_"))
			if name == "arch_specific_syscall" { // the first of a range
				continue
			}
			count++
			value := object.Decl.(*ast.ValueSpec).Values[0].(*ast.BasicLit).Value
			if got, ok := numbers[name]; !ok || fmt.Sprint(got) != value {
				t.Errorf("%s: %s is %d, want %s", arch, name, got, value)
			}
		}
		if count != len(numbers) {
			t.Errorf("%s: %d calls, want %d", arch, len(numbers), count)
		}
	}
}

// TestEachCallIsInOneGroup, and "all" has them all.
func TestEachCallIsInOneGroup(t *testing.T) {
	g, err := readGroups()
	if err != nil {
		t.Fatal(err)
	}
	in := map[string]string{}
	for group, calls := range g.calls {
		for _, call := range calls {
			if in[call] != "" {
				t.Errorf("%s is in %s and %s", call, in[call], group)
			}
			in[call] = group
		}
	}
	known := map[string]bool{}
	for arch := range architectures {
		numbers, err := table(arch)
		if err != nil {
			t.Fatal(err)
		}
		for name := range numbers {
			known[name] = true
			if in[name] == "" {
				t.Errorf("%s of %s is in no group", name, arch)
			}
		}
	}
	for call, group := range in {
		if !known[call] {
			t.Errorf("%s of group %s is no call", call, group)
		}
	}
	all, err := Expand([]string{"@all"})
	if err != nil || len(all) != len(in) {
		t.Errorf("@all has %d calls of %d, %v", len(all), len(in), err)
	}
}

// verdicts of the filter, in short.
func verdict(value uint32) string {
	switch value & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW:
		return "allow"
	case unix.SECCOMP_RET_KILL_PROCESS:
		return "kill"
	}
	return unix.ErrnoName(unix.Errno(value & unix.SECCOMP_RET_DATA))
}

func TestVerdicts(t *testing.T) {
	service := Policy{Allow: []string{"@service"}, Families: []uint32{unix.AF_UNIX, unix.AF_INET}}
	holder := Policy{Allow: []string{"@service", "@personality", "ptrace"}, Namespaces: unix.CLONE_NEWNS, WriteExecute: true, Kill: true}
	type call struct {
		name string
		args []uint32
		want string
	}
	for _, test := range []struct {
		name   string
		policy Policy
		calls  []call
	}{
		{"service", service, []call{
			{"openat", nil, "allow"},
			{"futex", nil, "allow"},
			{"ptrace", nil, "EPERM"},
			{"mount", nil, "EPERM"},
			{"reboot", nil, "EPERM"},
			{"init_module", nil, "EPERM"},
			{"bpf", nil, "EPERM"},
			{"io_uring_setup", nil, "ENOSYS"},
			{"io_uring_enter", nil, "EPERM"},
			{"socket", []uint32{unix.AF_UNIX}, "allow"},
			{"socket", []uint32{unix.AF_INET}, "allow"},
			{"socket", []uint32{unix.AF_INET6}, "EAFNOSUPPORT"},
			{"socket", []uint32{unix.AF_NETLINK}, "EAFNOSUPPORT"},
			{"socketpair", []uint32{unix.AF_PACKET}, "EAFNOSUPPORT"},
			{"clone", []uint32{unix.CLONE_VM | unix.CLONE_THREAD}, "allow"},
			{"clone", []uint32{unix.CLONE_NEWUSER | unix.CLONE_VM}, "EPERM"},
			{"clone3", nil, "ENOSYS"},
			{"unshare", []uint32{unix.CLONE_NEWNS}, "EPERM"},
			{"unshare", []uint32{unix.CLONE_FS}, "EPERM"},
			{"setns", []uint32{3, 0}, "EPERM"},
			{"mmap", []uint32{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, "allow"},
			{"mmap", []uint32{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, "allow"},
			{"mmap", []uint32{0, 4096, unix.PROT_READ | unix.PROT_WRITE | unix.PROT_EXEC}, "EPERM"},
			{"mprotect", []uint32{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, "allow"},
			{"mprotect", []uint32{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, "EPERM"},
			{"pkey_mprotect", []uint32{0, 4096, unix.PROT_EXEC}, "EPERM"},
			{"shmat", []uint32{0, 0, 0}, "allow"},
			{"shmat", []uint32{0, 0, 0o100000}, "EPERM"},
			{"personality", []uint32{0}, "allow"},
			{"personality", []uint32{0xffffffff}, "allow"},
			{"personality", []uint32{0x0400000}, "EPERM"}, // READ_IMPLIES_EXEC
			{"ioctl", []uint32{0, 0x5401}, "allow"},
			{"ioctl", []uint32{0, 0x5412}, "EPERM"},
		}},
		{"holder", holder, []call{
			{"ptrace", nil, "allow"},
			{"mount", nil, "kill"},
			{"personality", []uint32{0x0400000}, "allow"},
			{"unshare", []uint32{unix.CLONE_NEWNS}, "allow"},
			{"unshare", []uint32{unix.CLONE_NEWNS | unix.CLONE_NEWNET}, "kill"},
			{"clone", []uint32{unix.CLONE_NEWNS}, "allow"},
			{"clone", []uint32{unix.CLONE_NEWPID}, "kill"},
			{"setns", []uint32{3, unix.CLONE_NEWNS}, "allow"},
			{"setns", []uint32{3, 0}, "kill"},
			{"setns", []uint32{3, unix.CLONE_NEWNET}, "kill"},
			{"mmap", []uint32{0, 4096, unix.PROT_WRITE | unix.PROT_EXEC}, "allow"},
			{"mprotect", []uint32{0, 4096, unix.PROT_EXEC}, "allow"},
			{"socket", []uint32{unix.AF_UNIX}, "EAFNOSUPPORT"},
		}},
		{"all", Policy{Allow: []string{"@all"}, Namespaces: 0xffffffff, WriteExecute: true}, []call{
			{"clone3", nil, "allow"}, {"io_uring_setup", nil, "allow"}, {"kexec_load", nil, "allow"}, {"setns", []uint32{3, 0}, "allow"},
		}},
	} {
		for arch, audit := range architectures {
			p := test.policy
			p.Arch = arch
			programs, err := p.programs()
			if err != nil {
				t.Fatal(err)
			}
			if filters, err := p.Compile(); err != nil || len(filters) != 2 || filters[0].Tell || !filters[1].Tell {
				t.Fatal(filters, err)
			}
			numbers, err := table(arch)
			if err != nil {
				t.Fatal(err)
			}
			try := func(what string, audit, number uint32, args []uint32, want string) {
				t.Helper()
				if got, err := run(programs, audit, number, args...); err != nil || verdict(got) != want {
					t.Errorf("%s on %s: %s %v is %s, want %s (%v)", test.name, arch, what, args, verdict(got), want, err)
				}
			}
			for _, c := range test.calls {
				number, ok := numbers[c.name]
				if !ok {
					t.Fatalf("no call %s on %s", c.name, arch)
				}
				try(c.name, audit, number, c.args, c.want)
				try("foreign "+c.name, audit^1, number, c.args, "kill")
				try("x32 "+c.name, audit, number|x32, c.args, "kill")
			}
			try("a call of the future", audit, 1000, nil, "ENOSYS")
		}
	}
}

func TestRefusals(t *testing.T) {
	for text, p := range map[string]Policy{
		"no group of system calls is named @services": {Arch: "amd64", Allow: []string{"@services"}},
		"no system call is named opentat":             {Arch: "amd64", Allow: []string{"@service", "opentat"}},
		"architecture mips are not known":             {Arch: "mips", Allow: []string{"@service"}},
		"no program can run without execve":           {Arch: "arm64", Allow: []string{"@io", "@memory"}},
	} {
		if _, err := p.Compile(); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v, want %q", err, text)
		}
	}
	if err := Load(nil); err == nil {
		t.Error("an empty filter is loaded")
	}
}

func TestName(t *testing.T) {
	if got := Name(unix.AUDIT_ARCH_X86_64, 165); got != "mount" {
		t.Errorf("%s, want mount", got)
	}
	if got := Name(unix.AUDIT_ARCH_AARCH64, 40); got != "mount" {
		t.Errorf("%s, want mount", got)
	}
	if got := Name(1, 2); got != "2" {
		t.Errorf("%s, want 2", got)
	}
}

func BenchmarkCompile(b *testing.B) {
	p := Policy{Arch: runtime.GOARCH, Allow: []string{"@service"}, Families: []uint32{unix.AF_UNIX}}
	for b.Loop() {
		if _, err := p.Compile(); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("@service,@mount,ptrace")
	f.Add("@")
	f.Fuzz(func(t *testing.T, list string) {
		p := Policy{Arch: "amd64", Allow: append(strings.Split(list, ","), "@service")}
		filters, err := p.Compile()
		for _, filter := range filters {
			if err != nil || len(filter.Program) > longest {
				t.Fatalf("%d instructions, %v", len(filter.Program), err)
			}
		}
	})
}
