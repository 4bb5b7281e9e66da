package rescue

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// TestMain lets the tests run this program as the shell.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == Name {
		os.Exit(Main(os.Args))
	}
	os.Exit(m.Run())
}

// shell is a command that runs the shell, without any program to help it.
func shell(t *testing.T, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, self)
	cmd.Args = append([]string{Name}, args...)
	cmd.Dir = t.TempDir()
	return cmd
}

func TestScript(t *testing.T) {
	for _, c := range []struct{ script, want string }{
		{"echo a b | grep a", "a b\n"},
		{"mkdir -p x/y; echo hi > x/y/z; cat x/y/z; ls x", "hi\ny\n"},
		{"cd /; pwd", "/\n"},
		{"for i in 3 1 2; do echo line $i; done | tail -n 1", "line 2\n"},
		{"echo one > f; cp f g; mv g h; cat f h; rm f h; ls", "one\none\n"},
		{"printf 'a\\nb\\n' | head -n 1; printf 'a b\\nc\\n' | wc", "a\n2 3 6 \n"},
		{"printf AB | hexdump", "00000000  41 42                                             |AB|\n"},
		{"ln -s /x l; test -L l && echo yes", "yes\n"},
		{"if ! nonesuch; then echo no; fi", "\"nonesuch\": executable file not found in $PATH\nno\n"},
		{"grep x < /dev/null || echo none", "grep: no match\nnone\n"},
		{"kill -9 notanumber", "kill: notanumber: it is no number\n"},
		{"mount a", "mount: usage: mount [-t TYPE] [-o OPTIONS] DEVICE FOLDER\n"},
		{"/bin/sh -c 'exit 0' && echo ran", "ran\n"},
	} {
		cmd := shell(t)
		cmd.Stdin = strings.NewReader(c.script)
		out, err := cmd.CombinedOutput()
		if string(out) != c.want {
			t.Errorf("%s: %v\n%s", c.script, err, out)
		}
	}
}

// TestLooks runs what only prints what the kernel says.
func TestLooks(t *testing.T) {
	for command, want := range map[string]string{
		"ps": Name, "df": "MOUNTED ON", "mount": " on /proc type proc", "ip": "lo:", "lsblk": "DEVICE", "free": "MiB free",
		"uname": "Linux", "help": "chroot FOLDER COMMAND...",
	} {
		cmd := shell(t)
		cmd.Stdin = strings.NewReader(command)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
}

func TestStatus(t *testing.T) {
	cmd := shell(t)
	cmd.Stdin = strings.NewReader("exit 7")
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != 7 {
		t.Error(err)
	}
}

// screen collects what a terminal shows until it has what is waited for.
type screen struct {
	t    *testing.T
	file *os.File
	text string
}

func (s *screen) await(want string) {
	s.t.Helper()
	buffer := make([]byte, 4096)
	for !strings.Contains(s.text, want) {
		n, err := s.file.Read(buffer)
		s.text += string(buffer[:n])
		if err != nil {
			s.t.Fatalf("%v before %q came:\n%q", err, want, s.text)
		}
	}
	_, s.text, _ = strings.Cut(s.text, want)
}

func (s *screen) keys(text string) {
	s.t.Helper()
	if _, err := s.file.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// TestDialogue is a person at a terminal: a command over two lines, the Tab key, Ctrl-C, the
// end.
func TestDialogue(t *testing.T) {
	cmd := shell(t)
	file, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s := &screen{t: t, file: file}
	s.await("# ")
	s.keys("for i in 1 2; do\r")
	s.await("> ")
	s.keys("echo \"<$i>\"; done\r")
	s.await("<1>")
	s.await("<2>")
	s.await("# ")
	s.keys("unam\t\r")
	s.await("Linux")
	s.await("# ")
	s.keys("echo before; sleep 1000\r")
	s.await("before\r\n")
	s.keys("\x03")
	s.await("# ")
	s.keys(")\r") // not a program
	s.await("# ")
	s.keys("exit 3\r")
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("%v", cmd.ProcessState)
	}
}

// TestIdle: nobody is there, so the shell ends.
func TestIdle(t *testing.T) {
	cmd := shell(t, "-idle", "100ms")
	file, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestComplete(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"alpha", "alpine", "beta"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for line, want := range map[string]string{"dme": "dmesg ", "cat al": "cat alp", "cat b": "cat beta ", "cat x": "", "zz": "", "cat | dme": "cat | dme"} {
		got, _, ok := complete(dir, line, len(line), '\t')
		if !ok {
			got = ""
		}
		if want == line {
			want = ""
		}
		if got != want {
			t.Errorf("%q became %q", line, got)
		}
	}
}
