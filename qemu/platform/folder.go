package platform

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// lockName is the file that the process of a lab locks, and writes its number to.
const lockName = "lock"

// lockFolder makes sure that one lab at a time uses a folder. The lock ends with the
// process, however that ends.
func lockFolder(folder string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(folder, lockName), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("a lab is running in %s already", folder)
		}
		return nil, err
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Running tells whether a lab uses a folder.
func Running(folder string) bool {
	f, err := os.Open(filepath.Join(folder, lockName))
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// Terminate asks the process of a lab, if there is one, to end, and waits until the
// lab is down.
func Terminate(folder string) (found bool, err error) {
	if !Running(folder) {
		return false, nil
	}
	fail := func(err error) (bool, error) { return true, fmt.Errorf("cannot end the lab in %s: %w", folder, err) }
	f, err := os.Open(filepath.Join(folder, lockName))
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	number := make([]byte, 20)
	n, _ := f.Read(number) // an empty file makes no number
	pid, err := strconv.Atoi(string(bytes.TrimSpace(number[:n])))
	if err != nil {
		return fail(err)
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		return fail(err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_SH)
		switch {
		case err == nil:
			return true, nil
		case !errors.Is(err, unix.EINTR):
			return fail(err)
		}
	}
}

// hold gives a file of the build a second name, in the folder of the lab, and changes
// the option to it: the next build replaces the first name, while this lab may start
// its machines again. Where a second name is not possible, the first is used.
func (o *Options) hold(file *string) error {
	if *file == "" {
		return nil
	}
	original, err := filepath.Abs(*file)
	if err != nil {
		return err
	}
	held := filepath.Join(o.Folder, filepath.Base(original))
	if held == original {
		return nil
	}
	if err := os.Remove(held); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	*file = original
	if os.Link(original, held) == nil {
		*file = held
	}
	return nil
}
