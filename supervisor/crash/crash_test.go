package crash

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain lets this program be the process that crashes, and its reporter.
func TestMain(m *testing.M) {
	if os.Args[0] == Name {
		os.Exit(reporter())
	}
	if how := os.Getenv("WALT_CRASH"); how != "" {
		crashBy(how)
	}
	os.Exit(m.Run())
}

// reporter reports to standard output, which it shares with the test, and "reboots" by
// waiting for the test to end its input.
func reporter() int {
	stack, crashed := listen()
	if !crashed {
		fmt.Println("nothing was said")
		return 0
	}
	dir := os.Getenv("WALT_CRASH_DIR")
	report(machine{
		say: func(text string) { fmt.Println(text) }, proc: dir, sys: dir, dev: dir,
		sync: func() { fmt.Println("synced") }, wait: func(d time.Duration) { fmt.Println("waited", d) },
		reboot: func() error {
			fmt.Println("REBOOT")
			_, err := bufio.NewReader(os.Stdin).ReadByte()
			return fmt.Errorf("the test goes on: %w", err)
		},
	}, stack)
	return 1
}

func crashBy(how string) {
	if how == "quiet" {
		os.Exit(0)
	}
	err := Guard(func(path string, argv []string, attr *os.ProcAttr) error {
		attr.Files[0], attr.Files[1], attr.Files[2] = os.Stdin, os.Stdout, os.Stdout
		_, err := os.StartProcess(path, argv, attr)
		return err
	})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	switch how {
	case "panic":
		go func() { panic("the reason") }()
	case "index":
		go func() { fmt.Println(os.Args[len(os.Args)]) }()
	case "overflow":
		debug.SetMaxStack(1 << 16)
		var deeper func(int) int
		deeper = func(n int) int { return deeper(n+1) + 1 }
		go deeper(0)
	case "mutex":
		var mu sync.Mutex
		mu.Unlock()
	case "signal":
		go func() { _ = syscall.Kill(os.Getpid(), syscall.SIGQUIT) }()
	case "exec":
		fmt.Println(syscall.Exec("/proc/self/exe", []string{"x"}, []string{"WALT_CRASH=quiet"}))
	}
	select {}
}

func TestCrash(t *testing.T) {
	for how, want := range map[string]string{
		"panic":    "panic: the reason",
		"index":    "index out of range",
		"overflow": "fatal error: stack overflow",
		"mutex":    "fatal error: sync: unlock of unlocked mutex",
		"signal":   "SIGQUIT: quit",
	} {
		t.Run(how, func(t *testing.T) {
			dir := t.TempDir()
			for path, text := range map[string]string{"sys/kernel/panic": "10\n", "pmsg0": "", "module/printk/parameters/always_kmsg_dump": "N\n"} {
				file := filepath.Join(dir, path)
				if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
			cmd.Env = append(os.Environ(), "WALT_CRASH="+how, "WALT_CRASH_DIR="+dir)
			if os.Geteuid() == 0 { // as PID 1, where the kernel lets it
				cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
			}
			input, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			output, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var said strings.Builder
			scanner := bufio.NewScanner(output)
			for scanner.Scan() && scanner.Text() != "REBOOT" {
				fmt.Fprintln(&said, scanner.Text())
			}
			text := said.String()
			if !strings.Contains(text, want) || !strings.Contains(text, "goroutine ") || !strings.HasSuffix(text, "synced\nthe machine reboots in 10s\nwaited 10s\n") {
				t.Errorf("it said\n%s", text)
			}
			if strings.Count(text, "\n\ngoroutine ") > 1 {
				t.Errorf("more than one goroutine:\n%s", text)
			}
			kept, err := os.ReadFile(filepath.Join(dir, "pmsg0"))
			if err != nil || !strings.Contains(string(kept), want) {
				t.Errorf("pmsg has %q, %v", kept, err)
			}
			if dump, _ := os.ReadFile(filepath.Join(dir, "module/printk/parameters/always_kmsg_dump")); string(dump) != "Y\n" {
				t.Errorf("always_kmsg_dump is %q", dump)
			}
			// It is held until the reporter gives up: only then is it for the kernel to act.
			if state := stateOf(t, cmd.Process.Pid); state == "Z" {
				t.Error("the process has ended before the machine was rebooted")
			}
			input.Close()
			var ended *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &ended) || ended.ExitCode() != 2 {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}

// stateOf returns the letter of a process in /proc, "Z" if it is dead.
func stateOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(text, []byte(") "))
	return string(rest[:1])
}

// TestExec: a PID 1 that becomes another program says nothing.
func TestExec(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), "WALT_CRASH=exec")
	output, err := cmd.Output() // up to the end of the reporter, which holds the pipe too
	if err != nil || !strings.Contains(string(output), "nothing was said") {
		t.Errorf("%v: %q", err, output)
	}
}

func TestPast(t *testing.T) {
	dir := t.TempDir()
	at := time.Unix(1_800_000_000, 0)
	for name, text := range map[string]string{
		"dmesg-efi-1": "Panic#2 Part1\n<0>[9.0] newest\n", "dmesg-efi-2": "Panic#2 Part2\n<5>[8.0] older\n<5>[8.5] middle",
		"dmesg-efi-10": "Panic#2 Part10\n<5>[7.0] oldest\n", "pmsg-ramoops-0": "before all\n\x00\x00",
	} {
		path := filepath.Join(dir, name)
		when := at
		if strings.HasPrefix(name, "pmsg") {
			when = at.Add(-time.Hour)
		}
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chtimes(path, when, when)); err != nil {
			t.Fatal(err)
		}
	}
	lines, forget, err := Past(dir)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, l := range lines {
		texts = append(texts, l.Text)
	}
	want := "before all|<5>[7.0] oldest|<5>[8.0] older|<5>[8.5] middle|<0>[9.0] newest"
	if got := strings.Join(texts, "|"); got != want {
		t.Errorf("lines %q, want %q", got, want)
	}
	if err := forget(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if lines, _, err := Past(filepath.Join(dir, "none")); err != nil || len(lines) > 0 {
		t.Errorf("of no folder: %v, %v", lines, err)
	}
}

func FuzzPast(f *testing.F) {
	f.Add("Panic#2 Part1\n<0>[9.0] x\n")
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "dmesg-efi-1"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		lines, forget, err := Past(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			if l.Text == "" || strings.Contains(l.Text, "\n") {
				t.Errorf("a line %q", l.Text)
			}
		}
		if err := forget(); err != nil {
			t.Fatal(err)
		}
	})
}
