package db

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/metrics"
)

// Socket is where server-db listens on an appliance.
const Socket = "/run/walt/daemon/db.sock"

// Client calls server-db. While the database is away every method fails at once;
// while the process is away it waits for it, until its context ends. It is safe for
// concurrent use.
type Client struct {
	link    link
	cursors atomic.Uint64
	staged  atomic.Pointer[Batch] // nil: none
}

// Dial returns a client of the server-db that listens on a unix socket, which need
// not be there yet.
func Dial(socket string) *Client { return &Client{link: link{connector.Dial(socket, nil)}} }

// Close ends the connection; calls in flight fail.
func (c *Client) Close() { c.link.Close() }

// Ping says whether the database answers.
func (c *Client) Ping(ctx context.Context) error {
	return c.link.Call(ctx, "ping", nil, nil)
}

// Measures asks server-db for what it counts.
func (c *Client) Measures(ctx context.Context) ([]metrics.Family, error) {
	return metrics.Ask(ctx, c.link.Client)
}

// OnConnect has f called at each new connection to server-db.
func (c *Client) OnConnect(f func()) { c.link.OnConnect(func(*connector.Peer) { f() }) }

// LoadAll reads the whole registry in one snapshot.
func (c *Client) LoadAll(ctx context.Context) (Everything, error) {
	var reply wireEverything
	if err := c.link.Call(ctx, "loadAll", nil, &reply); err != nil {
		return Everything{}, err
	}
	return reply.everything(), nil
}

// SaveDevice inserts or updates a device, by its MAC, with its row of nodes or
// switches as its type tells. The image of a node must have been saved before.
func (c *Client) SaveDevice(ctx context.Context, d Device) error {
	w, err := encodeDevice(d)
	if err != nil {
		return err
	}
	return c.link.Call(ctx, "saveDevice", w, nil)
}

// DeleteDevice forgets a device with all that refers to it: logs, streams, links,
// port names, PoE records; its VPN credentials stay, marked as forgotten. An
// unknown MAC is no error.
func (c *Client) DeleteDevice(ctx context.Context, mac string) error {
	return c.link.Call(ctx, "deleteDevice", mac, nil)
}

// FixServer makes (mac, ip) the platform's one server entry, named walt-server,
// and deletes any other device with that address, name or type (server-state 1.5).
func (c *Client) FixServer(ctx context.Context, mac, ip string) error {
	return c.link.Call(ctx, "fixServer", [2]string{mac, ip}, nil)
}

// SaveImage records the full name of an image; one already there is no error.
func (c *Client) SaveImage(ctx context.Context, fullname string) error {
	return c.link.Call(ctx, "saveImage", fullname, nil)
}

// DeleteImage fails if a node uses the image. An unknown name is no error.
func (c *Client) DeleteImage(ctx context.Context, fullname string) error {
	return c.link.Call(ctx, "deleteImage", fullname, nil)
}

// RenameImage fails if a node uses the image, or if the new name exists.
func (c *Client) RenameImage(ctx context.Context, old, new string) error {
	return c.link.Call(ctx, "renameImage", [2]string{old, new}, nil)
}

// SaveSwitchPort names a port of a switch; an empty name removes the name.
func (c *Client) SaveSwitchPort(ctx context.Context, p SwitchPort) error {
	return c.link.Call(ctx, "saveSwitchPort", p, nil)
}

// SetTopology replaces all links.
func (c *Client) SetTopology(ctx context.Context, links []Topology) error {
	return c.link.Call(ctx, "setTopology", encodeLinks(links), nil)
}

// SavePoEOff records that a port was powered off, or why.
func (c *Client) SavePoEOff(ctx context.Context, p PoEOff) error {
	return c.link.Call(ctx, "savePoEOff", p, nil)
}

// DeletePoEOff records that a port has power again.
func (c *Client) DeletePoEOff(ctx context.Context, mac string, port int) error {
	return c.link.Call(ctx, "deletePoEOff", PoEOff{MAC: mac, Port: port}, nil)
}

// Checkpoints returns the checkpoints of a user, by time.
func (c *Client) Checkpoints(ctx context.Context, user string) ([]Checkpoint, error) {
	var reply []wireCheckpoint
	if err := c.link.Call(ctx, "checkpoints", user, &reply); err != nil {
		return nil, err
	}
	found := make([]Checkpoint, len(reply))
	for i, w := range reply {
		found[i] = Checkpoint{User: w.User, Name: w.Name, Time: time.UnixMicro(w.Time)}
	}
	return found, nil
}

