// Package notify is the service's side of the talk with its supervisor: the
// sd_notify datagrams (READY, STATUS, STOPPING, WATCHDOG, descriptor store) and the
// sd_listen_fds environment (LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES), as
// sd_notify(3) and sd_listen_fds(3) specify them.
//
// Without NOTIFY_SOCKET every notification is a no-op, so that a service runs the
// same way by hand. Supported: path and abstract unix sockets. Not supported:
// vsock addresses, BARRIER.
package notify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxNameLength is the longest FDNAME, as in sd_pid_notify_with_fds(3).
const maxNameLength = 255

// firstFD is SD_LISTEN_FDS_START.
const firstFD = 3

// Ready tells the supervisor that the service does its work now.
func Ready() error { return send("READY=1", nil) }

// Status is one line for the status table of the supervisor.
func Status(text string) error {
	return send("STATUS="+strings.ReplaceAll(text, "\n", " "), nil)
}

// Stopping tells the supervisor that the service has begun to end.
func Stopping() error { return send("STOPPING=1", nil) }

// KeepAlive gives the supervisor two signs of life in each period of its watchdog, as long as
// check finds the service working, until ctx ends. A check that fails is made again soon: what it
// sends may be lost in a crowd. One that never returns gives no sign.
// Without a watchdog (WATCHDOG_USEC) it returns at once.
func KeepAlive(ctx context.Context, check func(context.Context) error) {
	period, err := strconv.ParseUint(os.Getenv("WATCHDOG_USEC"), 10, 40)
	if err != nil || period < 2 {
		return
	}
	pause := time.Duration(period) * time.Microsecond / 2
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		if err := beat(ctx, pause, check); err != nil && ctx.Err() == nil {
			fmt.Fprintf(os.Stderr, "no sign of life is given: %v\n", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// soon is after how much of its limit in time a check that failed is made again.
const soon = 10

func beat(ctx context.Context, limit time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return send("WATCHDOG=1", nil)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(limit / soon):
		}
	}
}

// StoreFD leaves a duplicate of f with the supervisor, which passes it back, by
// name, at the next start of the service. Several descriptors may share a name.
// The caller still owns f.
func StoreFD(name string, f *os.File) error {
	if err := checkName(name); err != nil {
		return err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("cannot store descriptor %s: %w", name, err)
	}
	var sendErr error
	if err := raw.Control(func(fd uintptr) {
		sendErr = send("FDSTORE=1\nFDNAME="+EscapeName(name), unix.UnixRights(int(fd)))
	}); err != nil {
		return fmt.Errorf("cannot store descriptor %s: %w", name, err)
	}
	return sendErr
}

// RemoveFD makes the supervisor close every stored descriptor of that name.
func RemoveFD(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return send("FDSTOREREMOVE=1\nFDNAME="+EscapeName(name), nil)
}

// checkName applies the rule of FDNAME: printable ASCII without colon. A colon is
// nevertheless what separates kind and address in our names ("bootstatus:10.0.0.7"),
// so it is accepted here and escaped on the wire; see [EscapeName].
func checkName(name string) error {
	if name == "" || len(EscapeName(name)) > maxNameLength {
		return fmt.Errorf("cannot store descriptor %q: the name must have 1 to %d characters", name, maxNameLength)
	}
	for _, c := range []byte(name) {
		if c < 0x20 || c > 0x7e {
			return fmt.Errorf("cannot store descriptor %q: the name must be printable ASCII", name)
		}
	}
	return nil
}

// send writes one datagram, with descriptors if rights is not nil.
func send(text string, rights []byte) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if path[0] != '/' && path[0] != '@' {
		return fmt.Errorf("cannot notify the supervisor: NOTIFY_SOCKET %q is not a unix socket", path)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot notify the supervisor: %w", err)
	}
	defer unix.Close(fd)
	for {
		err = unix.Sendmsg(fd, []byte(text), rights, &unix.SockaddrUnix{Name: path}, 0)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("cannot notify the supervisor: %w", err)
	}
	return nil
}

