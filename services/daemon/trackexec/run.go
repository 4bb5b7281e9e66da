package trackexec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/internal/pattern"
)

// Beginner is the process that begins runs.
const Beginner = "server-main"

// owners are the processes of the daemon, and the users that they run as in the appliance.
var owners = map[string]string{
	Beginner:          "root",
	"server-hub":      "walt-hub",
	"server-db":       "walt-db",
	"server-blocking": "walt-blocking",
}

const (
	latestName = "latest"
	runLayout  = "060102-150405"
)

var runName = pattern.Lazy(`^[0-9]{6}-[0-9]{6}$`)

// folder returns the folder to write to; "" if it is not there yet.
func (w *writer) folder() (string, error) {
	if w.Process != Beginner {
		return w.given()
	}
	if w.trace != nil {
		return w.trace.folder, nil
	}
	held, err := beginRun(w.Root, w.Runs, time.Now())
	if err != nil {
		return "", fmt.Errorf("cannot begin a run: %w", err)
	}
	w.held = held
	return filepath.Join(held.Name(), w.Process), nil
}

// given returns the folder that server-main has made for this process in the present run.
func (w *writer) given() (string, error) {
	name, err := os.Readlink(filepath.Join(w.Root, latestName))
	if err != nil || !runName().MatchString(name) {
		return "", nil
	}
	run := filepath.Join(w.Root, name)
	folder := filepath.Join(run, w.Process)
	if w.trace != nil && w.trace.folder == folder {
		return folder, nil
	}
	if info, err := os.Stat(folder); err != nil || !info.IsDir() || !isHeld(run) {
		return "", nil
	}
	return folder, nil
}

// hold opens and locks the folder of a run, so that others know that who has begun it lives.
func hold(run string) (*os.File, error) {
	f, err := os.Open(run)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot lock %s: %w", run, err)
	}
	return f, nil
}

// isHeld tells whether the process that has begun a run lives. If not, another run follows.
func isHeld(run string) bool {
	f, err := os.Open(run)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// beginRun makes the folders of a run, and removes those of the oldest ones. It returns the
// folder of the run, locked.
func beginRun(root string, keep int, now time.Time) (_ *os.File, err error) {
	if os.Geteuid() == 0 { // the others must pass through it
		info, err := os.Stat(root)
		if err == nil {
			err = os.Chmod(root, info.Mode().Perm()|0o111)
		}
		if err != nil {
			return nil, err
		}
	}
	var run string
	for {
		run = filepath.Join(root, now.Format(runLayout))
		err := os.Mkdir(run, 0o755)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		now = now.Add(time.Second) // a daemon that restarts at once
	}
	if err := os.Chmod(run, 0o755); err != nil { // whatever the umask
		return nil, err
	}
	for process, owner := range owners {
		if err := makeFolder(filepath.Join(run, process), owner); err != nil {
			return nil, err
		}
	}
	held, err := hold(run)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			held.Close()
		}
	}()
	draft := filepath.Join(root, "."+latestName)
	if err := os.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := os.Symlink(filepath.Base(run), draft); err != nil {
		return nil, err
	}
	if err := os.Rename(draft, filepath.Join(root, latestName)); err != nil {
		return nil, err
	}
	return held, removeRuns(root, keep, filepath.Base(run))
}

// makeFolder makes the folder of a process. Where its user does not exist, all processes
// run as the same one.
func makeFolder(path, owner string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	u, err := user.Lookup(owner)
	if err != nil || os.Geteuid() != 0 {
		return nil
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return fmt.Errorf("cannot give %s to %s: %w", path, owner, err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return fmt.Errorf("cannot give %s to %s: %w", path, owner, err)
	}
	return os.Chown(path, uid, gid)
}

// removeRuns removes the oldest runs, but never the present one: the clock may be wrong.
func removeRuns(root string, keep int, present string) error {
	files, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	var runs []string
	for _, f := range files {
		if f.IsDir() && runName().MatchString(f.Name()) && f.Name() != present {
			runs = append(runs, f.Name())
		}
	}
	slices.Sort(runs)
	for _, name := range runs[:max(0, len(runs)+1-keep)] {
		if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
			return err
		}
	}
	return nil
}
