package process

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/waltos/waltos/supervisor/sandbox"
	"github.com/waltos/waltos/supervisor/unit"
	"golang.org/x/sys/unix"
)

// probeKernel tries what the words say and returns what came of it: "ok", some facts, or the
// name of the error.
func probeKernel(words string) string {
	runtime.LockOSThread()
	what, rest, _ := strings.Cut(words, " ")
	facts, err := probes[what](rest)
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	case err != nil:
		return err.Error()
	case facts != "":
		return facts
	}
	return "ok"
}

func number(text string) int {
	n, err := strconv.ParseInt(text, 0, 64)
	if err != nil {
		panic(err)
	}
	return int(n)
}

var probes = map[string]func(argument string) (facts string, err error){
	"write": func(path string) (string, error) {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
		if err != nil {
			return "", err
		}
		return "", f.Close()
	},
	"read": func(path string) (string, error) {
		text, err := os.ReadFile(path)
		return strings.TrimSpace(string(text)), err
	},
	"open": func(path string) (string, error) {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
		if err == nil {
			unix.Close(fd)
		}
		return "", err
	},
	"list": func(path string) (string, error) {
		entries, err := os.ReadDir(path)
		names := []string{fmt.Sprint(len(entries))}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return strings.Join(names, " "), err
	},
	"mode": func(path string) (string, error) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o777)
		if err != nil {
			return "", err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return "", err
		}
		return info.Mode().String(), nil
	},
	"execute": func(path string) (string, error) {
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
			return "", err
		}
		return "", exec.Command(path).Run()
	},
	"mount":   func(path string) (string, error) { return "", unix.Mount("none", path, "tmpfs", 0, "") },
	"unshare": func(flags string) (string, error) { return "", unix.Unshare(number(flags)) },
	"clone": func(flags string) (string, error) {
		cmd := exec.Command("/bin/true")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: uintptr(number(flags))}
		return "", cmd.Run()
	},
	"socket": func(arguments string) (string, error) {
		f := strings.Fields(arguments + " 0")
		_, err := unix.Socket(number(f[0]), number(f[1]), number(f[2]))
		return "", err
	},
	"connect": func(address string) (string, error) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return "", err
	},
	"ptrace":      func(pid string) (string, error) { return "", unix.PtraceAttach(number(pid)) },
	"kill":        func(pid string) (string, error) { return "", unix.Kill(number(pid), 0) },
	"personality": func(kind string) (string, error) { return "", call(unix.SYS_PERSONALITY, uintptr(number(kind))) },
	"keyring":     func(string) (string, error) { return "", call(unix.SYS_KEYCTL, 0, ^uintptr(2)) },
	"setuid":      func(uid string) (string, error) { return "", unix.Setresuid(number(uid), number(uid), number(uid)) },
	"chown":       func(path string) (string, error) { return "", os.Chown(path, 12345, 12345) },
	"map": func(protection string) (string, error) {
		memory, err := unix.Mmap(-1, 0, 4096, number(protection), unix.MAP_PRIVATE|unix.MAP_ANON)
		if err == nil {
			err = unix.Munmap(memory)
		}
		return "", err
	},
	"protect": func(protection string) (string, error) {
		memory, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return "", err
		}
		return "", unix.Mprotect(memory, number(protection))
	},
	"status": func(field string) (string, error) {
		text, err := os.ReadFile("/proc/thread-self/status")
		for line := range strings.Lines(string(text)) {
			if name, value, _ := strings.Cut(line, ":"); name == field {
				return strings.Join(strings.Fields(value), " "), nil
			}
		}
		return "", err
	},
	"processes": func(string) (string, error) {
		entries, err := os.ReadDir("/proc")
		count := 0
		for _, e := range entries {
			if _, err := strconv.Atoi(e.Name()); err == nil {
				count++
			}
		}
		return fmt.Sprint(count), err
	},
	"interfaces": func(string) (string, error) {
		text, err := os.ReadFile("/proc/net/dev")
		var names []string
		for line := range strings.Lines(string(text)) {
			if name, _, ok := strings.Cut(line, ":"); ok {
				names = append(names, strings.TrimSpace(name))
			}
		}
		slices.Sort(names)
		return strings.Join(names, " "), err
	},
	"ipc": func(string) (string, error) {
		return "", call(unix.SYS_SHMGET, testKey, 4096, 0)
	},
	"fork": func(limit string) (string, error) {
		count := 0
		var err error
		for ; count < number(limit); count++ {
			cmd := exec.Command("/bin/sleep", "1000")
			if err = cmd.Start(); err != nil {
				break
			}
			defer cmd.Process.Kill()
		}
		return fmt.Sprint(count > 0 && count < number(limit)), nil
	},
	"devour": func(mebibytes string) (string, error) {
		memory := make([]byte, number(mebibytes)<<20)
		for i := 0; i < len(memory); i += 4096 {
			memory[i] = 1
		}
		return fmt.Sprint(len(memory) >> 20), nil
	},
}

