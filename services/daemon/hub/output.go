package hub

import (
	"errors"
	"net"
	"syscall"
	"time"
)

const (
	// maxUnread is what a client may have left unread when its next message is taken.
	maxUnread = 256 << 10
	// writePart is what a client must read in writeTime.
	writePart = 64 << 10
)

// output writes to a client. What a client does not read at once is kept and written by
// a goroutine, so that nobody else ever waits for a client. It is guarded by conn.mu.
type output struct {
	raw      syscall.RawConn
	unread   []byte // what no goroutine writes yet
	waiting  int    // bytes, with those that one writes
	draining bool   // a goroutine writes

	// Of one attempt; these save the allocations of a closure.
	attempt func(fd uintptr) bool
	data    []byte
	n       int
	err     error
}

func (o *output) open(nc net.Conn) error {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return errors.New("cannot write to a connection without descriptor")
	}
	raw, err := sc.SyscallConn()
	o.raw, o.attempt = raw, o.writeOnce
	return err
}

// try writes as much as the connection takes at once.
func (o *output) try(data []byte) (int, error) {
	o.data, o.n, o.err = data, 0, nil
	err := o.raw.Write(o.attempt)
	o.data = nil
	if err == nil {
		err = o.err
	}
	return o.n, err
}

func (o *output) writeOnce(fd uintptr) bool {
	n, err := syscall.Write(int(fd), o.data)
	for err == syscall.EINTR {
		n, err = syscall.Write(int(fd), o.data)
	}
	if err == syscall.EAGAIN {
		n, err = 0, nil
	}
	o.n, o.err = max(n, 0), err
	return true
}

// write sends bytes to the client, without waiting; c.mu is held.
func (c *conn) write(data []byte) error {
	o := &c.out
	if !o.draining {
		n, err := o.try(data)
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
