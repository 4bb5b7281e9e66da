// Package direct reads and writes sockets without telling the scheduler of Go about it.
//
// A system call of a net.Conn first says to the scheduler that it may take long, which
// wakes the monitor thread of the runtime (sysmon) of a process that was idle: with the
// short messages that the processes of the daemon exchange, that thread took a fifth of
// their processor time. A call on a socket that does not block is short.
//
// The monitor also has goroutines take turns. Who begins work that may take long has to
// wake it: see Long.
package direct

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// most is what one system call moves: the copy is some microseconds then.
const most = 64 << 10

// Conn is a stream connection. Like a net.Conn, it may be read by one goroutine while
// another writes, but not by two.
type Conn struct {
	net.Conn
	raw   syscall.RawConn
	read  operation
	write operation
}

// New returns the connection, which must have a descriptor, as those of the net package.
func New(conn net.Conn) (*Conn, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil, errors.New("cannot use a connection without descriptor")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: conn, raw: raw}
	c.read.open(read)
	c.write.open(write)
	return c, nil
}

// Read is that of net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.read.start(p, true)
	n, err := c.read.end(c.raw.Read(c.read.attempt))
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// Write is that of net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		c.write.start(p[written:], true)
		n, err := c.write.end(c.raw.Write(c.write.attempt))
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// TryWrite writes what the connection takes without waiting, which may be nothing.
func (c *Conn) TryWrite(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.write.start(p, false)
	return c.write.end(c.raw.Write(c.write.attempt))
}

// operation is a read or a write.
type operation struct {
	call    func(fd int, p []byte) (int, error)
	attempt func(fd uintptr) (over bool) // made once, so that no operation allocates it
	p       []byte
	wait    bool
	n       int
	err     error
}

func (o *operation) open(call func(fd int, p []byte) (int, error)) { o.call, o.attempt = call, o.do }

func (o *operation) start(p []byte, wait bool) { o.p, o.wait = p[:min(len(p), most)], wait }

func (o *operation) do(fd uintptr) bool {
	for {
		o.n, o.err = o.call(int(fd), o.p)
		switch o.err {
		case nil:
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			o.n, o.err = 0, nil
			return !o.wait
		default:
			o.n = 0
			return true
		}
	}
}

// end returns the outcome; err is that of the connection.
func (o *operation) end(err error) (int, error) {
	n := o.n
	if err == nil {
		err = o.err
	}
	o.p, o.n, o.err = nil, 0, nil
	return n, err
}

// Long says that what follows may take long: others get their turn meanwhile.
func Long() {
	_, _, _ = syscall.Syscall(syscall.SYS_GETPPID, 0, 0, 0) // any call that the scheduler is told about
}
