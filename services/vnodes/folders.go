package vnodes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"strconv"
	"syscall"
)

const (
	// Account is the one that the service runs as on an appliance.
	Account = "walt-vnode"
	// Folders is where each node has a folder, named by its MAC (node-protocols §6.2).
	Folders = "/var/lib/walt/nodes"
)

// kept are the folders of a node that its process writes to: its disks, and the addresses
// of its interfaces.
var kept = []string{"disks", "networks"}

// Furnisher is a Client that first gives each node the folders that its process writes to.
// It runs as root, which owns what is around them.
type Furnisher struct {
	*Client
	Nodes   string // Folders
	Account string // owner; "" for nobody else
}

// Reconcile is that of Client.
func (f Furnisher) Reconcile(ctx context.Context, wanted []Node) error {
	var failures []error
	for _, n := range wanted {
		if err := f.furnish(n); err != nil {
			failures = append(failures, fmt.Errorf("cannot prepare the folders of %s: %w", n.Settings.Name, err))
		}
	}
	return errors.Join(append(failures, f.Client.Reconcile(ctx, wanted))...)
}

func (f Furnisher) furnish(n Node) error {
	if err := n.check(); err != nil {
		return err
	}
	uid, gid, err := f.owner()
	if err != nil {
		return err
	}
	folder := filepath.Join(f.Nodes, n.MAC)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range kept {
		if err := root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := giveAway(root, name, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

func (f Furnisher) owner() (uid, gid int, err error) {
	if f.Account == "" {
		return os.Getuid(), os.Getgid(), nil
	}
	account, err := user.Lookup(f.Account)
	if err != nil {
		return 0, 0, err
	}
	if uid, err = strconv.Atoi(account.Uid); err == nil {
		gid, err = strconv.Atoi(account.Gid)
	}
	return uid, gid, err
}

// giveAway changes the owner of a folder and of the files in it, as those that a server of
// another kind has left. A folder that has that owner is his business.
func giveAway(root *os.Root, name string, uid, gid int) error {
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no folder", name)
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && int(s.Uid) == uid {
		return nil
	}
	entries, err := fs.ReadDir(root.FS(), name)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := root.Lchown(path.Join(name, entry.Name()), uid, gid); err != nil {
			return err
		}
	}
	return root.Lchown(name, uid, gid)
}
