package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// fixed are numbers of devices that may be asked for before their driver is there, from
// Documentation/admin-guide/devices.txt of Linux.
var fixed = map[string]uint64{
	"/dev/kvm": unix.Mkdev(10, 232), "/dev/net/tun": unix.Mkdev(10, 200), "/dev/vhost-net": unix.Mkdev(10, 238),
}

// scratch is a file system in memory, one for all that is the unit's own: its temporary
// folders, its /dev, and what stands in for hidden folders.
type scratch struct {
	fd     int
	count  int
	sealed []tree // folders that will be read-only
}

func openScratch() (*scratch, error) {
	fd, err := mountNew("tmpfs", [][2]string{{"mode", "0755"}, {"size", "25%"}}, unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return nil, err
	}
	// Before Linux 6.15 only what is attached can be copied. Its own folder of that name will
	// be before it.
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, temporary[0], unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot mount on %s: %w", temporary[0], err)
	}
	return &scratch{fd: fd}, nil
}

func (s *scratch) close() {
	unix.Close(s.fd)
	for _, t := range s.sealed {
		unix.Close(t.fd)
	}
}

// attach puts a new folder at a path, to be written by the unit.
func (s *scratch) attach(path string, mode uint32, attributes uint64) error {
	t, err := s.folder(path, mode, attributes)
	unix.Close(t.fd)
	return err
}

// attachSealed puts a new folder at a path, to be written until all is in place.
func (s *scratch) attachSealed(path string, attributes uint64) error {
	t, err := s.folder(path, 0o755, attributes)
	s.sealed = append(s.sealed, t)
	return err
}

// folder makes a folder and puts it at a path; its descriptor is to be closed.
func (s *scratch) folder(path string, mode uint32, attributes uint64) (tree, error) {
	t := tree{Place: Place{Path: path}, fd: -1}
	name := strconv.Itoa(s.count)
	s.count++
	if err := makeMountPoint(path, true); err != nil {
		return t, err
	}
	if err := errors.Join(unix.Mkdirat(s.fd, name, 0), unix.Fchmodat(s.fd, name, mode, 0)); err != nil {
		return t, fmt.Errorf("cannot make a folder for %s: %w", path, err)
	}
	fd, err := unix.OpenTree(s.fd, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return t, fmt.Errorf("cannot make a folder for %s: %w", path, err)
	}
	t.fd = fd
	if err := t.set(0, attributes, 0); err != nil {
		return t, err
	}
	return t, t.move()
}

// hide puts an empty folder before another, if that exists. What a link points to is hidden at
// its own place or not at all.
func (s *scratch) hide(path string) error {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() {
		return nil
	}
	return s.attachSealed(path, harmless)
}

// devices makes /dev, with copies of device files of the machine.
func (s *scratch) devices(more []string) error {
	nodes := make(map[string]unix.Stat_t)
	for _, path := range append(more, devices...) {
		var st unix.Stat_t
		err := unix.Stat(path, &st)
		if number, ok := fixed[path]; ok && errors.Is(err, unix.ENOENT) {
			st, err = unix.Stat_t{Mode: unix.S_IFCHR | 0o600, Rdev: number}, nil
		}
		if err != nil {
			return fmt.Errorf("cannot give device %s: %w", path, err)
		}
		if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFCHR && kind != unix.S_IFBLK {
			return fmt.Errorf("cannot give device %s: it is none", path)
		}
		nodes[path] = st
	}
	if err := s.attachSealed("/dev", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC); err != nil {
		return err
	}
	for path, st := range nodes {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("cannot give device %s: %w", path, err)
		}
		if err := errors.Join(unix.Mknod(path, st.Mode, int(st.Rdev)), unix.Chown(path, int(st.Uid), int(st.Gid))); err != nil {
			return fmt.Errorf("cannot give device %s: %w", path, err)
		}
	}
	for link, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(target, filepath.Join("/dev", link)); err != nil {
			return fmt.Errorf("cannot make /dev: %w", err)
		}
	}
	if err := s.attach("/dev/shm", 0o1777, harmless); err != nil {
		return err
	}
	terminals, err := mountNew("devpts", [][2]string{{"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}},
		unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return err
	}
	if err := os.Mkdir("/dev/pts", 0o755); err != nil {
		unix.Close(terminals)
		return fmt.Errorf("cannot make /dev: %w", err)
	}
	return tree{Place: Place{Path: "/dev/pts"}, fd: terminals}.attach()
}

// protect makes read-only what only had to be made.
func (s *scratch) protect() error {
	for _, t := range s.sealed {
		if err := t.set(0, unix.MOUNT_ATTR_RDONLY, 0); err != nil {
			return err
		}
	}
	return nil
}
