// Command qemu is the lab: it boots the appliance and nodes in virtual machines, joined
// by a switch, without a privilege, and runs the real walt client against them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/waltos/waltos/qemu/platform"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx)
	cancel()
	os.Exit(code)
}

// exitCode is an error whose words have been said: only the code is left.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func run(ctx context.Context) int {
	err := root().ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintln(os.Stderr, "qemu:", err)
	return 1
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "qemu",
		Short:         "Run the WalT appliance and nodes in virtual machines",
		SilenceUsage:  true,
		SilenceErrors: true,
		// So that flags may stand before a command that takes all words after it.
		TraverseChildren: true,
	}
	folder := c.PersistentFlags().String("dir", "", "folder of the lab (default: waltos/lab in the user's cache folder)")
	lab := func() (string, error) {
		if *folder != "" {
			return *folder, nil
		}
		return platform.DefaultFolder()
	}
	c.AddCommand(upCommand(lab), keepCommand(), statusCommand(lab), consoleCommand(lab), logsCommand(lab),
		sshCommand(lab), waltCommand(lab), powerCommand(lab), cableCommand(lab), addCommand(lab), stopCommand(lab))
	return c
}
