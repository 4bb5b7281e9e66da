package tests

import (
	"context"
	"io"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/waltos/waltos/qemu/machine"
	"github.com/waltos/waltos/tests/supplies"
)

// TestFailedBoot boots the kernel and the initramfs without a root: the console says what
// failed and what to do, gives a shell that needs no disk, and reboots when told to.
func TestFailedBoot(t *testing.T) {
	prepared := supplies.Get(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	accelerator, _ := machine.Choose(ctx, prepared.Tools.QEMU, prepared.Image.Kernel, filepath.Join(t.TempDir(), "accelerator.json"))
	m, err := machine.Start(ctx, prepared.Tools.QEMU, machine.Spec{
		Name: "no-root", Memory: 384, Accelerator: accelerator,
		Kernel: &machine.Kernel{Image: prepared.Image.Kernel, Initrd: prepared.Image.Initrd, Command: "console=tty0 console=ttyS0 panic=1 walt.root=root-a"},
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Kill()
	at := machine.Position(0)
	await := func(pattern string) {
		t.Helper()
		var err error
		if _, at, err = m.Console.Wait(ctx, at, regexp.MustCompile(pattern)); err != nil {
			t.Fatalf("%v\n%q", err, m.Console.Lines(30))
		}
	}
	keys := func(text string) {
		t.Helper()
		if _, err := m.Console.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	await(`walt: FAILED: read kernel command line: walt.verity= is missing`)
	await(`walt: what to do: boot with the command line of the release`)
	await(`press Enter for the console`)
	keys("\r\x1b[24;80R") // somebody comes, with a terminal of that size
	await(`WalT: the boot has FAILED`)
	await(`S Shell`)
	keys("s")
	await(`rescue:/# `)
	keys("echo \"<$(uname | wc)>\"; ps | grep walt-con\r")
	await(`<1 \d+ \d+ *>`)
	await(`\d walt-console -what`)
	keys("exit\r")
	await(`S Shell`)
	before := m.Console.Position()
	keys("R")
	await(`To reboot type yes:`)
	keys("yes\r")
	at = before
	await(`Linux version`) // it has begun anew

	// PID 1 itself dies: its stack is on the console, and the machine reboots.
	await(`press Enter for the console`)
	keys("\r\x1b[24;80R")
	await(`WalT: the boot has FAILED.*S Shell`)
	keys("s")
	await(`rescue:/# `)
	keys("kill -QUIT 1\r")
	await(`walt: FAILED: PID 1 has crashed`)
	await(`walt: SIGQUIT: quit`)
	await(`walt: goroutine `)
	await(`walt: the machine reboots in 1s`)
	await(`Linux version`)
}
