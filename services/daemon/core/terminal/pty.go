package terminal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/wire/pickle"
)

const (
	// stall is how long a command may leave its input unread before the client is looked
	// at: whether it has left may stand behind what it typed before.
	stall = time.Second
	// maxStalls ends a command that reads nothing, for a client that may have left behind
	// more than the connection holds.
	maxStalls = 600
	// rest is how long what a command has left in its terminal takes to be read.
	rest = 100 * time.Millisecond
)

// eventLimits bound one event of a client.
var eventLimits = pickle.Limits{Size: 256 << 10, Depth: 4, Values: 64}

// Size is the size of a terminal.
type Size struct{ Rows, Columns, Width, Height uint16 }

// Terminal runs a command in a new terminal, as leader of its session.
func (c *Conn) Terminal(size Size, cmd *exec.Cmd) error {
	master, err := open(size, cmd)
	if err != nil {
		return c.Refuse(err)
	}
	defer master.Close()
	var typing sync.WaitGroup
	typing.Go(func() {
		c.typeInto(master)
		// The client has left: the command goes with it, after the hang-up of its
		// terminal. All this does nothing to a command that has ended.
		master.Close()
		_ = cmd.Process.Kill()
		c.Close()
	})
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
		_ = master.SetReadDeadline(time.Now().Add(rest))
	}()
	c.show(master, ended)
	<-ended
	_ = c.CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(lastWords))
	typing.Wait()
	return nil
}

// open starts a command in a terminal, and returns the other end of it.
func open(size Size, cmd *exec.Cmd) (*os.File, error) {
	first, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: size.Rows, Cols: size.Columns, X: size.Width, Y: size.Height})
	if err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", cmd.Path, err)
	}
	defer first.Close()
	// Package pty gives a file whose operations wait in the kernel, deaf to Close and to
	// deadlines. This one waits in Go.
	fd, err := unix.FcntlInt(first.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("cannot use a terminal: %w", err)
	}
	return os.NewFile(uintptr(fd), first.Name()), nil
}

// show sends the client what the command prints, until its terminal has no user left or
// the command has ended: what it may have started and left behind is not waited for.
func (c *Conn) show(master *os.File, ended <-chan struct{}) {
	buffer := make([]byte, 16<<10)
	for quiet := false; ; {
		n, err := master.Read(buffer)
		if n > 0 {
			quiet = false
			if _, err := c.Write(buffer[:n]); err != nil {
				c.Close() // which tells typeInto
				return
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && !quiet:
			// The client may have been slow to take what came before.
			<-ended
			quiet = true
			_ = master.SetReadDeadline(time.Now().Add(rest))
		default:
			return
		}
	}
}

// typeInto passes what the client types to its terminal, until it leaves or sends what is
// not understood.
func (c *Conn) typeInto(master *os.File) {
	decoder := pickle.NewDecoder(c.R, eventLimits)
	for {
		value, err := decoder.Decode()
		if err != nil {
			return
		}
		event, ok := value.(*pickle.Dict)
		if !ok || c.apply(event, master) != nil {
			return
		}
	}
}

var errEvent = errors.New("not an event of a terminal")

func (c *Conn) apply(event *pickle.Dict, master *os.File) error {
	switch kind, _ := event.Get("evt"); kind {
	case "input_data":
		value, _ := event.Get("data")
		data, ok := value.([]byte)
		if !ok {
			return errEvent
		}
		return c.enter(data, master)
	case "window_resize":
		lines, err := dimension(event, "lines")
		if err != nil {
			return err
		}
		columns, err := dimension(event, "columns")
		if err != nil {
			return err
		}
		return resize(master, Size{Rows: lines, Columns: columns})
	}
	return errEvent
}

func dimension(event *pickle.Dict, key string) (uint16, error) {
	value, _ := event.Get(key)
	n, ok := value.(int64)
	if !ok || n < 0 || n > 0xffff {
		return 0, errEvent
	}
	return uint16(n), nil
}

func resize(master *os.File, size Size) error {
	raw, err := master.SyscallConn()
	if err != nil {
		return err
	}
	outer := raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ,
			&unix.Winsize{Row: size.Rows, Col: size.Columns, Xpixel: size.Width, Ypixel: size.Height})
	})
	return errors.Join(outer, err)
}

// enter writes to a terminal. The command may be busy with something else for as long as
// the client stays.
func (c *Conn) enter(data []byte, master *os.File) error {
	for stalls := 0; ; stalls++ {
		_ = master.SetWriteDeadline(time.Now().Add(stall))
		n, err := master.Write(data)
		if data = data[n:]; n > 0 {
			stalls = 0
		}
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case c.left() || stalls == maxStalls:
			return io.EOF
		}
	}
}
