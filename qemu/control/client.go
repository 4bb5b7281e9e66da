package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// ErrNone says that no lab runs in a folder.
var ErrNone = errors.New("no lab is running there")

// connection is the command line's end.
type connection struct {
	net.Conn
	reader *bufio.Reader
}

func dial(ctx context.Context, folder string) (*connection, error) {
	path, done, err := shortPath(folder)
	if err == nil {
		defer done()
		var dialer net.Dialer
		var conn net.Conn
		if conn, err = dialer.DialContext(ctx, "unix", path); err == nil {
			return &connection{Conn: conn, reader: bufio.NewReaderSize(conn, maxLine)}, nil
		}
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		err = ErrNone
	}
	return nil, fmt.Errorf("cannot talk to the lab in %s: %w", folder, err)
}

func (c *connection) ask(request Request) (*Answer, error) {
	data, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(append(data, '\n')); err != nil {
		return nil, err
	}
	var answer Answer
	if err := readLine(c.reader, &answer); err != nil {
		return nil, fmt.Errorf("cannot read the answer of the lab: %w", err)
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	return &answer, nil
}

// Ask sends a request to the lab of a folder and waits for the answer; after Stop also
// for the end of its process.
func Ask(ctx context.Context, folder string, request Request) (*Answer, error) {
	c, err := dial(ctx, folder)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	answer, err := c.ask(request)
	if err == nil && request.Command == Stop {
		_, err = io.Copy(io.Discard, c.reader)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return answer, err
}

// Attach opens the console of a machine: reading gives what it shows from now on,
// writing types.
func Attach(ctx context.Context, folder, name string) (io.ReadWriteCloser, error) {
	c, err := dial(ctx, folder)
	if err != nil {
		return nil, err
	}
	if _, err := c.ask(Request{Command: Console, Name: name}); err != nil {
		c.Close()
		return nil, err
	}
	return terminal{c}, nil
}

// terminal reads through the buffer that the answer was read with.
type terminal struct{ *connection }

func (t terminal) Read(data []byte) (int, error) { return t.reader.Read(data) }
