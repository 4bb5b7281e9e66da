package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/waltos/waltos/services/daemon/db"
)

// netconsoleStream is the stream of kernel messages sent by UDP.
const netconsoleStream = "netconsole"

// Bounds of what waits for the end of its line: bytes of one device, and devices.
const (
	maxPartial  = 16 << 10
	maxPartials = 1024
)

// ServeNetconsole reads netconsole datagrams (node-protocols 3.7) until ctx ends.
// Text of one device is cut at line feeds, wherever datagrams end. It closes conn.
func (h *Hub) ServeNetconsole(ctx context.Context, conn net.PacketConn) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	partial := map[string][]byte{} // by MAC: only known devices have an entry
	buf := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("cannot receive netconsole messages: %w", err)
		}
		if err != nil {
			continue // of one datagram
		}
		device, ok := h.config.ByIP(peerIP(from))
		if !ok {
			continue
		}
		text := append(partial[device.MAC], buf[:n]...)
		end := bytes.LastIndexByte(text, '\n') + 1
		if len(text)-end > maxPartial || len(partial) >= maxPartials && partial[device.MAC] == nil {
			end = whole(text) // what cannot be kept is a line
		}
		if rest := bytes.Clone(text[end:]); len(rest) == 0 {
			delete(partial, device.MAC)
		} else {
			partial[device.MAC] = rest
		}
		if end == 0 {
			continue
		}
		var l lines
		for t := range bytes.SplitSeq(bytes.TrimSuffix(text[:end], []byte("\n")), []byte("\n")) {
			if !isClean(t) {
				t = []byte(db.Clean(string(t)))
			}
			l.add(h.tick(), t)
		}
		_ = h.add(ctx, device, netconsoleStream, false, false, l)
	}
}
