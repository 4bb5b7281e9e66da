package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// runTimed is walt-timeout SECONDS COMMAND...: the command is terminated when its
// time is over. The status is that of the command.
func runTimed(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: walt-timeout SECONDS COMMAND [ARGUMENT...]")
	}
	seconds, err := strconv.ParseUint(args[0], 10, 31)
	if err != nil {
		return fmt.Errorf("cannot use %q as a number of seconds", args[0])
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[1], args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = exitGrace / 2 // before this process ends too
	err = cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("%s did not end in %d seconds", args[1], seconds)
	}
	return err
}
