// Package logs carries log lines from where they are produced (nodes' streams on
// TCP 12347, netconsole datagrams, consoles of virtual nodes, the server itself) to
// the database and to those who watch in real time (server-state 4, node-protocols
// 3.3 and 3.7, client-api 3.3).
//
// Memory is bounded everywhere: a sender faster than the database is slowed down by
// TCP; a watcher that does not read is disconnected; while the database refuses lines
// they are kept up to a bound, then counted as lost, and that is said. Bytes that
// are not UTF-8 are replaced, lines longer than MaxLine are cut, and no input can
// end more than its own stream.
package logs

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"

	"github.com/waltos/waltos/services/daemon/db"
)

// MaxLine is the longest line, in bytes; longer ones continue in another line.
const MaxLine = 64 << 10

// Config is what a Hub works with.
type Config struct {
	DB *db.Client

	// ByIP, ByMAC and Server find devices in the registry, at its present state.
	ByIP   func(netip.Addr) (db.Device, bool)
	ByMAC  func(mac string) (db.Device, bool)
	Server func() (db.Device, bool)

	// Warn reports what went wrong, on the real stderr: it must not come back as a
	// log line.
	Warn func(format string, args ...any)

	// Keep and Drop hand the connections of nodes to the supervisor, so that they
	// outlive this process: notify.StoreFD and notify.RemoveFD. nil: not done.
	Keep func(name string, f *os.File) error
	Drop func(name string) error
}

// Hub is where all log lines pass.
type Hub struct {
	config Config
}

// New returns a hub; Run must be started.
func New(config Config) *Hub { return &Hub{config: config} }

// Run stores lines until ctx ends, then stores what it holds, in a bounded time.
func (h *Hub) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// ServeIncoming reads a node's log stream (request 0, after its request line) to its
// end, and closes conn.
func (h *Hub) ServeIncoming(ctx context.Context, conn net.Conn, r *bufio.Reader) {}

// ServeDump answers a request for logs (request 1, after its request line), and
// closes conn.
func (h *Hub) ServeDump(ctx context.Context, conn net.Conn, r *bufio.Reader) {}

// ServeNetconsole reads netconsole datagrams until ctx ends.
func (h *Hub) ServeNetconsole(ctx context.Context, conn net.PacketConn) error { return nil }

// Resume goes on with a log connection that an earlier life of this process had
// handed to the supervisor under this name ("log:..."); it returns at its end.
func (h *Hub) Resume(ctx context.Context, name string, f *os.File) error {
	return errors.New("not built yet")
}

// Emit logs a line of the server itself, as stream "platform.nodes". It never waits.
func (h *Hub) Emit(stream, line string) {}

// EmitChunk logs bytes of a console of a device, as stream "virtualconsole": the line
// is the Python bytes literal of data. It never waits.
func (h *Hub) EmitChunk(mac, stream string, data []byte) {}

// Count counts the lines selected, those just received included.
func (h *Hub) Count(ctx context.Context, f db.LogFilter) (int, error) { return 0, nil }

// Flush returns when all lines received before the call are stored.
func (h *Hub) Flush(ctx context.Context) error { return nil }

// Forget stores what a device has logged and forgets its streams; to be called
// before its rows are deleted.
func (h *Hub) Forget(ctx context.Context, mac string) error { return nil }
