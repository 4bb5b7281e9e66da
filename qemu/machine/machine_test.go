package machine

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/image/qcow2"
	"github.com/waltos/waltos/qemu/machine/machinetest"
)

// qemu returns a QEMU of this machine: what is tested here holds for any.
func qemu(t *testing.T) Program {
	t.Helper()
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skipf("no QEMU on this machine (the end-to-end tests run the locked one): %v", err)
	}
	return Program{Argv: []string{path}}
}

// boot starts a machine whose disk is an overlay of a raw file with the echo sector.
func boot(t *testing.T, log io.Writer) *Machine {
	t.Helper()
	folder := t.TempDir()
	var overlay bytes.Buffer
	if err := qcow2.Write(&overlay, qcow2.Image{Size: 4 << 20, Backing: machinetest.EchoDisk(t)}); err != nil {
		t.Fatal(err)
	}
	// A comma in the name: QEMU's options must escape it.
	disk := filepath.Join(folder, "over,lay")
	if err := os.WriteFile(disk, overlay.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := Start(limited(t), qemu(t), Spec{
		Name: "echo", Memory: 32, Accelerator: TCG, Disks: []Disk{{File: disk, Serial: "first"}},
	}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Kill)
	return m
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func wait(t *testing.T, m *Machine, from Position, pattern string) (string, Position) {
	t.Helper()
	line, next, err := m.Console.Wait(limited(t), from, regexp.MustCompile(pattern))
	if err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(m.Console.Lines(50), "\n"))
	}
	return line, next
}

func TestConsole(t *testing.T) {
	var log bytes.Buffer
	m := boot(t, &log)
	_, next := wait(t, m, 0, "^hello$")
	wait(t, m, next, `^\$ $`) // a prompt, not ended by a new line
	output, detach := m.Console.Attach()
	defer detach()
	if _, err := m.Console.Write([]byte("good day\r\n")); err != nil {
		t.Fatal(err)
	}
	wait(t, m, next, "good day")
	if got := string(<-output); !strings.Contains("good day\r\n", got) {
		t.Errorf("an attached reader got %q", got)
	}

	// The failure is seen, told to those who wait, and the machine goes on.
	if _, err := m.Console.Write([]byte("[ 1.0] Kernel panic - not syncing\r\n")); err != nil {
		t.Fatal(err)
	}
	_, _, err := m.Console.Wait(limited(t), next, regexp.MustCompile("never shown"))
	if err == nil || !strings.Contains(err.Error(), "Kernel panic") {
		t.Errorf("a panic was told as: %v", err)
	}
	m.Kill()
	if !strings.Contains(log.String(), "] hello\n") || !strings.Contains(log.String(), "Kernel panic") {
		t.Errorf("the log of the console holds %q", log.String())
	}
	if err := m.Err(); err != nil {
		t.Errorf("a machine killed on purpose ended with: %v", err)
	}
}

func TestSnapshot(t *testing.T) {
	m := boot(t, nil)
	ctx := limited(t)
	wait(t, m, 0, "^hello$")
	if err := m.Save(ctx, "ready"); err != nil {
		t.Fatal(err)
	}
	from := m.Console.Position()
	if err := m.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	wait(t, m, from, "hello$")
	if err := m.Load(ctx, "ready"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Console.Write([]byte("alive\r\n")); err != nil {
		t.Fatal(err)
	}
	wait(t, m, from, "alive")
	if err := m.Load(ctx, "absent"); err == nil {
		t.Error("an absent snapshot was loaded")
	}
	if err := m.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.Resume(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestStopOfDeafGuest(t *testing.T) {
	m := boot(t, nil)
	wait(t, m, 0, "^hello$")
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if m.Stop(ctx) {
		t.Error("a boot sector obeyed the power button")
	}
	<-m.Done()
	if err := m.Err(); err != nil {
		t.Errorf("a machine stopped on purpose ended with: %v", err)
	}
	if _, _, err := m.Console.Wait(context.Background(), 0, regexp.MustCompile("never shown")); err == nil {
		t.Error("a console of a machine that ended was waited for")
	}
	if err := m.Monitor.Execute(context.Background(), "stop", nil, nil); err == nil {
		t.Error("a machine that ended executed a command")
	}
}

func TestStartErrors(t *testing.T) {
	p := qemu(t)
	_, err := Start(limited(t), p, Spec{Name: "nodisk", Memory: 32, Accelerator: TCG, Disks: []Disk{{File: "/nonexistent/disk"}}}, nil)
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/disk") {
		t.Errorf("a missing disk was told as: %v", err)
	}
	if _, err := Start(limited(t), Program{Argv: []string{"/nonexistent/qemu"}}, Spec{Name: "none"}, nil); err == nil {
		t.Error("an absent QEMU was started")
	}
	// A process that is not QEMU: it ends without a word of QMP.
	if _, err := Start(limited(t), Program{Argv: []string{"/bin/false"}}, Spec{Name: "false"}, nil); err == nil {
		t.Error("false was started as a QEMU")
	}
}

// TestDeathWithParent kills a process that has a machine: the machine goes with it.
func TestDeathWithParent(t *testing.T) {
	if os.Getenv("MACHINE_TEST_PARENT") != "" {
		m := boot(t, nil)
		fmt.Printf("pid %d\n", m.PID())
		<-m.Done()
		return
	}
	qemu(t)
	parent := exec.Command(os.Args[0], "-test.run=^TestDeathWithParent$")
	parent.Env = append(os.Environ(), "MACHINE_TEST_PARENT=yes", "TMPDIR="+t.TempDir())
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanf(out, "pid %d\n", &pid); err != nil {
		t.Fatal(err)
	}
	child, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child)
	parent.Process.Kill()
	parent.Wait()
	// A pidfd becomes readable when its process ends.
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(child), Events: unix.POLLIN}}, 60_000)
	if err != nil || n != 1 {
		t.Fatalf("QEMU %d outlived its parent: %v", pid, err)
	}
}

func TestChoose(t *testing.T) {
	p := qemu(t)
	cache := filepath.Join(t.TempDir(), "cache", "accelerator.json")
	first, reason := Choose(limited(t), p, machinetest.Kernel(t, probeReached, false), cache)
	t.Logf("%s %s", first, reason)
	if (first == TCG) != (reason != "") {
		t.Errorf("%s was chosen with the reason %q", first, reason)
	}
	// From here on the file answers: without a kernel the probe would say TCG.
	if again, _ := Choose(limited(t), p, "/nonexistent/kernel", cache); again != first {
		t.Errorf("%s was chosen after %s", again, first)
	}
}

// TestProbe runs the probe with the accelerator that always works.
func TestProbe(t *testing.T) {
	p := qemu(t)
	if err := runProbe(limited(t), p, TCG, machinetest.Kernel(t, "VFS: "+probeReached, false)); err != nil {
		t.Error(err)
	}
	for text, want := range map[string]string{
		"something else": "something else",
		probeBroken:      probeBroken,
	} {
		if err := runProbe(limited(t), p, TCG, machinetest.Kernel(t, text, false)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a kernel that wrote %q was told as: %v", text, err)
		}
	}
}