const testKey = 0x77616c74

func call(number uintptr, arguments ...uintptr) error {
	var a [3]uintptr
	copy(a[:], arguments)
	_, _, errno := unix.Syscall(number, a[0], a[1], a[2])
	if errno != 0 {
		return errno
	}
	return nil
}

// needsNamespaces skips where the kernel lets this user make none.
func needsNamespaces(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can make sandboxes")
	}
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC}
	if err := cmd.Run(); err != nil {
		t.Skipf("the kernel makes no namespaces here: %v", err)
	}
}

// try runs probes in a unit and returns their results.
func (b *bench) try(attributes string, words ...string) []string {
	b.t.Helper()
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	b.lines = nil
	b.mu.Unlock()
	command := []string{strconv.Quote(self), `"probe"`}
	for _, w := range words {
		command = append(command, strconv.Quote(w))
	}
	attributes = strings.ReplaceAll(attributes, "SELF", filepath.Dir(self))
	u := b.parse(fmt.Sprintf("unit \"u\" {\n type = \"oneshot\"\n exec = [%s]\n%s\n}", strings.Join(command, ", "), attributes))
	b.launch(u, unit.Main).end("exited with status 0")
	lines := strings.Split(b.output(), "\n")
	if len(lines) != len(words) {
		b.t.Fatalf("%d results of %d: %q", len(lines), len(words), lines)
	}
	return lines
}