// SaveCheckpoint adds a checkpoint. It returns false, and changes nothing, if the
// user has one of that name.
func (c *Client) SaveCheckpoint(ctx context.Context, cp Checkpoint) (created bool, err error) {
	err = c.link.Call(ctx, "saveCheckpoint", wireCheckpoint{cp.User, cp.Name, cp.Time.UnixMicro()}, &created)
	return created, err
}

// DeleteCheckpoint returns false if the user has none of that name.
func (c *Client) DeleteCheckpoint(ctx context.Context, user, name string) (deleted bool, err error) {
	err = c.link.Call(ctx, "deleteCheckpoint", [2]string{user, name}, &deleted)
	return deleted, err
}

// StreamIDs returns the numbers of log streams, which it creates if need be. The number is
// 0 where no device has the MAC.
func (c *Client) StreamIDs(ctx context.Context, streams ...Stream) ([]int64, error) {
	streams = slices.Clone(streams)
	for i := range streams {
		streams[i].Name = Clean(streams[i].Name)
	}
	var ids []int64
	err := c.link.Call(ctx, "streamIDs", streams, &ids)
	if err == nil && len(ids) != len(streams) {
		err = fmt.Errorf("server-db knows %d of %d streams", len(ids), len(streams))
	}
	return ids, err
}

// StageRows sends the rows of a batch ahead of the InsertRows that stores them, while
// another InsertRows is under way, which saves the time of sending them. The latest ones
// are kept. Nothing is lost if it fails.
func (c *Client) StageRows(ctx context.Context, batch Batch, rows Rows) error {
	err := c.link.Call(ctx, "stageLines", wireBatch{Batch: batch, Rows: rows}, nil)
	if err == nil {
		c.staged.Store(&batch)
	}
	return err
}

// InsertRows stores log lines, of a few megabytes at most: when it returns nil, all are
// committed, but for those of streams that do not exist any more, which are dropped.
// When it fails, lines may have been stored only if server-db or PostgreSQL died
// during the call: who makes it again, with the same batch, stores them once. A crash of
// PostgreSQL or of the machine may undo the commits of its last 0.6 seconds; the reference
// allows two.
func (c *Client) InsertRows(ctx context.Context, batch Batch, rows Rows) error {
	if staged := c.staged.Load(); staged != nil && *staged == batch {
		c.staged.Store(nil)
		var known bool
		if err := c.link.Call(ctx, "insertLines", wireBatch{Batch: batch, Staged: true}, &known); err != nil || known {
			return err
		}
	}
	return c.link.Call(ctx, "insertLines", wireBatch{Batch: batch, Rows: rows}, nil)
}

// InsertLines is InsertRows for lines of any text, in as many calls as they need.
func (c *Client) InsertLines(ctx context.Context, lines []Line) error {
	for len(lines) > 0 {
		rows, n := encodeLines(lines, maxCopyBytes)
		if err := c.InsertRows(ctx, Batch{}, rows); err != nil {
			return err
		}
		lines = lines[n:]
	}
	return nil
}

// SQLAccess tells how to start psql as SQLRole, for `walt advanced sql`.
func (c *Client) SQLAccess(ctx context.Context) (SQLAccess, error) {
	var access SQLAccess
	err := c.link.Call(ctx, "sqlAccess", nil, &access)
	return access, err
}

// CountLogs counts the log lines that QueryLogs would return.
func (c *Client) CountLogs(ctx context.Context, f LogFilter) (int, error) {
	var n int
	err := c.link.Call(ctx, "countLogs", f, &n)
	return n, err
}

// QueryLogs calls f with each block of the lines selected, by time. An error of f
// ends the reading and is returned.
func (c *Client) QueryLogs(ctx context.Context, filter LogFilter, f func([]Record) error) error {
	cursor, err := c.OpenLogs(ctx, filter)
	if err != nil {
		return err
	}
	return cursor.each(ctx, f)
}

// QueryCountedLogs is QueryLogs, and begins with a call of counted with the number of the
// lines.
func (c *Client) QueryCountedLogs(ctx context.Context, filter LogFilter, counted func(int64) error, f func([]Record) error) error {
	cursor, err := c.openLogs(ctx, filter, true)
	if err != nil {
		return err
	}
	if err := counted(cursor.count); err != nil {
		cursor.Close()
		return err
	}
	return cursor.each(ctx, f)
}
