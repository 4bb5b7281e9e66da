// Package terminal runs a command for a client at the other end of a TCP connection
// (client-api §3.4): with the connection as its input and output, or in a pseudo-terminal
// of the client's size.
//
// In a terminal, the client sends pickled events; one that leaves, or sends anything else,
// ends the command. Without, the end of what the client sends is the end of the command's
// input only, and a client that leaves does not end it (CN-41). Bytes of both sides are
// handed on in pieces of bounded size, each waiting for the one before to be taken.
package terminal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lastWords is how long a client may be silent before it leaves, once it was sent all.
const lastWords = 10 * time.Second

// Conn is the connection of a client whose request was read.
type Conn struct {
	*net.TCPConn
	R *bufio.Reader // what the client sends
}

// Finish ends what is sent, and waits for the client to leave: a rest that it sends and
// nobody reads would reset the connection, and lose what it was sent last.
func (c *Conn) Finish() {
	_ = c.CloseWrite()
	buffer := make([]byte, 32<<10)
	for {
		_ = c.SetReadDeadline(time.Now().Add(lastWords))
		if _, err := c.R.Read(buffer); err != nil {
			return
		}
	}
}

// Refuse tells the client why there is no command, and returns that.
func (c *Conn) Refuse(reason error) error {
	_ = c.SetWriteDeadline(time.Now().Add(lastWords))
	if _, err := fmt.Fprintf(c, "%v\r\n", reason); err == nil {
		c.Finish()
	}
	return reason
}

// Pipe runs a command whose input and outputs are the connection.
func (c *Conn) Pipe(cmd *exec.Cmd) error {
	input, err := cmd.StdinPipe()
	if err != nil {
		return c.Refuse(err)
	}
	cmd.Stdout, cmd.Stderr = c, c
	if err := cmd.Start(); err != nil {
		return c.Refuse(err)
	}
	var feeding sync.WaitGroup
	feeding.Go(func() {
		_, _ = io.Copy(input, c.R) // a command may end before its input does
		input.Close()
	})
	_ = cmd.Wait() // no exit status is transmitted
	_ = c.CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(lastWords))
	feeding.Wait()
	c.Finish()
	return nil
}

// left tells whether the client has closed the connection, read or not.
func (c *Conn) left() bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(poll, 0)
		gone = n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
	return gone || err != nil
}
