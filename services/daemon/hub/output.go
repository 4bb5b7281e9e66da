package hub

import "time"

const (
	// maxUnread is what a client may have left unread when its next message is taken.
	maxUnread = 256 << 10
	// writePart is what a client must read in writeTime.
	writePart = 64 << 10
)

// output writes to a client. What a client does not read at once is kept and written by
// a goroutine, so that nobody else ever waits for a client. It is guarded by conn.mu.
type output struct {
	unread   []byte // what no goroutine writes yet
	waiting  int    // bytes, with those that one writes
	draining bool   // a goroutine writes
}

// write sends bytes to the client, without waiting; c.mu is held.
func (c *conn) write(data []byte) error {
	o := &c.out
	if !o.draining {
		n, err := c.nc.TryWrite(data)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	if len(data) == 0 {
		return nil
	}
	if err := c.hub.memory.take(len(data)); err != nil {
		return err
	}
	o.unread = append(o.unread, data...)
	o.waiting += len(data)
	if !o.draining {
		o.draining = true
		c.served.Go(c.drain)
	}
	return nil
}

// drain writes what the client did not read at once.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	for len(o.unread) > 0 {
		data := o.unread
		o.unread = nil
		c.mu.Unlock()
		err := c.writeAll(data)
		c.mu.Lock()
		if err != nil { // the reading side will notice
			c.nc.Close()
			o.unread = nil
		}
		left := len(o.unread)
		c.hub.memory.give(o.waiting - left)
		o.waiting = left
		c.changed.Broadcast()
	}
	o.draining = false
}

func (c *conn) writeAll(data []byte) error {
	for len(data) > 0 {
		part := data[:min(len(data), writePart)]
		if err := c.nc.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
			return err
		}
		if _, err := c.nc.Write(part); err != nil {
			return err
		}
		data = data[len(part):]
	}
	return c.nc.SetWriteDeadline(time.Time{})
}

// waitRead waits until the client has read enough for its next message to be taken.
func (c *conn) waitRead() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.out.waiting > maxUnread {
		c.changed.Wait()
	}
}
