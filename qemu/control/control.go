// Package control is how command lines talk to the process that runs a lab: a unix
// socket in the folder of the lab. A connection carries one request and its answer,
// each a line of JSON; after the answer to "console" it carries the console itself.
//
// Only the user that started the lab can connect (mode of the socket), so a request is
// trusted; its size is bounded all the same.
package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/waltos/waltos/qemu/ethernet"
	"github.com/waltos/waltos/qemu/platform"
)

const (
	socketName = "control.sock"
	maxLine    = 1 << 20
)

// Commands of a Request.
const (
	Status  = "status"  // of everything
	Stop    = "stop"    // the lab; answered when it is down
	Console = "console" // of Name
	Reset   = "reset"   // press the reset button of Name
	Cut     = "cut"     // the power of Name
	On      = "on"      // the power of Name; not waited for the guest
	Plug    = "plug"    // the cable of Name
	Unplug  = "unplug"
	Add     = "add" // a node, a UEFI one if Name is "uefi"; answered when it is booted
)

// Request is what a command line asks.
type Request struct {
	Command string `json:"command"`
	Name    string `json:"name,omitempty"` // of a machine
}

// Answer is what it gets.
type Answer struct {
	Error   string              `json:"error,omitempty"`
	Summary platform.Summary    `json:"summary,omitzero"`
	Ports   []ethernet.Counters `json:"ports,omitempty"` // of the switch
}

// Listen opens the socket of a lab. A socket that a dead process left is replaced: that
// no live one uses the folder is assured by the lock of the lab.
func Listen(folder string) (net.Listener, error) {
	path, done, err := shortPath(folder)
	if err != nil {
		return nil, fmt.Errorf("cannot control the lab: %w", err)
	}
	defer done()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot control the lab: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("cannot control the lab: %w", err)
	}
	// The path goes through a descriptor that is closed by then.
	listener.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("cannot control the lab: %w", err)
	}
	return listener, nil
}

// shortPath names the socket within the 107 bytes of a unix address, however deep the
// folder is.
func shortPath(folder string) (path string, done func(), err error) {
	f, err := os.Open(folder)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), socketName), func() { f.Close() }, nil
}

// Serve answers requests until the context ends or a request has stopped the lab. The
// connection of that request stays open: it ends with this process, which tells the
// other side that nothing is left.
func Serve(ctx context.Context, listener net.Listener, lab *platform.Lab) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	for {
		conn, err := listener.Accept()
		switch {
		case errors.Is(context.Cause(ctx), errStopped):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return fmt.Errorf("cannot control the lab: %w", err)
		}
		go func() {
			s := session{lab: lab, conn: conn}
			if s.serve(ctx) {
				cancel(errStopped)
				return
			}
			conn.Close()
		}()
	}
}

var errStopped = errors.New("the lab was stopped")
