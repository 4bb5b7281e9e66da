package images

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inNamespace runs a test in a process that has mounts of its own; it returns true
// there. Where that is not possible the test is skipped, with the reason.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const variable = "WALT_TEST_MOUNTS"
	if os.Getenv(variable) == t.Name() {
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("mounts need root")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("this machine allows no mount namespace: %v", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skip(string(out))
	}
	return false
}

// requireOverlay skips the test on a machine without the overlays that nodes need.
func requireOverlay(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"lower", "upper", "work", "fs"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	point := filepath.Join(dir, "fs")
	if err := mountOverlay("test", []string{filepath.Join(dir, "lower")}, filepath.Join(dir, "upper"), filepath.Join(dir, "work"), point); err != nil {
		t.Skipf("this machine mounts no overlay: %v", err)
	}
	must(t, syscall.Unmount(point, 0))
}

func TestMount(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	requireOverlay(t)
	c, w := site(t)
	addLayer(t, c.Store, id("b1"), "", map[string]string{"etc/mine": "mine"})
	addImage(t, c.Store, id("3c"), id("b1"), map[string]string{modelsLabel: "pc-x86-64"}, "docker.io/u/mine:latest")
	unmountAtEnd(t, c)
	m := open(t, c)
	ctx := t.Context()
	devices := []Device{serverDevice, nodeDevice}
	must(t, m.Reconcile(ctx, devices))
	root := m.Root(id("1a"))
	if text, err := os.ReadFile(filepath.Join(root, "etc", "motd")); err != nil || string(text) != "hello" {
		t.Fatalf("content of the image: %q, %v", text, err)
	}
	if text, err := os.ReadFile(filepath.Join(c.State, "nodes", "pc", "fs", "bin", "walt-init")); err != nil || string(text) != "node program" {
		t.Errorf("through the tree of nodes: %q, %v", text, err)
	}
	if text, err := os.ReadFile(filepath.Join(m.BootDir(id("1a"), "pc-x86-64"), "kernel")); err != nil || string(text) != "linux" {
		t.Errorf("boot file: %q, %v", text, err)
	}
	if m.BootDir(id("1a"), "../..") != "" {
		t.Error("a model led out of /boot")
	}
	if m.Remove(ctx, id("1a")) == nil {
		t.Error("a mounted image was removed")
	}
	all, err := overlays(filepath.Join(c.State, "images"))
	if err != nil || len(all) != 1 || !strings.Contains(all[0].options, "nfs_export=on") || !strings.Contains(all[0].options, "index=on") {
		t.Fatalf("mounts %v, %v", all, err)
	}

	// A restart finds the mount, and changes nothing in it.
	before := state(t, root)
	m = open(t, c)
	must(t, m.Reconcile(ctx, devices))
	if m.Root(id("1a")) != root {
		t.Error("the mount was not found again")
	}
	for name, text := range state(t, root) {
		if before[name] != text {
			t.Errorf("%s has changed: %.100s, then %.100s", name, before[name], text)
		}
	}

	// The node moves to another image; a third node has one that does not exist. The
	// old image stays for the grace.
	moved := nodeDevice
	moved.Image = "u/mine:latest"
	lost := Device{MAC: "52:54:00:00:00:03", IP: "192.168.152.3", Name: "lost", Type: "node", Image: "u/none:latest", Model: "pc-x86-64"}
	err = m.Reconcile(ctx, []Device{serverDevice, moved, lost})
	if err == nil || !strings.Contains(err.Error(), `image "u/none:latest" of node lost`) {
		t.Errorf("image that does not exist: %v", err)
	}
	if m.Root(id("1a")) == "" || m.Root(id("3c")) == "" {
		t.Error("both images are to be mounted")
	}
	// Back before the end of the grace.
	must(t, m.Reconcile(ctx, devices))
	if len(m.unwanted) != 1 {
		t.Errorf("unwanted: %v", m.unwanted)
	}

	// Without grace, Run unmounts; a busy image is tried again later.
	m.config.Grace = time.Millisecond
	busy, err := os.Open(m.Root(id("3c")))
	must(t, err)
	m.unwanted = map[string]time.Time{}
	must(t, m.Reconcile(ctx, devices))
	run, cancel := context.WithCancel(ctx)
	ended := make(chan error)
	go func() { ended <- m.Run(run) }()
	wait(t, func() bool { return strings.Contains(w.text(), "device or resource busy") })
	if m.Root(id("3c")) == "" {
		t.Error("a busy image is mounted no more")
	}
	busy.Close()
	must(t, m.exclusive(ctx, func() error { m.unwanted[id("3c")] = time.Now(); m.plan(); return nil }))
	wait(t, func() bool { return m.Root(id("3c")) == "" })
	cancel()
	must(t, <-ended)
	if _, err := os.Stat(filepath.Join(c.State, "images", id("3c"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("folder of the unmounted image: %v", err)
	}
	if m.Root(id("1a")) != root {
		t.Error("Run unmounted an image that is used")
	}
}

// TestMountAgain: what was changed in an image of other layers is given up.
func TestMountAgain(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	requireOverlay(t)
	c, w := site(t)
	unmountAtEnd(t, c)
	m := open(t, c)
	devices := []Device{serverDevice, nodeDevice}
	must(t, m.Reconcile(t.Context(), devices))
	must(t, syscall.Unmount(m.Root(id("1a")), 0)) // as a reboot does
	layer := filepath.Join(c.ReadOnly[0], "overlay", id("a2"))
	must(t, os.Rename(layer, layer+".old"))
	must(t, exec.Command("cp", "-a", layer+".old", layer).Run()) // an upgrade: same content, other files
	m = open(t, c)
	must(t, m.Reconcile(t.Context(), devices))
	if text, err := os.ReadFile(filepath.Join(m.Root(id("1a")), "bin", "walt-init")); err != nil || string(text) != "node program" {
		t.Errorf("after an upgrade: %q, %v\n%s", text, err, w.text())
	}
}

// TestFeature runs the command of a feature in an image whose shell is a program that
// writes down what it was asked to do.
func TestFeature(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	requireOverlay(t)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "sh.go"), []byte(`package main
import "os"
func main() {
	f, _ := os.OpenFile("/activated", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	f.WriteString(os.Args[2] + "\n")
}`), 0o644))
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "sh"), filepath.Join(dir, "sh.go"))
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program, err := os.ReadFile(filepath.Join(dir, "sh"))
	must(t, err)
	c, w := site(t)
	unmountAtEnd(t, c)
	must(t, os.WriteFile(c.Spec, []byte("features: [nbfs2]\n"), 0o644))
	addLayer(t, c.Store, id("b1"), id("a1"), map[string]string{
		"etc/walt/image.spec": "features: {nbfs2: 'activate nbfs', other: 'activate other'}\n", "dev/null": "", "usr/bin/sh": string(program)})
	must(t, os.Chmod(filepath.Join(c.Store, "overlay", id("b1"), "diff", "usr/bin/sh"), 0o755))
	addImage(t, c.Store, id("3c"), id("b1"), map[string]string{modelsLabel: "pc-x86-64"}, "docker.io/u/mine:latest")
	node := nodeDevice
	node.Image = "u/mine:latest"
	for range 2 { // the second time, it is active already
		m := open(t, c)
		must(t, m.Reconcile(t.Context(), []Device{node}))
		text, err := os.ReadFile(filepath.Join(m.Root(id("3c")), "activated"))
		if string(text) != "activate nbfs\n" {
			t.Fatalf("commands run: %q, %v\n%s", text, err, w.text())
		}
	}
}

func wait(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

// unmountAtEnd lets the temporary folder be deleted.
func unmountAtEnd(t *testing.T, c Config) {
	t.Cleanup(func() {
		all, err := overlays(filepath.Join(c.State, "images"))
		must(t, err)
		for _, o := range all {
			must(t, syscall.Unmount(o.point, 0))
		}
	})
}
