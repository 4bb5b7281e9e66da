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
	"github.com/waltos/waltos/services/daemon/trackexec"
	"github.com/waltos/waltos/services/internal/direct"
	"github.com/waltos/waltos/services/internal/quota"
	"github.com/waltos/waltos/services/metrics"
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
	Trace      *trackexec.Recorder // nil: none
}

// Hub serves API sessions.
type Hub struct {
	access  Access
	trace   *trackexec.Recorder
	link    *session.Link
	quota   *quota.Quota
	memory  memory
	journal journal

	refusals, exceptions *metrics.Counter

	mu       sync.Mutex
	lastID   uint64
	sessions map[uint64]*conn
	refused  time.Time // when a refusal was last logged
}

// New returns a hub, which begins to look for server-main.
func New(c Config) *Hub {
	h := &Hub{access: c.Access, trace: c.Trace, quota: quota.New(maxConnections, maxPerAddress), sessions: map[uint64]*conn{}}
	h.memory.limit = maxMemory
	set := metrics.New("server-hub")
	h.measure(set)
	h.link = session.Dial(c.MainSocket, h.callback, set)
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
		peer := quota.Address(nc.RemoteAddr())
		if !h.quota.Take(peer) {
			nc.Close()
			h.refusals.Add(1)
			h.complain(peer)
			continue
		}
		running.Go(func() {
			defer h.quota.Give(peer)
			defer nc.Close()
			if err := h.serve(ctx, nc, peer); err != nil {
				log.Printf("%v: %v", peer, err)
			}
		})
	}
}

// serve serves a connection to its end.
func (h *Hub) serve(ctx context.Context, nc net.Conn, peer netip.Addr) error {
	conn, err := direct.New(nc)
	if err != nil {
		return err
	}
	return newConn(h, conn, peer).serve(ctx)
}

// complain logs that a connection was refused, but not each time.
func (h *Hub) complain(peer netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := time.Now(); now.Sub(h.refused) > 10*time.Second {
		h.refused = now
		own, all := h.quota.Held(peer)
		log.Printf("refused a connection from %v: it has %d, all together have %d", peer, own, all)
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
