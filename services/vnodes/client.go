package vnodes

import (
	"context"
	"time"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/metrics"
)

const (
	// reachLimit is how long a call waits for a service that is not there.
	reachLimit = 10 * time.Second
	// commandLimit bounds a command to one node, and changeLimit the end of many.
	commandLimit = 10 * time.Second
	changeLimit  = 30 * time.Second
)

// input is what is typed on a console.
type input struct {
	MAC  string
	Data []byte
}

// Client calls the service. A call waits for it for a bounded time only, and fails at once
// if it dies meanwhile. It is safe for concurrent use.
type Client struct{ link *connector.Client }

// Dial returns a client of the service that listens on a unix socket, which need not be
// there yet.
func Dial(socket string) *Client { return &Client{connector.Dial(socket, nil)} }

// Close ends the connection; calls in flight fail.
func (c *Client) Close() { c.link.Close() }

// OnConnect has f called at each new connection: the service may be one that knows nothing.
func (c *Client) OnConnect(f func()) { c.link.OnConnect(func(*connector.Peer) { f() }) }

// Measures asks the service for what it counts.
func (c *Client) Measures(ctx context.Context) ([]metrics.Family, error) {
	return metrics.Ask(ctx, c.link)
}

// Reconcile makes these nodes run, and no other: Service.Reconcile.
func (c *Client) Reconcile(ctx context.Context, wanted []Node) error {
	return c.call(ctx, changeLimit, "reconcile", wanted)
}

// Kill ends the machine of a node; the next one starts by itself.
func (c *Client) Kill(ctx context.Context, mac string) error {
	return c.call(ctx, commandLimit, "kill", mac)
}

// Input types on the console of a node.
func (c *Client) Input(ctx context.Context, mac string, data []byte) error {
	return c.call(ctx, commandLimit, "input", input{mac, data})
}

// Console waits for the next output of consoles. taken is the number of the last batch, 0 if
// there is none: what it held is given again to a caller that does not know of it.
func (c *Client) Console(ctx context.Context, taken uint64) (Batch, error) {
	var batch Batch
	err := c.link.Call(ctx, "console", taken, &batch)
	return batch, err
}

func (c *Client) call(ctx context.Context, limit time.Duration, method string, arg any) error {
	reach, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	peer, err := c.link.Peer(reach)
	if err != nil {
		return err
	}
	ctx, cancel = context.WithTimeout(ctx, limit)
	defer cancel()
	return peer.Call(ctx, method, arg, nil)
}
