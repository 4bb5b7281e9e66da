// Package replay is the command walt-server-trackexec-replay: it shows the execution trace
// of a process of the daemon, or of all those of a run, as a timeline (server-state §5.8).
//
// On a terminal it is a browser with the keys of upstream's pager where they make sense: an
// event takes the place of a line of source. Elsewhere it prints all events, as text or as
// lines of JSON. Traces may be larger than memory; one that is being written is shown as it
// was at the start of the command.
package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/gdamore/tcell/v2"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/waltos/waltos/services/daemon/trackexec/command"
	"github.com/waltos/waltos/services/daemon/trackexec/timeline"
)

// Name is that of the command.
const Name = "walt-server-trackexec-replay"

// Main runs the command and returns its exit status: 0, 1 after an error, 2 if its arguments
// are wrong.
func Main(ctx context.Context, args []string) int {
	return run(ctx, args, os.Stdout, os.Stderr)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	asJSON := false
	cmd := &cobra.Command{
		Use:   Name + " DIR",
		Short: "Browse the execution trace of a process of the WalT daemon",
		Long: "Browse the execution trace in DIR: that of a process, or of all processes of a run,\n" +
			"such as /var/log/walt/trackexec/latest. Where the output is no terminal, print it.\n\n" + help,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return replay(args[0], asJSON, stdout, stderr)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the events as lines of JSON")
	return command.Run(ctx, cmd, args, stdout, stderr)
}

// maxWarnings is how many of them are printed after browsing.
const maxWarnings = 20

// replay shows the trace in a folder.
func replay(folder string, asJSON bool, stdout, stderr io.Writer) error {
	var warnings []string
	browsing := false
	warn := func(format string, args ...any) {
		text := timeline.Printable(fmt.Sprintf(format, args...))
		switch {
		case !browsing:
			fmt.Fprintln(stderr, text)
		case len(warnings) < maxWarnings:
			warnings = append(warnings, text) // for when the terminal is free again
		}
	}
	t, err := timeline.Open(folder, warn)
	if err != nil {
		return err
	}
	output, isFile := stdout.(*os.File)
	switch {
	case asJSON:
		return printJSON(stdout, t)
	case !isFile || !term.IsTerminal(int(output.Fd())):
		return printText(stdout, t)
	}
	screen, err := tcell.NewScreen()
	if err == nil {
		err = screen.Init()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cannot use this terminal: %w", err), errors.New("send the output elsewhere to have it printed"))
	}
	browsing = true
	func() {
		defer screen.Fini()
		newBrowser(screen, t, filepath.Base(folder)+"  "+showSpan(t)).run()
	}()
	if len(warnings) > 0 {
		fmt.Fprintln(stderr, strings.Join(warnings, "\n"))
	}
	return nil
}
