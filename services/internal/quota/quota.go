// Package quota bounds what clients hold of a service at the same time (connections,
// transfers): in all, and each address, so that no client keeps the others out.
package quota

import (
	"io"
	"net"
	"net/netip"
	"sync"
)

// Quota counts what is held. It is safe for concurrent use.
type Quota struct {
	total, each int

	mu     sync.Mutex
	sum    int
	counts map[netip.Addr]int
}

// New returns a quota of so many in all, and so many of each address.
func New(total, each int) *Quota {
	return &Quota{total: total, each: each, counts: map[netip.Addr]int{}}
}

// Take adds one for an address, or returns false. The zero address is that of this process,
// which sees whether it still answers: it is counted but never refused, since it would be
// ended for a crowd of clients otherwise.
func (q *Quota) Take(client netip.Addr) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if client.IsValid() && (q.sum >= q.total || q.counts[client] >= q.each) {
		return false
	}
	q.sum++
	q.counts[client]++
	return true
}

// Give takes back one that Take has added.
func (q *Quota) Give(client netip.Addr) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sum--
	if q.counts[client]--; q.counts[client] == 0 {
		delete(q.counts, client)
	}
}

// Held returns how many an address holds, and all together.
func (q *Quota) Held(client netip.Addr) (own, all int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.counts[client], q.sum
}

// Address returns the IP address of one end of a connection; the zero one if it has
// none.
func Address(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// Listener returns a listener that closes, unheard, the connections of ln that are
// beyond the quota. A connection counts until it is closed.
func (q *Quota) Listener(ln net.Listener) net.Listener { return &listener{ln, q} }

type listener struct {
	net.Listener
	quota *Quota
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		client := Address(c.RemoteAddr())
		if l.quota.Take(client) {
			return &conn{Conn: c, give: sync.OnceFunc(func() { l.quota.Give(client) })}, nil
		}
		c.Close()
	}
}

type conn struct {
	net.Conn
	give func()
}

// ReadFrom lets files go out without passing through this process (sendfile(2)).
func (c *conn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

func (c *conn) Close() error {
	defer c.give()
	return c.Conn.Close()
}