// TestSandbox has a program try what its unit does not allow, and what it does. The kernel
// is the judge. Each line is what is tried, the result in an empty sandbox, the attributes
// that open it, and the result with them.
func TestSandbox(t *testing.T) {
	needsNamespaces(t)
	b := newBench(t, "")
	file := filepath.Join(b.dir, "file")
	if err := os.WriteFile(file, []byte("secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	segment, _, errno := unix.Syscall(unix.SYS_SHMGET, testKey, 4096, unix.IPC_CREAT|0o666)
	if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() { call(unix.SYS_SHMCTL, segment, unix.IPC_RMID, 0) })
	victim := exec.Command("/bin/sleep", "1000")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { victim.Process.Kill(); victim.Process.Release() })
	pid := strconv.Itoa(victim.Process.Pid)
	type attempt struct{ words, want string }
	tried := map[string][]attempt{} // by the attributes of the sandbox
	for _, test := range []struct{ words, closed, attributes, opened string }{
		{"write /etc/walt-test", "EROFS", "", ""},
		{"write /usr/walt-test", "EROFS", "", ""},
		{"write /proc/sys/kernel/hostname", "EROFS", `write = ["/proc/sys/kernel"]`, "ok"},
		{"write /sys/kernel/mm/ksm/run", "EROFS", "", ""},
		{"read " + file, "ENOENT", `read = ["DIR"]`, "secret"},
		{"write " + file, "ENOENT", `read = ["DIR"]`, "EROFS"},
		{"write " + file, "ENOENT", `write = ["DIR"]`, "ok"},
		{"execute " + b.dir + "/script", "ENOENT", `write = ["DIR"]`, "EACCES"},
		{"execute /tmp/script", "EACCES", "", ""},
		{"list /var", "1 tmp", "", ""},
		{"list /var/tmp", "0", "", ""},
		{"list /etc/ssl", "", `hide = ["/etc/ssl"]`, "0"},
		{"open /dev/null", "ok", "", ""},
		{"open /dev/ptmx", "ok", "", ""},
		{"open /dev/net/tun", "ENOENT", `devices = ["/dev/net/tun"]`, "ok"},
		{"write /dev/new", "EROFS", "", ""},
		{"write /dev/shm/new", "ok", "", ""},
		{"mount /tmp", "EPERM", "", ""},
		{"unshare 0x20000", "EPERM", "", ""},
		{"unshare 0x10000000", "EPERM", `namespaces = ["user"]`, "EINVAL"}, // not with more than one thread
		{"clone 0x10000000", "EPERM", `namespaces = ["user"]`, "ok"},
		{"socket 1 1", "ok", "", ""},
		{"socket 2 1", "EAFNOSUPPORT", `network = true`, "ok"},
		{"socket 2 3 1", "EAFNOSUPPORT", `network = true`, "EPERM"}, // raw, ICMP
		{"socket 16 3", "EAFNOSUPPORT", `families = ["netlink"]`, "ok"},
		{"socket 17 3", "EAFNOSUPPORT", `families = ["packet"]`, "EPERM"},
		{"connect " + listener.Addr().String(), "EAFNOSUPPORT", `network = true`, "ok"},
		{"interfaces", "lo", "", ""},
		{"ptrace " + pid, "EPERM", `syscalls = ["ptrace"]`, "EPERM"},
		{"kill " + pid, "EPERM", "", ""},
		{"keyring", "EPERM", `syscalls = ["@keyring"]`, "ok"},
		{"personality 0", "ok", "", ""},
		{"personality 0x40000", "EPERM", `syscalls = ["@personality"]`, "ok"},
		{"map 7", "EPERM", `write_execute = true`, "ok"},
		{"protect 5", "EPERM", `write_execute = true`, "ok"},
		{"map 3", "ok", "", ""},
		{"setuid 12", "EPERM", `syscalls = ["@identity"]`, "EPERM"},
		{"chown /tmp", "EPERM", `syscalls = ["@owner"]`, "EPERM"},
		{"processes", "1", `proc = "processes"`, "1"},
		{"read /proc/sys/kernel/ostype", "Linux", `proc = "processes"`, "ENOENT"},
		{"ipc", "ENOENT", `ipc = true`, "ok"},
		{"mode /tmp/mode", "-rwxr-xr-x", `umask = "0077"`, "-rwx------"},
		{"status CapEff", "0000000000000000", "", ""},
		{"status CapBnd", "0000000000000000", "", ""},
		{"status NoNewPrivs", "1", "", ""},
		{"status Seccomp", "2", "", ""},
	} {
		if test.words == "kill "+pid && sandbox.LandlockVersion() < 6 {
			t.Log("the kernel's Landlock does not keep signals in")
			continue
		}
		if path, ok := strings.CutPrefix(test.words, "open "); ok {
			if _, err := os.Stat(path); err != nil {
				t.Logf("%s is not tried: %v", test.words, err)
				continue
			}
		}
		tried[""] = append(tried[""], attempt{test.words, test.closed})
		if test.attributes != "" {
			tried[test.attributes] = append(tried[test.attributes], attempt{test.words, test.opened})
		}
	}
	for attributes, attempts := range tried {
		block := "sandbox {\nread = [\"SELF\"]\n" + attributes + "\n}"
		block = strings.Replace(block, "read = [\"SELF\"]\nread = [", `read = ["SELF", `, 1)
		var words []string
		for _, a := range attempts {
			words = append(words, a.words)
		}
		for _, user := range []string{"root", "nobody"} {
			for i, got := range b.try(fmt.Sprintf("user = %q\n", user)+block, words...) {
				want := attempts[i].want
				if user == "nobody" && got == "EACCES" && (want == "ok" || want == "EROFS") {
					continue // it is the permissions of the file that say no
				}
				if got != want && want != "" {
					t.Errorf("%s as %s with %q: %s, want %s", attempts[i].words, user, attributes, got, want)
				}
			}
		}
	}
}

// TestSignalsToEarlierRuns: a unit whose processes outlive its main one may signal what its
// earlier runs have left, which Landlock would keep it from.
func TestSignalsToEarlierRuns(t *testing.T) {
	needsNamespaces(t)
	b := newBench(t, "")
	victim := exec.Command("/bin/sleep", "1000")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { victim.Process.Kill(); victim.Wait() })
	word := "kill " + strconv.Itoa(victim.Process.Pid)
	if got := b.try(`shutdown { kill = "main" }
		sandbox { read = ["SELF"] }`, word)[0]; got != "ok" {
		t.Errorf("a signal to a process of an earlier run: %s", got)
	}
}

