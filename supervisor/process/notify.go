package process

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/notify"
	"github.com/waltos/waltos/supervisor/unit"
	"golang.org/x/sys/unix"
)

const (
	maxNotification = 4 << 10
	maxFDName       = 255
	maxFDs          = 253 // SCM_MAX_FD: of one message
)

// notification is a decoded sd_notify datagram.
type notification struct {
	ready     bool
	stopping  bool
	reloading bool
	alive     bool // WATCHDOG=1
	hangs     bool // WATCHDOG=trigger
	extend    time.Duration
	status    string
	store     bool
	remove    bool
	name      string // FDNAME, unescaped
}

// parseNotification reads "VARIABLE=VALUE" lines; unknown variables are ignored, as
// sd_notify(3) requires.
func parseNotification(text []byte) notification {
	var n notification
	n.name = "stored" // the default of sd_pid_notify_with_fds
	for line := range bytes.Lines(text) {
		variable, value, ok := strings.Cut(strings.TrimRight(string(line), "\n"), "=")
		if !ok {
			continue
		}
		switch variable {
		case "READY":
			n.ready = value == "1"
		case "STOPPING":
			n.stopping = value == "1"
		case "RELOADING":
			n.reloading = value == "1"
		case "WATCHDOG":
			n.alive, n.hangs = value == "1", value == "trigger"
		case "EXTEND_TIMEOUT_USEC":
			n.extend = microseconds(value)
		case "STATUS":
			n.status = printable(value)
		case "FDSTORE":
			n.store = value == "1"
		case "FDSTOREREMOVE":
			n.remove = value == "1"
		case "FDNAME":
			if value != "" && len(value) <= maxFDName {
				n.name = notify.UnescapeName(value)
			}
		}
	}
	return n
}

// microseconds reads a time; what is none, or beyond reason, is 0 or the largest.
func microseconds(text string) time.Duration {
	const most = int64(24 * time.Hour / time.Microsecond)
	value, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0
	}
	return time.Duration(min(int64(value), most)) * time.Microsecond
}

// watchdogEnvironment tells a service how often it must give a sign of life, as
// sd_watchdog_enabled(3) has it.
func watchdogEnvironment(u *hcl.Unit) []string {
	if u.Alive == nil || !u.Alive.Notify {
		return nil
	}
	period, err := time.ParseDuration(u.Alive.Period)
	if err != nil {
		return nil // hcl has refused it
	}
	return []string{"WATCHDOG_USEC=" + strconv.FormatInt(period.Microseconds(), 10)}
}

// printable keeps control characters of a service off the administrator's terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}

// notifySocket receives the notifications of one run.
type notifySocket struct {
	path   string
	conn   *net.UnixConn
	run    *run
	keeper *kept
	done   chan struct{}
	once   sync.Once
}

func (r *run) openNotify(k *kept, id *identity) (*notifySocket, error) {
	dir := filepath.Join(r.launcher.config.RunDir, "walt", "notify")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot make folder: %w", err)
	}
	path := filepath.Join(dir, r.unit.Name)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("cannot make notification socket: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("cannot make notification socket: %w", err)
	}
	n := &notifySocket{path: path, conn: conn, run: r, keeper: k, done: make(chan struct{})}
	err = os.Chmod(path, 0o600)
	if err == nil && id.uid != os.Getuid() {
		err = os.Chown(path, id.uid, id.gid)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot give notification socket away: %w", err)
	}
	go n.serve()
	return n, nil
}

// drain handles what the processes sent before their death, then ends.
func (n *notifySocket) drain() {
	n.once.Do(func() {
		_ = n.conn.SetReadDeadline(time.Now())
		<-n.done
		n.conn.Close()
	})
}

func (n *notifySocket) close() { n.drain() }

