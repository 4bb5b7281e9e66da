package hub

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/waltos/waltos/services/daemon/session"
)

// Bounds of connections. An address counts many users when it is that of a gateway.
const (
	maxConnections = 2048
	maxPerAddress  = 512
)

// Config is what a Hub needs.
type Config struct {
	MainSocket string // of server-main
	Access     Access
}

// Hub serves API sessions.
type Hub struct {
	access Access
	link   *session.Link

	mu       sync.Mutex
	lastID   uint64
	sessions map[uint64]*conn
	counts   map[netip.Addr]int
	total    int
	refused  time.Time // when a refusal was last logged
}

// New returns a hub, which begins to look for server-main.
func New(c Config) *Hub {
	h := &Hub{access: c.Access, sessions: map[uint64]*conn{}, counts: map[netip.Addr]int{}}
	h.link = session.Dial(c.MainSocket, h.callback)
	return h
}

// Close ends the connection to server-main.
func (h *Hub) Close() { h.link.Close() }

// Serve serves the connections accepted by ln until ctx ends; then it closes ln,
// ends every session and returns nil.
func (h *Hub) Serve(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("cannot accept API sessions: %w", err)
		default: // as "too many open files": connections that end will help
			log.Printf("cannot accept a connection: %v", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		peer := address(nc.RemoteAddr())
		if !h.admit(peer) {
			nc.Close()
			continue
		}
		running.Go(func() {
			defer h.leave(peer)
			defer nc.Close()
			c := newConn(h, nc, peer)
			if err := c.serve(ctx); err != nil {
				log.Printf("%v: %v", peer, err)
			}
		})
	}
}

// address returns the IP address of one end of a connection.
func address(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

func (h *Hub) admit(peer netip.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.total >= maxConnections || h.counts[peer] >= maxPerAddress {
		if now := time.Now(); now.Sub(h.refused) > 10*time.Second {
			h.refused = now
			log.Printf("refused a connection from %v: it has %d, all together have %d", peer, h.counts[peer], h.total)
		}
		return false
	}
	h.total++
	h.counts[peer]++
	return true
}

func (h *Hub) leave(peer netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.total--
	if h.counts[peer]--; h.counts[peer] == 0 {
		delete(h.counts, peer)
	}
}

// register gives a number to a session whose first call is to be forwarded.
func (h *Hub) register(c *conn) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastID++
	h.sessions[h.lastID] = c
	return h.lastID
}

// unregister forgets a session, here and in server-main.
func (h *Hub) unregister(id uint64) {
	h.mu.Lock()
	delete(h.sessions, id)
	h.mu.Unlock()
	h.link.End(id)
}

// callback serves server-main.
func (h *Hub) callback(ctx context.Context, id, call uint64, message []byte) ([]byte, error) {
	h.mu.Lock()
	c := h.sessions[id]
	h.mu.Unlock()
	if c == nil {
		return nil, session.ErrGone
	}
	return c.callback(ctx, call, message)
}