// inherited holds what the environment passed, read once: descriptors are a
// property of the process, and a second reading of numbers that have been closed
// and reused meanwhile would be fatal.
var inherited = sync.OnceValue(func() map[string][]*os.File {
	files := collect(os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES"))
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	return files
})

// Files returns the descriptors that the supervisor passed, by name: sockets that
// it listens on and what [StoreFD] left with it. They are close-on-exec, and the
// environment is cleared, so that no child takes them for its own. Each call
// returns the same files; a descriptor without name is under "".
func Files() map[string][]*os.File { return inherited() }

func collect(pid, count, names string) map[string][]*os.File {
	files := map[string][]*os.File{}
	if n, err := strconv.Atoi(pid); err != nil || n != os.Getpid() {
		return files
	}
	n, err := strconv.Atoi(count)
	if err != nil || n <= 0 {
		return files
	}
	var list []string
	if names != "" {
		list = strings.Split(names, ":")
	}
	for i := range n {
		name := ""
		if i < len(list) {
			name = UnescapeName(list[i])
		}
		unix.CloseOnExec(firstFD + i)
		// Non-blocking first, so that os.NewFile hands the descriptor to the poller.
		_ = unix.SetNonblock(firstFD+i, true)
		files[name] = append(files[name], os.NewFile(uintptr(firstFD+i), name))
	}
	return files
}

// ErrNoSocket is returned by [Listener] and [PacketConn] when the supervisor
// passed no socket of that name: the service was started by hand.
var ErrNoSocket = errors.New("no such socket was passed by the supervisor")

// Listener returns the listening stream socket of that name. Closing it does not
// end the socket: the supervisor keeps it, and peers queue until the next start.
func Listener(name string) (net.Listener, error) {
	files := Files()[name]
	if len(files) == 0 {
		return nil, fmt.Errorf("cannot listen on %q: %w", name, ErrNoSocket)
	}
	ln, err := net.FileListener(files[0])
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %q: %w", name, err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return ln, nil
}

// ListenerOr returns the listening stream socket of that name, or what open opens when
// the supervisor passed none.
func ListenerOr(name string, open func() (net.Listener, error)) (net.Listener, error) {
	ln, err := Listener(name)
	if !errors.Is(err, ErrNoSocket) {
		return ln, err
	}
	if ln, err = open(); err != nil {
		return nil, fmt.Errorf("cannot listen on %q: %w", name, err)
	}
	return ln, nil
}

// UnixListener returns the listening unix socket of that name, or opens NAME.sock in a
// folder, for this user only, when the supervisor passed none.
func UnixListener(name, folder string) (net.Listener, error) {
	return ListenerOr(name, func() (net.Listener, error) {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, err
		}
		path := filepath.Join(folder, name+".sock")
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err // of an earlier life
		}
		ln, err := net.Listen("unix", path)
		if err != nil {
			return nil, err
		}
		if err := os.Chmod(path, 0o600); err != nil {
			ln.Close()
			return nil, err
		}
		return ln, nil
	})
}

// PacketConn returns the datagram socket of that name.
func PacketConn(name string) (net.PacketConn, error) {
	files := Files()[name]
	if len(files) == 0 {
		return nil, fmt.Errorf("cannot receive on %q: %w", name, ErrNoSocket)
	}
	conn, err := net.FilePacketConn(files[0])
	if err != nil {
		return nil, fmt.Errorf("cannot receive on %q: %w", name, err)
	}
	return conn, nil
}

var (
	escaper   = strings.NewReplacer("%", "%25", ":", "%3A")
	unescaper = strings.NewReplacer("%25", "%", "%3A", ":")
)

// EscapeName turns a descriptor name into what LISTEN_FDNAMES and FDNAME may hold:
// a colon, which separates names there, becomes %3A and a percent sign %25.
func EscapeName(name string) string { return escaper.Replace(name) }

// UnescapeName undoes [EscapeName].
func UnescapeName(name string) string { return unescaper.Replace(name) }