func (n *notifySocket) serve() {
	defer close(n.done)
	raw, err := n.conn.SyscallConn()
	if err != nil {
		n.run.launcher.config.Log(n.run.unit.Name, "cannot receive notifications: "+err.Error())
		return
	}
	text, oob := make([]byte, maxNotification+1), make([]byte, unix.CmsgSpace(4*maxFDs))
	receive := func(fd uintptr) (more bool) {
		count, oobCount, flags, _, err := unix.Recvmsg(int(fd), text, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err != nil {
			return errors.Is(err, unix.EINTR)
		}
		fds := rights(oob[:oobCount])
		if count > maxNotification || flags&unix.MSG_TRUNC != 0 {
			n.run.launcher.config.Log(n.run.unit.Name, "a notification was refused: longer than 4 KiB")
			closeAll(fds)
			return true
		}
		n.handle(parseNotification(text[:count]), fds)
		return true
	}
	for {
		err := raw.Read(func(fd uintptr) bool {
			got := false
			for receive(fd) {
				got = true
			}
			return got
		})
		if err != nil { // the deadline: the run is over, what is queued still counts
			_ = raw.Control(func(fd uintptr) {
				for receive(fd) {
				}
			})
			return
		}
	}
}

func (n *notifySocket) handle(m notification, fds []int) {
	switch {
	case m.remove:
		n.keeper.remove(m.name)
	case m.store:
		for _, fd := range fds {
			if err := n.keeper.add(m.name, os.NewFile(uintptr(fd), m.name), n.run.unit.FileDescriptors); err != nil {
				n.run.launcher.config.Log(n.run.unit.Name, err.Error())
			}
		}
		fds = nil
	}
	closeAll(fds)
	if m.status != "" {
		n.run.report(unit.Event{Kind: unit.Status, Text: m.status})
	}
	for _, said := range []struct {
		yes   bool
		event unit.Event
	}{
		{m.extend > 0, unit.Event{Kind: unit.Extends, Time: m.extend}},
		{m.alive, unit.Event{Kind: unit.Lives}},
		{m.hangs, unit.Event{Kind: unit.Hangs}},
		{m.reloading, unit.Event{Kind: unit.Reloads}},
		{m.stopping, unit.Event{Kind: unit.Stops}},
	} {
		if said.yes {
			n.run.report(said.event)
		}
	}
	// After a reload any service may say it.
	if m.ready && (n.run.unit.Ready.Notify || n.run.readied.Load()) {
		n.run.ready()
	}
}

func rights(oob []byte) []int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var fds []int
	for i := range messages {
		if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// add stores a descriptor. One that is stored already, as after a restart, is not
// stored twice.
func (k *kept) add(name string, file *os.File, limit int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, other := range k.store {
		if other.name == name && same(other.file, file) {
			return file.Close()
		}
	}
	if len(k.store) >= limit {
		k.prune()
	}
	if len(k.store) >= limit {
		file.Close()
		return fmt.Errorf("descriptor %q was refused: the unit may store %d", name, limit)
	}
	k.store = append(k.store, namedFile{name, file})
	return nil
}

// prune drops the stored connections that have ended and hold nothing to read: the service
// that left them may be dead for long. Until their place is wanted they stay, so that
// the service can still see and tell their end. mu is held.
func (k *kept) prune() {
	k.store = slices.DeleteFunc(k.store, func(f namedFile) bool {
		if ended(f.file) {
			f.file.Close()
			return true
		}
		return false
	})
}

// ended tells whether a descriptor is a connection of which nothing more can be read.
func ended(file *os.File) (over bool) {
	raw, err := file.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		if kind, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
			return
		}
		var one [1]byte
		n, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		over = err == nil && n == 0 || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.ETIMEDOUT)
	})
	return over
}

func (k *kept) remove(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.store = slices.DeleteFunc(k.store, func(f namedFile) bool {
		if f.name == name {
			f.file.Close()
			return true
		}
		return false
	})
}

// same tells whether two descriptors are of one file: sockets and pipes have an inode
// number of their own.
func same(a, b *os.File) bool {
	x, err := a.Stat()
	if err != nil {
		return false
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y)
}
