package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/kmod"
	"github.com/waltos/waltos/services/node/layout"
)

// staging are folders that any image has; the first one found carries the new root
// until it is in place.
var staging = []string{"/mnt", "/media", "/srv", "/tmp"}

// rootFS is where the parts of the root are seen afterwards.
const rootFS = "/run/walt/rootfs"

// bootImage is init=/bin/walt-init: PID 1 on the read-only image. It puts a writable
// layer in RAM over the image, starts what the server wants on each node, and becomes
// the image's own /sbin/init.
func bootImage(ctx context.Context, args []string) error {
	if os.Getpid() != 1 {
		return errors.New("cannot run: walt-init is PID 1 of a node, which only the kernel starts")
	}
	if err := image(ctx, args); err != nil {
		giveUp(err)
	}
	return nil
}

func image(ctx context.Context, args []string) error {
	hadProc, hadSys := mounted("/proc"), mounted("/sys")
	if err := mountKernelFS(); err != nil {
		return err
	}
	if !mounted("/run") {
		if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
			return fmt.Errorf("cannot mount /run: %w", err)
		}
	}
	writeUptime("/run/uptime-root-mount")
	server, err := findServer()
	if err != nil {
		return err
	}
	logLine(ctx, server, "walt-init", "Starting up.")
	loadModules(ctx)
	if executable("/bin/walt-preinit") {
		if err := foreground("/bin/walt-preinit"); err != nil {
			say("/bin/walt-preinit: %v", err)
		}
	}
	if err := overlayRoot(); err != nil {
		return err
	}
	mountPersist(server)
	if err := appendBootMode(); err != nil {
		say("%v", err)
	}
	virtual := isVirtual()
	if !virtual {
		if err := retry(ctx, 5, func() error { return syncClockWith(ctx, server) }); err != nil {
			return err
		}
	}
	if err := startBackground(); err != nil {
		return err
	}
	logLine(ctx, server, "walt-init", "Handing over to WALT image init.")
	return handOver(args, virtual, hadProc, hadSys)
}

// handOver becomes the init program of the image, in the environment that images
// expect (node-protocols.md section 2.3).
func handOver(args []string, virtual, hadProc, hadSys bool) error {
	flag := func(b bool) string {
		if b {
			return "1"
		}
		return "0"
	}
	if !hadProc {
		unix.Unmount("/proc", unix.MNT_DETACH)
	}
	if !hadSys {
		unix.Unmount("/sys", unix.MNT_DETACH)
	}
	env := append(os.Environ(), "walt_init_done=1", "vnode_mode="+flag(virtual),
		"had_procfs="+flag(hadProc), "had_sysfs="+flag(hadSys))
	const init = "/sbin/init"
	return fmt.Errorf("cannot execute %s of the image: %w", init, unix.Exec(init, append([]string{init}, args...), env))
}

// loadModules loads what the boot needs and what drives the hardware; what the image
// lacks is left out.
func loadModules(ctx context.Context) {
	dir, err := kmod.Folder()
	if err != nil {
		say("%v; going on with what the kernel has built in", err)
		return
	}
	loader, err := kmod.NewLoader(dir)
	if err != nil {
		say("%v; going on with what the kernel has built in", err)
		return
	}
	for _, module := range []string{"crc32c_generic", "overlay", "ext4", "nfs", "nfsv3", "nbd"} {
		if err := loader.Load(module); err != nil {
			say("%v", err)
		}
	}
	if _, err := loader.Coldplug(ctx, "/sys"); err != nil {
		say("%v", err)
	}
}

