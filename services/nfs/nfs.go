// Package nfs brings the kernel NFS server up and down with Debian's nfs-utils: the
// nfsd file system, the exports, the threads. The threads and the exports belong to
// the kernel; no process of ours holds them, so nothing that restarts cuts a node
// off its root.
package nfs

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const controlFS = "/proc/fs/nfsd"

// Main takes one argument, "prepare" (the file system that rpc.mountd needs), "up"
// or "down". Each can be repeated.
func Main(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("nfs", flag.ContinueOnError)
	threads := flags.String("threads", "8", "threads of the kernel server")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	switch flags.Arg(0) {
	case "prepare":
		return prepare()
	case "up":
		if err := prepare(); err != nil {
			return err
		}
		if err := run(ctx, "/usr/sbin/exportfs", "-r"); err != nil {
			return err
		}
		return run(ctx, "/usr/sbin/rpc.nfsd", *threads)
	case "down":
		// Clients see the server go away before their exports do, so that they wait
		// for its return instead of getting stale handles.
		return errors.Join(run(ctx, "/usr/sbin/rpc.nfsd", "0"), run(ctx, "/usr/sbin/exportfs", "-au"))
	default:
		return fmt.Errorf("cannot run nfs: the argument must be prepare, up or down, not %q", flags.Arg(0))
	}
}

// prepare mounts the control file system of nfsd, which also loads the module, and
// makes the folders and files that nfs-utils expects.
func prepare() error {
	for _, dir := range []string{"/var/lib/nfs/v4recovery", "/run/walt/exports.d"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("cannot prepare nfs: %w", err)
		}
	}
	if _, err := os.Stat(controlFS + "/threads"); err == nil {
		return nil
	}
	// Exports and mounts of an earlier boot are void, and torn after a power cut.
	for _, file := range []string{"/var/lib/nfs/etab", "/var/lib/nfs/rmtab"} {
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			return fmt.Errorf("cannot prepare nfs: %w", err)
		}
	}
	// /proc/fs/nfsd exists once the module is there; the kernel loads it when asked for the
	// type of file system.
	fd, err := unix.Fsopen("nfsd", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("cannot load the kernel module nfsd: %w", err)
	}
	unix.Close(fd)
	if err := unix.Mount("nfsd", controlFS, "nfsd", 0, ""); err != nil {
		return fmt.Errorf("cannot mount %s: %w", controlFS, err)
	}
	return nil
}

func run(ctx context.Context, program string, args ...string) error {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if text := strings.TrimSpace(string(out)); text != "" {
		fmt.Fprintln(os.Stderr, text)
	}
	if err != nil {
		return fmt.Errorf("cannot run %s %s: %w", program, strings.Join(args, " "), err)
	}
	return nil
}