// TestRightsOfUsers compares what root and another user have left.
func TestRightsOfUsers(t *testing.T) {
	needsNamespaces(t)
	b := newBench(t, "")
	own := filepath.Join(b.dir, "lib", "own")
	words := []string{"status CapEff", "status CapBnd", "status CapAmb", "write " + own + "/file"}
	for _, test := range []struct{ attributes, want string }{
		{`user = "root"
		  sandbox { read = ["SELF"] }`, "0000000000000000 0000000000000000 0000000000000000 ok"},
		{`user = "root"
		  capabilities = ["CAP_NET_BIND_SERVICE", "CAP_SYS_TIME"]
		  sandbox { read = ["SELF"] }`, "0000000002000400 0000000002000400 0000000000000000 ok"},
		{`user = "nobody"
		  capabilities = ["CAP_NET_BIND_SERVICE"]
		  sandbox { read = ["SELF"] }`, "0000000000000400 0000000000000400 0000000000000400 ok"},
	} {
		got := strings.Join(b.try("state_directories = [\"own\"]\n"+test.attributes, words...), " ")
		if got != test.want {
			t.Errorf("%s: %s, want %s", test.attributes, got, test.want)
		}
		if err := os.RemoveAll(own); err != nil {
			t.Fatal(err)
		}
	}
	full := b.try(`sandbox { unconfined = "to compare" }`, "status CapEff", "status Seccomp", "status NoNewPrivs")
	if mine := probeKernel("status CapEff"); full[0] != mine || full[1] != "0" || full[2] != "0" {
		t.Errorf("an unconfined unit has %v, the supervisor %s", full, mine)
	}
}

