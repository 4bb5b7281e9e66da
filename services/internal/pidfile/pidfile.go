// Package pidfile tells which process runs something, by a file that holds its number and
// that it keeps locked: a record lock of fcntl(2), which the kernel drops at the end of the
// process and says the owner of. So a file of a process that was killed, or of an earlier
// boot of the machine, is never taken for one that runs, whatever its number is now.
//
// Such a lock also goes when its owner closes any descriptor of the file: nothing else in
// that process may open it.
package pidfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Hold makes this process the owner of a file, and writes its number into it. It holds it
// until the file that is returned is closed. It refuses one that another process owns.
func Hold(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("cannot leave %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot leave %s: %w", path, err)
	}
	if err := hold(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot leave %s: %w", path, err)
	}
	return f, nil
}

func hold(f *os.File) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return errors.New("another process that runs has left it")
	}
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, os.Getpid())
	return err
}

// Owner returns the number of the other process that owns a file, 0 if there is none.
func Owner(path string) (pid int, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_RDLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, fmt.Errorf("cannot tell who owns %s: %w", path, err)
	}
	switch {
	case lock.Type == unix.F_UNLCK:
		return 0, nil
	case lock.Pid <= 0:
		return 0, fmt.Errorf("cannot tell who owns %s: a process that cannot be seen from here", path)
	}
	return int(lock.Pid), nil
}
