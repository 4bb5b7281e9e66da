package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/kmod"
)

// bootInitramfs is /init of the initramfs of our own images: it configures the boot
// interface as the kernel command line says, mounts the image by NFS and hands over
// to the program that init= names.
func bootInitramfs(ctx context.Context, args []string) error {
	if os.Getpid() != 1 {
		return errors.New("cannot run: this is /init of an initramfs, which only the kernel starts")
	}
	if err := initramfs(ctx, args); err != nil {
		giveUp(err)
	}
	return nil
}

func initramfs(ctx context.Context, args []string) error {
	if err := mountKernelFS(); err != nil {
		return err
	}
	kernel, err := readCmdline()
	if err != nil {
		return err
	}
	addr, err := kernel.address()
	if err != nil {
		return err
	}
	server, path, options, err := kernel.nfsRoot()
	if err != nil {
		return err
	}
	if err := configure(ctx, kernel, addr); err != nil {
		return err
	}
	const root = "/image"
	if err := os.MkdirAll(root, 0o755); err != nil {
		return fmt.Errorf("cannot prepare the root: %w", err)
	}
	say("mounting %s:%s", server, path)
	if err := retry(ctx, 180, func() error { return mountNFS(server, path, options, root) }); err != nil {
		return err
	}
	init := kernel["init"]
	if init == "" {
		init = "/sbin/init"
	}
	return switchRoot(root, init, args)
}

// kernelFS are the file systems of the kernel itself.
var kernelFS = []struct{ kind, target, options string }{
	{"proc", "/proc", ""},
	{"sysfs", "/sys", ""},
	{"devtmpfs", "/dev", "mode=0755"},
}

// mountKernelFS mounts what is not mounted yet.
func mountKernelFS() error {
	for _, fs := range kernelFS {
		if mounted(fs.target) {
			continue
		}
		if err := os.MkdirAll(fs.target, 0o755); err != nil {
			return fmt.Errorf("cannot prepare %s: %w", fs.target, err)
		}
		if err := unix.Mount(fs.kind, fs.target, fs.kind, 0, fs.options); err != nil {
			return fmt.Errorf("cannot mount %s: %w", fs.target, err)
		}
	}
	return nil
}

// mounted tells whether a path is a mount point: its device differs from its parent's.
func mounted(path string) bool {
	var self, parent unix.Stat_t
	if unix.Lstat(path, &self) != nil || unix.Lstat(filepath.Dir(path), &parent) != nil {
		return false
	}
	return self.Dev != parent.Dev
}

// configure loads drivers until the boot interface is there, and sets its address.
func configure(ctx context.Context, kernel cmdline, addr address) error {
	mac, err := kernel.bootMAC()
	if err != nil {
		return err
	}
	dir, err := kmod.Folder()
	if err != nil {
		return err
	}
	loader, err := kmod.NewLoader(dir)
	if err != nil {
		return err
	}
	var link netlink.Link
	err = retry(ctx, 60, func() error {
		// A driver that fails is not fatal: the boot interface may be another one.
		if _, err := loader.Coldplug(ctx, "/sys"); err != nil {
			say("%v", err)
		}
		link, err = linkByMAC(mac)
		return err
	})
	if err != nil {
		return err
	}
	for _, module := range []string{"nfs", "nfsv3"} {
		if err := loader.Load(module); err != nil {
			return err
		}
	}
	if err := setAddress(ctx, link, addr); err != nil {
		return fmt.Errorf("cannot configure %s: %w", link.Attrs().Name, err)
	}
	if addr.hostname != "" {
		if err := unix.Sethostname([]byte(addr.hostname)); err != nil {
			return fmt.Errorf("cannot set the host name %q: %w", addr.hostname, err)
		}
	}
	say("%s is %s", link.Attrs().Name, addr.client)
	return nil
}

func linkByMAC(mac net.HardwareAddr) (netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("cannot list network interfaces: %w", err)
	}
	i := slices.IndexFunc(links, func(l netlink.Link) bool { return bytes.Equal(l.Attrs().HardwareAddr, mac) })
	if i < 0 {
		return nil, fmt.Errorf("cannot find the boot interface %s among %d network interfaces", mac, len(links))
	}
	return links[i], nil
}

func setAddress(ctx context.Context, link netlink.Link, addr address) error {
	if lo, err := netlink.LinkByName("lo"); err == nil {
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	waitCarrier(ctx, link.Attrs().Name)
	prefix := &net.IPNet{IP: addr.client.Addr().AsSlice(), Mask: net.CIDRMask(addr.client.Bits(), 32)}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: prefix}); err != nil {
		return err
	}
	if !addr.gateway.IsValid() {
		return nil
	}
	return netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: addr.gateway.AsSlice()})
}

// waitCarrier waits for a cable that is alive, 30 seconds at most: some drivers
// report none, and the NFS mount is tried anyway.
func waitCarrier(ctx context.Context, name string) {
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		state, err := os.ReadFile("/sys/class/net/" + name + "/carrier")
		if err == nil && bytes.HasPrefix(state, []byte("1")) {
			return
		}
		if pause(ctx, 50*time.Millisecond) != nil {
			return
		}
	}
	say("%s has no carrier; going on", name)
}

// switchRoot frees the initramfs, makes root the root and becomes its init program,
// with the arguments that the kernel gave this one.
func switchRoot(root, init string, args []string) error {
	entries, err := os.ReadDir("/")
	if err != nil {
		return fmt.Errorf("cannot list the initramfs: %w", err)
	}
	for _, fs := range kernelFS {
		// An image without the folder gets it mounted again by its own init.
		if err := unix.Mount(fs.target, filepath.Join(root, fs.target), "", unix.MS_MOVE, ""); err != nil {
			say("cannot move %s to the image: %v", fs.target, err)
		}
	}
	keep := []string{filepath.Base(root), "proc", "sys", "dev"}
	for _, entry := range entries {
		if !slices.Contains(keep, entry.Name()) {
			os.RemoveAll("/" + entry.Name()) // only frees memory
		}
	}
	if err := moveToRoot(root); err != nil {
		return err
	}
	return fmt.Errorf("cannot execute %s of the image: %w", init, unix.Exec(init, append([]string{init}, args...), os.Environ()))
}

// moveToRoot makes a mounted folder the root of this process and of those it starts.
func moveToRoot(root string) error {
	if err := os.Chdir(root); err != nil {
		return fmt.Errorf("cannot enter the new root: %w", err)
	}
	if err := unix.Mount(root, "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("cannot move the new root to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("cannot change the root: %w", err)
	}
	return os.Chdir("/")
}
