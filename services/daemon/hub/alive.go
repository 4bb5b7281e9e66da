package hub

import (
	"bufio"
	"context"
	"fmt"
	"io"

	"github.com/waltos/waltos/services/internal/selfcheck"
	"github.com/waltos/waltos/services/wire/rpc"
)

// responds opens a session with this process, as a client does, and passes through what all
// sessions share.
func (h *Hub) responds(ctx context.Context, own *selfcheck.Listener) error {
	conn, err := own.Dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := io.WriteString(conn, rpc.APISession.String()+"\nCSAPI\n"); err != nil {
		return fmt.Errorf("cannot open a session with this process: %w", err)
	}
	version, err := rpc.ReadLine(bufio.NewReader(conn), maxTargetLine)
	if err != nil {
		return fmt.Errorf("cannot open a session with this process: %w", err)
	}
	if version != Version {
		return fmt.Errorf("cannot open a session with this process: it says that it is %q", version)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return nil
}
