package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/waltos/waltos/supervisor/sandbox"
	"golang.org/x/sys/unix"
)

// ShimName is argument 0 of a process that has yet to become a unit's command.
const ShimName = "walt-launch"

// exitExec is the status of a shim that could not execute the command, as of a shell.
const exitExec = 127

// maxPlan and maxFailure bound what passes between the supervisor and the shim, in bytes.
const (
	maxPlan    = 64 << 10
	maxFailure = 4 << 10
)

// Shim does, in the new process, what its parent cannot do for it: what the plan says that it
// reads from the descriptor named by its argument, and its own number in LISTEN_PID. Then
// it becomes the command. It returns only on failure, which it has told to that descriptor.
func Shim(args []string) int {
	if len(args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: "+ShimName+" DESCRIPTOR PROGRAM [ARGUMENT...]")
		return exitExec
	}
	number, err := strconv.Atoi(args[1])
	if err != nil {
		fmt.Fprintf(os.Stderr, "cannot understand the descriptor %q\n", args[1])
		return exitExec
	}
	syscall.CloseOnExec(number)
	channel := os.NewFile(uintptr(number), "supervisor")
	err = launch(channel, args[2:])
	text := err.Error()
	fmt.Fprint(channel, text[:min(len(text), maxFailure)])
	return exitExec
}

func launch(channel *os.File, command []string) error {
	var plan sandbox.Plan
	text, err := io.ReadAll(io.LimitReader(channel, maxPlan))
	if err != nil {
		return fmt.Errorf("cannot read the plan of the supervisor: %w", err)
	}
	if err := json.Unmarshal(text, &plan); err != nil {
		return fmt.Errorf("cannot understand the plan of the supervisor: %w", err)
	}
	if os.Getenv("LISTEN_FDS") != "" {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	if err := plan.Enter(); err != nil {
		return err
	}
	err = syscall.Exec(command[0], command, os.Environ())
	return fmt.Errorf("cannot execute %s: %w", command[0], err)
}

// channel leads to a shim that becomes a command.
type channel struct{ near, far *os.File }

// openChannel writes the plan; it fits into the buffer of the socket.
func openChannel(plan *sandbox.Plan) (*channel, error) {
	text, err := json.Marshal(plan)
	if err != nil {
		return nil, fmt.Errorf("cannot write the plan: %w", err)
	}
	if len(text) > maxPlan {
		return nil, errors.New("cannot write the plan: it is too long")
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot speak to the new process: %w", err)
	}
	c := &channel{os.NewFile(uintptr(ends[0]), "near"), os.NewFile(uintptr(ends[1]), "far")}
	if _, err = c.near.Write(text); err == nil {
		err = unix.Shutdown(ends[0], unix.SHUT_WR)
	}
	if err != nil {
		c.near.Close()
		c.far.Close()
		return nil, fmt.Errorf("cannot speak to the new process: %w", err)
	}
	return c, nil
}

// outcome returns nil once the process has become the command, and otherwise why it has not.
// It must be called after the process has been started, or not been.
func (c *channel) outcome() error {
	c.far.Close()
	defer c.near.Close()
	text, err := io.ReadAll(io.LimitReader(c.near, maxFailure))
	// A process that was killed before it read its plan has reset the connection.
	if err != nil && !errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("cannot hear from the new process: %w", err)
	}
	if len(text) > 0 {
		return errors.New(strings.ToValidUTF8(string(text), "?"))
	}
	return nil
}
