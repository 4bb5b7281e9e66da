package security

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/waltos/waltos/hcl"
)

// machine is a made-up /proc and control groups.
type machine struct {
	t *testing.T
	Config
}

func newMachine(t *testing.T) *machine {
	dir := t.TempDir()
	m := &machine{t, Config{Proc: filepath.Join(dir, "proc"), Cgroups: filepath.Join(dir, "units"), RunDir: "/run", StateDir: "/var/lib"}}
	m.write("units/u/memory.max", "max\n")
	m.write("units/u/pids.max", "max\n")
	for pid, number := range map[string]int{"self": 1, "7": 2} {
		for _, name := range []string{"mnt", "net", "ipc"} {
			m.namespace(pid, name, number)
		}
	}
	m.write("proc/7/status", "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n")
	m.write("proc/7/mountinfo", "20 1 0:1 / / ro - erofs x ro\n21 20 0:2 / /var rw - ext4 x rw\n22 21 0:3 / /var ro - tmpfs x rw\n23 22 0:3 / /var/tmp rw - tmpfs x rw\n24 22 0:3 / /var/lib/u rw - ext4 x rw\n25 20 0:4 / /proc ro - proc x rw\n")
	return m
}

func (m *machine) write(name, text string) {
	path := filepath.Join(filepath.Dir(m.Proc), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) namespace(pid, name string, number int) {
	path := filepath.Join(m.Proc, pid, "ns", name)
	os.Remove(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Symlink(fmt.Sprintf("%s:[%d]", name, number), path); err != nil {
		m.t.Fatal(err)
	}
}

func parse(t *testing.T, text string) *hcl.Unit {
	t.Helper()
	units, err := hcl.ParseUnits([]byte("unit \"u\" {\nexec = [\"/u\"]\n"+text+"\n}"), "test.hcl")
	if err != nil {
		t.Fatal(err)
	}
	return units[0]
}

func TestDifferences(t *testing.T) {
	const confined = "user = \"nobody\"\nstate_directories = [\"u\"]\nsandbox {}"
	for _, test := range []struct {
		name, unit string
		change     func(*machine)
		want       []string
	}{
		{"as declared", confined, func(*machine) {}, nil},
		{"more capabilities", confined, func(m *machine) {
			m.write("proc/7/status", "CapEff:\t0000000000002000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp_filters:\t1\n")
		}, []string{"effective capabilities are more than declared: CAP_NET_RAW"}},
		{"no filter", confined, func(m *machine) {
			m.write("proc/7/status", "NoNewPrivs:\t0\nSeccomp_filters:\t0\n")
		}, []string{"new privileges are possible", "no filter of system calls is loaded"}},
		{"namespaces of the machine", confined, func(m *machine) {
			for _, name := range []string{"mnt", "net", "ipc"} {
				m.namespace("7", name, 1)
			}
		}, []string{"it has the view of the machine", "it is in the network of the machine", "it shares IPC with the machine"}},
		{"a mount that can be written", confined, func(m *machine) {
			m.write("proc/7/mountinfo", "20 1 0:1 / / ro - erofs x ro\n21 20 0:2 / /etc rw - ext4 x rw\n")
		}, []string{"/etc is not read-only"}},
		{"a mount that nobody sees", confined, func(m *machine) {
			// Mounted on the /proc that another one hides.
			m.write("proc/7/mountinfo", "20 1 0:1 / / ro - erofs x ro\n21 20 0:4 / /proc ro - proc x rw\n22 21 0:4 / /proc ro - proc x rw\n23 21 0:5 / /proc/fs/nfsd rw - nfsd x rw\n")
		}, nil},
		{"limits", confined + "\nlimits {\n memory = \"64M\"\n tasks = 5\n}", func(m *machine) {
			m.write("units/u/memory.max", "33554432\n")
		}, []string{"the limit of memory is 33554432 bytes, not 67108864 (0: none)", "the limit of tasks is 0, not 5 (0: none)"}},
		{"limits that are there", confined + "\nlimits {\n memory = \"64M\"\n tasks = 5\n}", func(m *machine) {
			m.write("units/u/memory.max", "67108864\n")
			m.write("units/u/pids.max", "5\n")
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			test.change(m)
			r := m.Look(parse(t, test.unit), 7)
			if r.PID != 7 || r.Reason != "" || !slices.Equal(r.Differs, test.want) {
				t.Errorf("%q, want %q", r.Differs, test.want)
			}
		})
	}
}

func TestAspects(t *testing.T) {
	m := newMachine(t)
	show := func(u *hcl.Unit, pid int) string {
		r := m.Look(u, pid)
		text := r.Reason + "\n"
		for _, a := range r.Aspects {
			text += a.Name + ": " + a.Can + " (" + a.Why + ")\n"
		}
		return text
	}
	got := show(parse(t, `capabilities = ["CAP_SYS_TIME"]
		state_directories = ["u"]
		sandbox {
			network  = true
			families = ["netlink"]
			syscalls = ["@clock"]
			devices  = ["/dev/rtc0"]
			refusal  = "kill"
		}
		limits { tasks = 5 }`), 99) // which has just ended
	for _, line := range []string{
		"user: root (user)", "capabilities: CAP_SYS_TIME (capabilities)", "new privileges: none (sandbox)",
		"system calls: @service @clock (syscalls)", "a refused call: ends the process (refusal)",
		"writes: /var/lib/u (its directories)", "devices: /dev/rtc0 (devices)", "network: the machine's (network)",
		"socket families: unix inet inet6 netlink (network, families)", "limits: files 16384, tasks 5 (limits)",
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
	got = show(parse(t, `sandbox { unconfined = "because" }`), 7)
	for _, line := range []string{"because", "capabilities: all (capabilities)", "system calls: all (no sandbox)", "network: the machine's (no sandbox)"} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
}

func TestRefusals(t *testing.T) {
	m := newMachine(t)
	m.write("proc/456/cgroup", "0::/units/walt-server-hub\n")
	m.write("proc/457/cgroup", "0::/\n")
	const line = `audit: type=1326 audit(1700000000.123:45): auid=4294967295 uid=974 gid=974 ses=4294967295 subj=unconfined pid=456 comm="services" exe="/usr/lib/walt/services" sig=0 arch=c000003e syscall=165 compat=0 ip=0x4 code=0x50001`
	r := NewRefusals(m.Proc)
	for i, want := range []string{"walt-server-hub its sandbox refused the system call mount of services", " "} {
		if unit, words := r.Note(line); unit+" "+words != want {
			t.Errorf("%d: %q %q, want %q", i, unit, words, want)
		}
	}
	for _, other := range []string{
		"", "audit: type=1400 pid=456", strings.Replace(line, "pid=456", "pid=457", 1), strings.Replace(line, "pid=456", "pid=9", 1),
		strings.Replace(line, "syscall=165", "syscall=x", 1), strings.Replace(line, "pid=456", "pid=-1", 1),
	} {
		if unit, words := r.Note(other); unit != "" || words != "" {
			t.Errorf("%s is a refusal of %s: %s", other, unit, words)
		}
	}
	if got := r.Of("walt-server-hub"); !slices.Equal(got, []Refused{{"mount", "services", 2}}) || len(r.Of("x")) != 0 {
		t.Errorf("%v", got)
	}
}

func FuzzRefusal(f *testing.F) {
	f.Add("audit: type=1326 pid=1 arch=c000003e syscall=1 comm=\"x\"")
	f.Fuzz(func(t *testing.T, line string) {
		if _, _, pid := parseRefusal(line); pid < 0 {
			t.Fatal(pid)
		}
	})
}

func FuzzMountinfo(f *testing.F) {
	f.Add([]byte("20 1 0:1 / / ro - erofs x ro\n21 20 0:2 / /var rw - ext4 x rw\n"), "/var/lib")
	f.Add([]byte("1 2 0:1 / / rw - a b c\n2 1 0:1 / / rw - a b c\n"), "/")
	f.Fuzz(func(t *testing.T, info []byte, path string) {
		p := &process{mounts: readMounts(info)}
		p.seen(path)
		p.writable(nil)
	})
}
