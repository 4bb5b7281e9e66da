package process

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/waltos/waltos/hcl"
	"golang.org/x/sys/unix"
)

// ShimName is argument 0 of a process that has yet to become a unit's command.
const ShimName = "walt-launch"

// exitExec is the status of a shim that could not execute the command, as of a shell.
const exitExec = 127

// shimArgument is what the shim must do, as "files=N".
func shimArgument(u *hcl.Unit) string { return "files=" + strconv.Itoa(u.Limits.Files) }

// Shim does, in the new process, what its parent cannot do for it: its limits, its own
// number in LISTEN_PID. Then it becomes the command. It returns only on failure.
func Shim(args []string) int {
	if err := shim(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return exitExec
}

func shim(args []string) error {
	if len(args) < 3 {
		return errors.New("usage: " + ShimName + " files=N PROGRAM [ARGUMENT...]")
	}
	files, err := strconv.ParseUint(strings.TrimPrefix(args[1], "files="), 10, 32)
	if err != nil {
		return fmt.Errorf("cannot understand the limit %q: %w", args[1], err)
	}
	// The supervisor's own limit is far higher; lowering needs no privilege.
	var have unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &have); err != nil {
		return fmt.Errorf("cannot read the limit of open files: %w", err)
	}
	limit := syscall.Rlimit{Cur: min(files, have.Max), Max: min(files, have.Max)}
	if err := syscall.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("cannot limit open files: %w", err)
	}
	if os.Getenv("LISTEN_FDS") != "" {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	command := args[2:]
	err = syscall.Exec(command[0], command, os.Environ())
	return fmt.Errorf("cannot execute %s: %w", command[0], err)
}
