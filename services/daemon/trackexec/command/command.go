// Package command runs the commands that read execution traces, which end in the same way.
package command

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// Run runs a command, which has no other below it, with its arguments. It returns its exit
// status: 0, 1 after an error, 2 if its arguments are wrong.
func Run(ctx context.Context, cmd *cobra.Command, args []string, stdout, stderr io.Writer) int {
	ran := false
	do := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ran = true
		return do(cmd, args)
	}
	cmd.SilenceErrors, cmd.SilenceUsage, cmd.DisableFlagsInUseLine = true, true, true
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case !ran:
		fmt.Fprintf(stderr, "%s: %v\nTry %s --help.\n", cmd.Name(), err, cmd.Name())
		return 2
	}
	fmt.Fprintln(stderr, err)
	return 1
}
