// Package vnode runs walt-virtual-node with a real QEMU, kernel and daemon: the virtual
// machine boots by the files that the daemon has for its node, and tells on its console
// what it is made of.
//
// All runs in namespaces (package native), and QEMU translates: no privilege and no KVM
// is needed.
package vnode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ulikunitz/xz"

	"github.com/waltos/waltos/image/compose"
	"github.com/waltos/waltos/image/cpio"
	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/inputs"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/image/tree"
	"github.com/waltos/waltos/tests/native"
)

// suppliesVariable tells the tests, which run in another process, what there is.
const suppliesVariable = "WALT_TEST_VNODE"

// supplies are what the tests boot.
type supplies struct{ Kernel, Initrd string }

func TestMain(m *testing.M) {
	folder, err := prepare()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot prepare the tests of virtual nodes:", err)
		os.Exit(1)
	}
	code := native.Run(m)
	if folder != "" {
		os.RemoveAll(folder)
	}
	os.Exit(code)
}

// prepare gets QEMU, the formatters and a kernel of the lock, and makes an initial file
// system, unless this process is the one that runs the tests.
func prepare() (folder string, err error) {
	if os.Getenv(suppliesVariable) != "" {
		return "", nil
	}
	ctx := context.Background()
	source, err := compose.FindSource(".")
	if err != nil {
		return "", err
	}
	in, err := inputs.Open(inputs.Options{
		Appliance: filepath.Join(source, "image", "appliance.hcl"), Override: true, Progress: fetch.NewProgress(os.Stderr)})
	if err != nil {
		return "", err
	}
	lab, build := lock.ToolSet("lab"), lock.ToolSet("build")
	if err := in.Ensure(ctx, lab, build, lock.Boot); err != nil {
		return "", err
	}
	path := ""
	for _, programs := range []struct{ set, folder string }{{lab, "usr/bin"}, {build, "usr/sbin"}} {
		box, err := in.Toolbox(ctx, programs.set)
		if err != nil {
			return "", err
		}
		wrappers, err := box.Wrappers(ctx, programs.folder)
		if err != nil {
			return "", err
		}
		path += wrappers + ":"
	}
	boot, err := in.Toolbox(ctx, lock.Boot)
	if err != nil {
		return "", err
	}
	kernels, err := filepath.Glob(boot.Path("boot/vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return "", fmt.Errorf("there is not one kernel in %s: %q, %v", boot.Path("boot"), kernels, err)
	}
	if folder, err = os.MkdirTemp("", "walt-vnode"); err != nil {
		return "", err
	}
	s := supplies{Kernel: kernels[0], Initrd: filepath.Join(folder, "initrd")}
	if err := initialFiles(s.Initrd, boot.Path("usr/lib/modules"), folder); err != nil {
		return folder, err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return folder, err
	}
	return folder, errors.Join(os.Setenv(suppliesVariable, string(text)), os.Setenv("PATH", path+os.Getenv("PATH")))
}

// modules are those that the node needs to see its devices, with what they need.
var modules = []string{
	"virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "failover", "net_failover", "virtio_net",
	"scsi_common", "scsi_mod", "virtio_scsi", "crc-t10dif", "crct10dif_common", "crc64", "crc64-rocksoft", "t10-pi", "sd_mod",
	"netfs", "fscache", "9pnet", "9pnet_virtio", "9p",
}

// initialFiles writes an initial file system of the test's init and those modules that
// are not part of the kernel.
func initialFiles(to, from, temp string) error {
	t := tree.New()
	program := filepath.Join(temp, "init")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./testdata/init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot compile the init of the node: %w\n%s", err, out)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	if err := errors.Join(t.Dir("/dev", 0o755, 0, 0, "test"), t.Dir("/modules", 0o755, 0, 0, "test"),
		t.Add("/init", &tree.File{Mode: 0o755, Content: content})); err != nil {
		return err
	}
	err = filepath.WalkDir(from, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		for _, name := range modules {
			if e.Name() != name+".ko.xz" {
				continue
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			r, err := xz.NewReader(f)
			if err != nil {
				return err
			}
			var module bytes.Buffer
			if _, err := module.ReadFrom(r); err != nil {
				return err
			}
			return t.Add("/modules/"+name+".ko", &tree.File{Mode: 0o644, Content: module.Bytes()})
		}
		return nil
	})
	if err != nil {
		return err
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	return errors.Join(cpio.Write(f, t, time.Unix(0, 0)), f.Close())
}
