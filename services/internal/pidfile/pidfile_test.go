package pidfile

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain makes this program the owner of a file, until its standard input ends.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "hold" {
		f, err := Hold(os.Args[2])
		fmt.Println(err)
		if err == nil {
			_, _ = os.Stdin.Read(make([]byte, 1))
			f.Close()
		}
		return
	}
	os.Exit(m.Run())
}

// other has another process hold a file, and returns what it says.
func other(t *testing.T, path string) (*exec.Cmd, string) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "hold", path)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	said, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(said)
}

func TestOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "pid")
	owner := func(want int) {
		t.Helper()
		if pid, err := Owner(path); pid != want || err != nil {
			t.Errorf("process %d owns it, %v; want %d", pid, err, want)
		}
	}
	owner(0) // there is no file
	first, said := other(t, path)
	if said != "<nil>" {
		t.Fatal(said)
	}
	owner(first.Process.Pid)
	if text, err := os.ReadFile(path); string(text) != fmt.Sprintln(first.Process.Pid) {
		t.Errorf("the file holds %q, %v", text, err)
	}
	if _, said := other(t, path); !strings.Contains(said, "another process that runs has left it") {
		t.Errorf("a second owner: %s", said)
	}
	owner(first.Process.Pid)

	first.Process.Kill()
	first.Wait()
	owner(0) // though the file is there
	// What it says is of no weight: this is a process that runs.
	if err := os.WriteFile(path, fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
		t.Fatal(err)
	}
	owner(0)
	next, said := other(t, path)
	if said != "<nil>" {
		t.Fatal(said)
	}
	owner(next.Process.Pid)
	if text, err := os.ReadFile(path); string(text) != fmt.Sprintln(next.Process.Pid) {
		t.Errorf("the file holds %q, %v", text, err)
	}
}
