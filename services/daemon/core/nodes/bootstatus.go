package nodes

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// Names of the descriptors kept by the supervisor, before the address of the node: the
// connection of a booted node, and one that has not said so yet.
const (
	bootedName  = "bootstatus:"
	pendingName = "bootpending:"
)

// Keeper keeps descriptors across the lives of this process: the supervisor.
type Keeper struct {
	Store  func(name string, f *os.File) error
	Remove func(name string) error
}

// BootStatus follows the boot notifications of nodes. A node reboots as soon as its
// connection ends, hence the connections are left with the supervisor, which gives them
// back to the next process of the daemon.
type BootStatus struct {
	// Changed is called when a node is booted, and when it is no more: its latest
	// connection ended. resumed tells that an earlier life of the daemon knew already.
	// Calls come one after the other, and must not call a BootStatus.
	Changed func(ip string, booted, resumed bool)
	Keeper  Keeper // functions may be nil
	// Warn reports what could not be done for a connection that goes on nevertheless.
	Warn func(format string, args ...any)

	mu     sync.Mutex
	latest map[string]*notification // by address
}

// notification is one connection.
type notification struct {
	conn   net.Conn
	booted bool
}

// Booted tells whether the node of that address has said that it is booted and is still
// connected.
func (b *BootStatus) Booted(ip string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.latest[ip]
	return n != nil && n.booted
}

// Count returns how many connections are of booted nodes, and of others.
func (b *BootStatus) Count() (booted, pending int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.latest {
		if n.booted {
			booted++
		} else {
			pending++
		}
	}
	return booted, pending
}

// Serve answers a notification whose request line has been read, and follows it to its
// end. If ctx ends, the connection is left to the supervisor and the node stays booted.
// r holds what was received after the request line.
func (b *BootStatus) Serve(ctx context.Context, conn *net.TCPConn, r io.Reader) {
	defer conn.Close()
	conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 2 * time.Second, Count: 5})
	if err := conn.SetWriteDeadline(time.Now().Add(3 * time.Second)); err != nil {
		return
	}
	ip := address(conn)
	n := &notification{conn: conn}
	b.replace(ip, n) // before the answer: the node may then close an older connection
	if _, err := io.WriteString(conn, "OK\n"); err != nil {
		b.end(ip, n)
		return
	}
	b.follow(ctx, ip, n, r)
}

// Resume goes on with the connections that the supervisor gave back, until ctx ends or
// they do. Files of other names are ignored.
func (b *BootStatus) Resume(ctx context.Context, files map[string][]*os.File) *sync.WaitGroup {
	var all sync.WaitGroup
	for name, list := range files {
		ip, booted := strings.CutPrefix(name, bootedName)
		if !booted {
			var pending bool
			if ip, pending = strings.CutPrefix(name, pendingName); !pending {
				continue
			}
		}
		f := list[len(list)-1] // the latest
		conn, err := net.FileConn(f)
		for _, f := range list {
			f.Close()
		}
		if err != nil {
			b.warn("cannot resume the connection of node %s: %v", ip, err)
			b.remove(name)
			continue
		}
		n := &notification{conn: conn, booted: booted}
		b.mu.Lock()
		if other := b.latestOf(ip); other == nil || booted {
			b.latest[ip] = n
		}
		if booted {
			b.Changed(ip, true, true)
		}
		b.mu.Unlock()
		all.Go(func() {
			defer conn.Close()
			b.follow(ctx, ip, n, conn)
		})
	}
	return &all
}

func (b *BootStatus) latestOf(ip string) *notification {
	if b.latest == nil {
		b.latest = map[string]*notification{}
	}
	return b.latest[ip]
}

// replace makes n the connection that counts for an address; older ones are ignored from
// now on.
func (b *BootStatus) replace(ip string, n *notification) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old := b.latestOf(ip); old != nil {
		b.remove(pendingName + ip)
		b.remove(bootedName + ip)
	}
	b.latest[ip] = n
	b.store(pendingName+ip, n.conn)
}

// follow reads a connection to its end.
func (b *BootStatus) follow(ctx context.Context, ip string, n *notification, r io.Reader) {
	stop := context.AfterFunc(ctx, func() { n.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buffer := make([]byte, 256)
	for {
		count, err := r.Read(buffer)
		if count > 0 && !n.booted {
			b.confirm(ip, n)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			b.end(ip, n)
			return
		}
	}
}

func (b *BootStatus) confirm(ip string, n *notification) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n.booted = true
	if b.latest[ip] != n {
		return
	}
	b.store(bootedName+ip, n.conn)
	b.remove(pendingName + ip)
	b.Changed(ip, true, false)
}

func (b *BootStatus) end(ip string, n *notification) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.latest[ip] != n {
		return
	}
	delete(b.latest, ip)
	b.remove(pendingName + ip)
	b.remove(bootedName + ip)
	if n.booted {
		b.Changed(ip, false, false)
	}
}

func (b *BootStatus) store(name string, conn net.Conn) {
	if b.Keeper.Store == nil {
		return
	}
	f, err := file(conn)
	if err == nil {
		err = b.Keeper.Store(name, f)
		f.Close()
	}
	if err != nil {
		b.warn("a restart of the daemon will reboot node %s: %v", address(conn), err)
	}
}

func file(conn net.Conn) (*os.File, error) {
	filer, ok := conn.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("cannot hand over a connection of type %T", conn)
	}
	return filer.File()
}

func (b *BootStatus) remove(name string) {
	if b.Keeper.Remove == nil {
		return
	}
	if err := b.Keeper.Remove(name); err != nil {
		b.warn("cannot give up a kept connection: %v", err)
	}
}

func (b *BootStatus) warn(format string, args ...any) {
	if b.Warn != nil {
		b.Warn(format, args...)
	}
}

// address returns the IP of the peer, as in table devices.
func address(conn net.Conn) string {
	peer, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return ""
	}
	return peer.Addr().Unmap().String()
}