// TestRootOfTheMachine leaves a unit the view of the supervisor; Landlock keeps it from
// writing.
func TestRootOfTheMachine(t *testing.T) {
	needsNamespaces(t)
	if sandbox.LandlockVersion() == 0 {
		t.Skip("the kernel has no Landlock")
	}
	b := newBench(t, "")
	for _, name := range []string{"open", "closed"} {
		if err := os.Mkdir(filepath.Join(b.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got := b.try(`sandbox {
		root = "machine"
		write = ["DIR/open"]
	}`, "write "+b.dir+"/open/file", "write "+b.dir+"/closed/file", "write /etc/walt-test", "write /dev/null", "write /dev/kmsg", "mount "+b.dir)
	if want := "ok EACCES EACCES ok EACCES EPERM"; strings.Join(got, " ") != want {
		t.Errorf("%v, want %s", got, want)
	}
}

// TestStartsThatFail says which step failed, and why.
func TestStartsThatFail(t *testing.T) {
	needsNamespaces(t)
	b := newBench(t, "")
	for attributes, how := range map[string]string{
		`sandbox { write = ["/nonexistent/folder"] }`:   "cannot write /nonexistent/folder: no such file or directory",
		`sandbox { mounts = ["/nonexistent"] }`:         "cannot mount /nonexistent: no such file or directory",
		`sandbox { devices = ["/dev/nonexistent"] }`:    "cannot give device /dev/nonexistent: no such file or directory",
		`sandbox { devices = ["/dev/shm"] }`:            "cannot give device /dev/shm: it is none",
		`sandbox { syscalls = ["@everything"] }`:        "cannot make a system call filter: no group of system calls is named @everything",
		`sandbox { syscalls = ["opentat"] }`:            "cannot make a system call filter: no system call is named opentat",
		"sandbox {}\ndirectory = \"/home/nobody\"":      "cannot enter folder /home/nobody: no such file or directory",
		`sandbox { hide = ["/bin", "/usr"] }`:           "cannot execute /bin/true: no such file or directory",
		"sandbox {}\ncapabilities = [\"CAP_NONSENSE\"]": `cannot give capability "CAP_NONSENSE": no such capability`,
	} {
		b.launch(b.parse(fmt.Sprintf("unit \"u\" {\n type = \"oneshot\"\n exec = [\"/bin/true\"]\n%s\n}", attributes)), unit.Main).end(how)
	}
}

// TestRefusalByKill ends a unit that asks for what it may not.
func TestRefusalByKill(t *testing.T) {
	needsNamespaces(t)
	b := newBench(t, "")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b.launch(b.parse(fmt.Sprintf(`unit "u" {
		type = "oneshot"
		exec = [%q, "probe", "mount /tmp"]
		sandbox {
			refusal = "kill"
			read    = [%q]
		}
	}`, self, filepath.Dir(self))), unit.Main).end("killed by signal SIGSYS")
}

// TestMounts is run once more in a mount namespace that stands for the machine's.
func TestMounts(t *testing.T) {
	needsNamespaces(t)
	const variable = "WALT_TEST_MACHINE"
	if os.Getenv(variable) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestMounts$", "-test.v")
		cmd.Env = append(os.Environ(), variable+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	for _, propagation := range []uintptr{unix.MS_PRIVATE, unix.MS_SHARED} {
		if err := unix.Mount("", "/", "", propagation|unix.MS_REC, ""); err != nil {
			t.Fatal(err)
		}
	}
	b := newBench(t, "")
	mounted := filepath.Join(b.dir, "images", "one")
	for _, path := range []string{mounted, filepath.Join(b.dir, "later")} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mounter := `capabilities = ["CAP_SYS_ADMIN"]
		sandbox {
			read = ["SELF"]
			mounts = ["DIR/images"]
			syscalls = ["@mount"]
		}`
	if got := b.try(mounter, "mount "+mounted, "write "+mounted+"/file", "write /usr/file", "mount /tmp"); strings.Join(got, " ") != "ok ok EROFS ok" {
		t.Errorf("the mounter got %v", got)
	}
	if got := probeKernel("list " + mounted); got != "1 file" {
		t.Errorf("the mount of the unit is not the machine's: %s", got)
	}
	if got := probeKernel("list /tmp"); got == "0" {
		t.Error("a mount elsewhere is the machine's too")
	}
	// The next life of the unit finds what the last one has mounted; so do other units.
	if got := b.try(mounter, "list "+mounted)[0]; got != "1 file" {
		t.Errorf("after a restart: %s", got)
	}
	if got := b.try("sandbox { read = [\"SELF\", \"DIR\"] }", "list "+mounted, "write "+mounted+"/file"); strings.Join(got, " ") != "1 file EROFS" {
		t.Errorf("another unit got %v", got)
	}
	// What the machine mounts later comes to units that are running.
	later := filepath.Join(b.dir, "later")
	l := b.launch(b.parse(`unit "watcher" {
		exec = ["/bin/sh", "-c", "echo began; while [ ! -e DIR/later/new ]; do sleep 0.01; done; echo seen"]
		sandbox { read = ["DIR"] }
	}`), unit.Main)
	l.await(unit.Ready)
	if err := errors.Join(unix.Mount("none", later, "tmpfs", 0, ""), os.WriteFile(filepath.Join(later, "new"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	l.end("exited with status 0")
	if err := errors.Join(unix.Unmount(later, 0), unix.Unmount(mounted, 0)); err != nil {
		t.Errorf("what a unit saw cannot be unmounted: %v", err)
	}
}

// TestLimitsAreTold: the kernel ends what needs more memory than its unit may have, and that
// is the reason that is given; a unit that forks without end meets its own limit.
func TestLimitsAreTold(t *testing.T) {
	root := cgroups(t)
	for _, controller := range []string{"memory", "pids"} {
		text, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
		if err != nil || !slices.Contains(strings.Fields(string(text)), controller) {
			t.Skipf("the controller %s is not in the hierarchy of version 2: %s, %v", controller, strings.TrimSpace(string(text)), err)
		}
	}
	b := newBench(t, root)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b.launch(b.parse(fmt.Sprintf(`unit "u" {
		type = "oneshot"
		exec = [%q, "probe", "devour 200"]
		limits {
			memory = "64M"
			swap   = "0"
		}
	}`, self)), unit.Main).end("out of memory (limit 64M): killed by signal SIGKILL")
	if got := b.try("limits { tasks = 30 }", "fork 200")[0]; got != "true" {
		t.Errorf("a fork bomb got %s", got)
	}
}

// BenchmarkStart measures from the launch of a unit to its program, and the end of that.
func BenchmarkStart(b *testing.B) {
	if os.Getuid() != 0 {
		b.Skip("only root can make sandboxes")
	}
	for name, attributes := range map[string]string{
		"bare":       "",
		"user":       `user = "nobody"`,
		"unconfined": `sandbox { unconfined = "to compare" }`,
		"network":    "user = \"nobody\"\nsandbox { network = true }",
		"sandbox":    "user = \"nobody\"\nsandbox {}",
	} {
		b.Run(name, func(b *testing.B) {
			t := newBench(b, "")
			u := t.parse("unit \"u\" {\n exec = [\"/bin/true\"]\n" + attributes + "\n}")
			for b.Loop() {
				l := t.launch(u, unit.Main)
				l.await(unit.Started)
				l.end("exited with status 0")
			}
		})
	}
}
