package boot

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Mount is one file system to mount.
type Mount struct {
	Source, Target, Type string
	Flags                uintptr
	Options              string
}

func (m Mount) String() string { return fmt.Sprintf("%s (%s) on %s", m.Source, m.Type, m.Target) }

// Do makes the mount point if it can and mounts. What is mounted already is left.
func (m Mount) Do() error {
	if err := os.MkdirAll(m.Target, 0o755); err != nil && !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("cannot make mount point: %w", err)
	}
	err := unix.Mount(m.Source, m.Target, m.Type, m.Flags, m.Options)
	if err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("cannot mount %v: %w", m, err)
	}
	return nil
}

const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// kernelMounts are needed by everything else; they move on to the new root.
var kernelMounts = []Mount{
	{"proc", "/proc", "proc", safe, ""},
	{"sysfs", "/sys", "sysfs", safe, ""},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
	{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
}

func (s *state) mountKernel() error {
	for _, m := range kernelMounts {
		if err := m.Do(); err != nil {
			return err
		}
	}
	if err := limitHugePages(hugePages); err != nil {
		s.console.Say("%v", err) // it costs memory, no more
	}
	return nil
}

// hugePages says who gets them (Linux Documentation/admin-guide/mm/transhuge.rst).
const hugePages = "/sys/kernel/mm/transparent_hugepage/enabled"

// limitHugePages leaves huge pages to those who ask for them, as QEMU for the memory of its
// guests. Else each service has some for a heap that fills a small part of one.
func limitHugePages(file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // this kernel has none
	}
	if err == nil {
		_, err = f.WriteString("madvise")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("cannot leave huge pages to those who ask: %w", err)
	}
	return nil
}
