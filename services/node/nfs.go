package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// mountNFS mounts an export with version 3 over TCP. The options are those of
// mount.nfs(8) that the kernel itself understands; flags (ro, rw, ...) are taken out
// of them as mount(8) does. The kernel asks the server's port mapper for the ports.
func mountNFS(server netip.Addr, path, options, target string) error {
	var flags uintptr
	kept := []string{"vers=3", "nolock", "proto=tcp", "mountproto=tcp", "mountvers=3"}
	for _, option := range strings.Split(options, ",") {
		switch option {
		case "ro":
			flags |= unix.MS_RDONLY
		case "sync":
			flags |= unix.MS_SYNCHRONOUS
		case "relatime":
			flags |= unix.MS_RELATIME
		case "", "rw", "vers=3", "v3", "nolock":
		default:
			kept = append(kept, option)
		}
	}
	kept = append(kept, "addr="+server.String(), "mountaddr="+server.String())
	if err := unix.Mount(server.String()+":"+path, target, "nfs", flags, strings.Join(kept, ",")); err != nil {
		return fmt.Errorf("cannot mount %s:%s: %w", server, path, err)
	}
	return nil
}

// retry calls try once a second until it succeeds, count times at most; it tells the
// first failure and then every tenth one.
func retry(ctx context.Context, count int, try func() error) error {
	var err error
	for i := range count {
		if err = try(); err == nil {
			return nil
		}
		if i%10 == 0 {
			say("%v; trying again", err)
		}
		if waitErr := pause(ctx, time.Second); waitErr != nil {
			return waitErr
		}
	}
	return err
}

// pause waits, or returns the reason why ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
