package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// imageVariable tells the test program, started again in namespaces of its own, to
// boot the image in a folder.
const imageVariable = "WALT_TEST_IMAGE"

func TestMain(m *testing.M) {
	if image := os.Getenv(imageVariable); image != "" {
		fmt.Fprintln(os.Stderr, "cannot boot the image:", enterImage(image))
		os.Exit(77)
	}
	os.Exit(m.Run())
}

// enterImage does what the kernel and an initramfs do, with what the namespaces of
// an ordinary user allow: /dev and the firmware's name are stand-ins.
func enterImage(image string) error {
	at := func(name string) string { return filepath.Join(image, name) }
	if err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount(image, image, "", unix.MS_BIND, ""),
		unix.Mount("", image, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""),
		unix.Mount("tmpfs", at("dev"), "tmpfs", 0, ""),
		os.WriteFile(at("dev/null"), nil, 0o600),
		unix.Mount("/dev/null", at("dev/null"), "", unix.MS_BIND, ""),
		unix.Mount("tmpfs", at("sys"), "tmpfs", 0, ""),
		os.MkdirAll(at("sys/class/dmi/id"), 0o755),
		os.WriteFile(at("sys/class/dmi/id/sys_vendor"), []byte("QEMU\n"), 0o644),
		unix.Mount("proc", at("proc"), "proc", 0, ""),
		unix.Sethostname([]byte("node-test")),
		loopbackUp(),
		unix.Chroot(image),
		os.Chdir("/"),
	); err != nil {
		return err
	}
	return unix.Exec("/bin/walt-init", []string{"/bin/walt-init", "single"}, []string{"HOME=/", "TERM=linux"})
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

func build(t *testing.T, source, target string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", target, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build %s: %v\n%s", source, err, out)
	}
}

// TestBoot boots a small image in namespaces: walt-init becomes PID 1 on it, read-only,
// and hands over to its /sbin/init; the background process tells the server that
// the node is up, serves control requests, and reboots.
func TestBoot(t *testing.T) {
	image := t.TempDir()
	for _, dir := range []string{"dev", "etc", "mnt", "proc", "run", "sys"} {
		if err := os.Mkdir(filepath.Join(image, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build(t, ".", filepath.Join(image, "bin/walt-init"))
	build(t, "./testdata/init", filepath.Join(image, "sbin/init"))
	if err := os.WriteFile(filepath.Join(image, "bin/walt-env"), []byte("export walt_server_ip='127.0.0.1'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), imageVariable+"="+image)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	err := cmd.Run()
	var status *exec.ExitError
	switch {
	case errors.As(err, &status) && status.ExitCode() == 77, errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOSPC):
		t.Skipf("this machine does not allow the namespaces of the test: %v\n%s", err, &out)
	case strings.Contains(out.String(), "cannot mount the root (overlay"):
		t.Skipf("this kernel does not allow overlayfs in a user namespace:\n%s", &out)
	}
	// In a PID namespace a restart shows as SIGHUP of its PID 1.
	if status == nil || status.Sys().(syscall.WaitStatus).Signal() != unix.SIGHUP {
		t.Errorf("the node did not restart: %v", err)
	}
	for _, want := range []string{
		"init: 1 [single] 1 1 1 1\n",
		"write: <nil>\n",
		"exists: /run/walt/rootfs/mnt/fs_rw/etc/written true\n",
		"exists: /run/walt/rootfs/mnt/nfsroot/etc/written false\n",
		"exists: /run/walt/rootfs/mnt/nfsroot/sbin/init true\n",
		"exists: /run/uptime-root-mount true\n",
		`environment: "export walt_server_ip='127.0.0.1'\nexport walt_boot_mode='network'\n" <nil>`,
		`notification: "REQ_NOTIFY_BOOTUP_STATUS\n" <nil>`,
		"control: PING OK <nil>\n",
		"control: REBOOT OK <nil>\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing", want)
		}
	}
	if t.Failed() {
		t.Logf("console:\n%s", &out)
	}
	if _, err := os.Stat(filepath.Join(image, "etc/written")); err == nil {
		t.Error("the image was written to")
	}
}