// overlayRoot mounts a writable layer in RAM over the image and makes the result the
// root. Its parts stay visible below rootFS: the image, and what was written.
func overlayRoot() error {
	base, err := stagingFolder()
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", base, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("cannot mount the writable layer: %w", err)
	}
	part := func(name string) string { return filepath.Join(base, "mnt", name) }
	for _, name := range []string{"nfsroot", "fs_rw", "fs_work", "final", "persist"} {
		if err := os.MkdirAll(part(name), 0o755); err != nil {
			return fmt.Errorf("cannot prepare the writable layer: %w", err)
		}
	}
	if err := unix.Mount("/", part("nfsroot"), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot bind the image: %w", err)
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", part("nfsroot"), part("fs_rw"), part("fs_work"))
	final := part("final")
	if err := unix.Mount("overlay", final, "overlay", 0, options); err != nil {
		return fmt.Errorf("cannot mount the root (overlay, %s): %w", options, err)
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run"} {
		if err := os.MkdirAll(filepath.Join(final, dir), 0o755); err != nil {
			return fmt.Errorf("cannot prepare %s: %w", dir, err)
		}
		if err := unix.Mount(dir, filepath.Join(final, dir), "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("cannot move %s: %w", dir, err)
		}
	}
	seen := filepath.Join(final, rootFS)
	if err := os.MkdirAll(seen, 0o755); err != nil {
		return fmt.Errorf("cannot prepare %s: %w", rootFS, err)
	}
	if err := unix.Mount(base, seen, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot show the parts of the root: %w", err)
	}
	if err := unix.Mount(part("nfsroot"), filepath.Join(seen, "mnt/nfsroot"), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot show the image: %w", err)
	}
	return moveToRoot(final)
}

func stagingFolder() (string, error) {
	for _, dir := range staging {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir, nil
		}
	}
	return "", fmt.Errorf("cannot find a folder for the writable layer: the image has none of %s", strings.Join(staging, ", "))
}

// mountPersist mounts the storage that this node keeps for its user. The server
// refuses it when the setting mount.persist is false: then there is none.
func mountPersist(server netip.Addr) {
	name, err := os.Hostname()
	if err != nil || name == "" {
		say("/persist is not mounted: the node has no host name")
		return
	}
	target := filepath.Join(rootFS, "mnt/persist")
	path := "/var/lib/walt/nodes/" + name + "/persist"
	if err := mountNFS(server, path, "rw,relatime", target); err != nil {
		say("/persist is not mounted: %v", err)
		return
	}
	if err := os.MkdirAll("/persist", 0o755); err != nil {
		say("/persist is not mounted: %v", err)
		return
	}
	if err := unix.Mount(target, "/persist", "", unix.MS_BIND, ""); err != nil {
		say("/persist is not mounted: %v", err)
	}
}

// appendBootMode tells scripts how this node booted.
func appendBootMode() error {
	f, err := os.OpenFile(layout.Environment, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("cannot write the boot mode: %w", err)
	}
	_, err = f.WriteString("export walt_boot_mode='network'\n")
	return errors.Join(err, f.Close())
}

// isVirtual tells whether this is a virtual node: its firmware says QEMU.
func isVirtual() bool {
	vendor, err := os.ReadFile("/sys/class/dmi/id/sys_vendor")
	return err == nil && strings.TrimSpace(string(vendor)) == "QEMU"
}

// startBackground starts the process that stays for the life of the node. It runs
// from a copy in RAM, so that it can still act when the server of the root is gone.
func startBackground() error {
	const program = rootFS + "/" + backgroundRole
	if err := copyProgram("/proc/self/exe", program); err != nil {
		return err
	}
	cmd := exec.Command(program)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start %s: %w", program, err)
	}
	// The kernel must not choose this process when memory runs out: without it the
	// server would take the node for dead.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", cmd.Process.Pid), []byte("-1000"), 0); err != nil {
		say("%v", err)
	}
	return cmd.Process.Release() // /sbin/init becomes its parent
}

func copyProgram(source, target string) error {
	in, err := os.Open(source)
	if err != nil {
		return fmt.Errorf("cannot copy the node program: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return fmt.Errorf("cannot copy the node program: %w", err)
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("cannot copy the node program: %w", err)
	}
	return nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// foreground runs a hook of the image on the console.
func foreground(program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

// writeUptime keeps the current uptime, in seconds, in a file that walt-dump-diff-tar
// and image tools compare file times with. It never replaces one.
func writeUptime(path string) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "%d\n", int64(info.Uptime))
}
