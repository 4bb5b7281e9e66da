package system

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// shared are the device files that a group may open besides root, to whom alone the kernel
// gives them. They appear with their drivers.
var shared = map[string]string{
	"kvm":       "walt-vnode",
	"net/tun":   "walt-vnode",
	"vhost-net": "walt-vnode",
}

// share gives a device file below dir to the group that may open it, if there is one.
func share(dir, name string) error {
	group, known := shared[name]
	if !known {
		return nil
	}
	path := filepath.Join(dir, name)
	entry, err := user.LookupGroup(group)
	if err != nil {
		return fmt.Errorf("cannot share %s: %w", path, err)
	}
	gid, err := strconv.Atoi(entry.Gid)
	if err == nil {
		err = os.Chown(path, 0, gid)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has gone again
	}
	if err == nil {
		err = os.Chmod(path, 0o660)
	}
	if err != nil {
		return fmt.Errorf("cannot share %s: %w", path, err)
	}
	return nil
}

// shareAll shares the device files that are there.
func shareAll(dir string) error {
	var failures []error
	for name := range shared {
		failures = append(failures, share(dir, name))
	}
	return errors.Join(failures...)
}
