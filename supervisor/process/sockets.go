package process

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/notify"
	"golang.org/x/sys/unix"
)

// keptSocket is a socket that is open, and what it was opened for.
type keptSocket struct {
	namedFile
	socket hcl.Socket
}

// open opens those sockets of the unit that are not open, and returns all that is to be
// passed: sockets in the order of the unit, then stored descriptors. Sockets of an older
// definition are closed.
func (k *kept) open(u *hcl.Unit) ([]namedFile, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.openSockets(u); err != nil {
		return nil, err
	}
	var pass []namedFile
	for i := range u.Sockets {
		at := slices.IndexFunc(k.sockets, func(s keptSocket) bool { return s.name == u.Sockets[i].Name })
		pass = append(pass, k.sockets[at].namedFile)
	}
	return append(pass, k.store...), nil
}

// openSockets makes the open sockets those of the unit; mu is held.
func (k *kept) openSockets(u *hcl.Unit) error {
	same := func(a, b hcl.Socket) bool {
		a.Range = b.Range
		return a == b
	}
	k.closeSockets(func(s keptSocket) bool {
		return !slices.ContainsFunc(u.Sockets, func(other hcl.Socket) bool { return same(s.socket, other) })
	})
	for i := range u.Sockets {
		s := &u.Sockets[i]
		if slices.ContainsFunc(k.sockets, func(other keptSocket) bool { return other.name == s.Name }) {
			continue
		}
		file, err := openSocket(s)
		if err != nil {
			return fmt.Errorf("cannot open socket %s on %s: %w", s.Name, s.Listen, err)
		}
		k.sockets = append(k.sockets, keptSocket{namedFile{s.Name, file}, *s})
	}
	return nil
}

// closeSockets closes those sockets that are to go; mu is held.
func (k *kept) closeSockets(goes func(keptSocket) bool) {
	k.sockets = slices.DeleteFunc(k.sockets, func(s keptSocket) bool {
		if goes(s) {
			s.file.Close()
			return true
		}
		return false
	})
}

// duplicates opens the sockets of the unit and returns descriptors of them that are the
// caller's own.
func (k *kept) duplicates(u *hcl.Unit) (files []*os.File, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.openSockets(u); err != nil {
		return nil, err
	}
	for _, s := range k.sockets {
		f, err := duplicate(s.file)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, fmt.Errorf("cannot watch socket %s: %w", s.name, err)
		}
		files = append(files, f)
	}
	return files, nil
}

func duplicate(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var dup error
	if err := raw.Control(func(old uintptr) { fd, dup = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if dup != nil {
		return nil, dup
	}
	// A service may have changed what it shares with us.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func openSocket(s *hcl.Socket) (*os.File, error) {
	network, address, _ := strings.Cut(s.Listen, ":")
	family, kind := unix.AF_UNIX, unix.SOCK_STREAM
	var where unix.Sockaddr = &unix.SockaddrUnix{Name: address}
	if network != "unix" {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, err
		}
		if ap.Addr().Is4() {
			family, where = unix.AF_INET, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
		} else {
			family, where = unix.AF_INET6, &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
		}
		if network == "udp" {
			kind = unix.SOCK_DGRAM
		}
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := bindSocket(fd, family, kind, where, s); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), s.Name), nil
}

func bindSocket(fd, family, kind int, where unix.Sockaddr, s *hcl.Socket) error {
	path := ""
	if local, ok := where.(*unix.SockaddrUnix); ok {
		path = local.Name
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		// What is there is of an earlier life: a socket that somebody serves would be ours.
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	} else {
		if kind == unix.SOCK_STREAM {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
				return err
			}
		}
		// The address may come later: the network is a unit too.
		if family == unix.AF_INET {
			_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1)
		} else {
			_ = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
		}
	}
	if err := unix.Bind(fd, where); err != nil {
		return err
	}
	if path != "" {
		if err := protect(path, s); err != nil {
			return err
		}
	}
	if kind == unix.SOCK_DGRAM {
		return nil
	}
	return unix.Listen(fd, s.Backlog)
}

// protect sets mode and owner of a unix socket, before it listens.
func protect(path string, s *hcl.Socket) error {
	mode, err := strconv.ParseUint(s.Mode, 8, 12)
	if err != nil {
		return fmt.Errorf("mode %q is not octal", s.Mode)
	}
	account, err := user.Lookup(s.User)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(account.Uid)
	if err != nil {
		return err
	}
	group := account.Gid
	if s.Group != "" {
		g, err := user.LookupGroup(s.Group)
		if err != nil {
			return err
		}
		group = g.Gid
	}
	gid, err := strconv.Atoi(group)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, os.FileMode(mode)); err != nil {
		return err
	}
	if uid == os.Getuid() && s.Group == "" {
		return nil
	}
	return os.Chown(path, uid, gid)
}

// passEnvironment is the sd_listen_fds environment, but for LISTEN_PID.
func passEnvironment(files []namedFile) []string {
	if len(files) == 0 {
		return nil
	}
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = notify.EscapeName(f.name)
	}
	return []string{"LISTEN_FDS=" + strconv.Itoa(len(files)), "LISTEN_FDNAMES=" + strings.Join(names, ":")}
}
