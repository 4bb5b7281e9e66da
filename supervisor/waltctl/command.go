// Package waltctl is the command line of administrators: it asks the supervisor by its
// control socket (package control) and reads the journal from the disk.
//
// Results go to standard output, errors to standard error. Colours are used on terminals
// only, and not if NO_COLOR is set. With --json every command prints JSON: one object, or
// one a line where more may follow. Exit codes: see [ExitCodes].
package waltctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"github.com/waltos/waltos/supervisor/control"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitForbidden   = 4
	exitTimeout     = 5
)

// ExitCodes is what the help says of them.
const ExitCodes = `Exit codes: 0 done; 1 it failed, or a unit is not as ordered; 2 wrong arguments;
3 the supervisor does not answer; 4 only root may do that; 5 the time limit is over, what
was ordered goes on.`

// JournalFolder is where the supervisor keeps the journal.
const JournalFolder = "/var/log/walt/journal"

// Tool is what the commands work with.
type Tool struct {
	Client  control.Client
	Journal string // folder of the journal
	In      io.Reader
	Out     io.Writer
	Errors  io.Writer
	Color   bool // of Out
	asJSON  bool
}

// Run runs the command line on the appliance and returns its exit status.
func Run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	t := &Tool{
		Client: control.Client{Path: control.Path}, Journal: JournalFolder, In: os.Stdin, Out: os.Stdout, Errors: os.Stderr,
		Color: term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
	}
	return t.Main(ctx, args)
}

// Main runs a command line and returns its exit status.
func (t *Tool) Main(ctx context.Context, args []string) int {
	cmd := t.Command()
	cmd.SetArgs(args)
	cmd.SetOut(t.Out)
	cmd.SetErr(t.Errors)
	understood := false
	cmd.PersistentPreRun = func(*cobra.Command, []string) { understood = true }
	err := cmd.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitDone
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitDone // a person has seen enough
	}
	fmt.Fprintf(t.Errors, "waltctl: %v\n", err)
	switch {
	case !understood:
		fmt.Fprintln(t.Errors, "\"waltctl help\" tells what there is, \"waltctl help COMMAND\" all of a command.")
		return exitUsage
	case errors.Is(err, control.ErrUnreachable):
		return exitUnreachable
	case errors.Is(err, control.ErrForbidden):
		return exitForbidden
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	}
	return exitFailed
}

// Command builds the tree of commands.
func (t *Tool) Command() *cobra.Command {
	root := &cobra.Command{
		Use: "waltctl", Short: "Look at and change what runs on this WalT server",
		Long:         "waltctl looks at and changes what runs on this WalT server.\n\n" + ExitCodes,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.PersistentFlags().BoolVar(&t.asJSON, "json", false, "print JSON")
	root.AddCommand(
		t.statusCommand(), t.logsCommand(), t.eventsCommand(), t.graphCommand(), t.bootCommand(), t.securityCommand(), t.supportCommand(),
		t.changeCommand("start", "Start units and those they need or want"),
		t.changeCommand("stop", "Stop units, and first those that need them"),
		t.changeCommand("restart", "Restart units; their sockets and stored connections stay open"),
		t.changeCommand("reload", "Make units read their own configuration again, without a restart"),
		t.planCommand(), t.applyCommand(), unitsHelp(),
		t.shutdownCommand("poweroff", "Stop all units and switch off"),
		t.shutdownCommand("reboot", "Stop all units and reboot"),
		t.watchdogCommand(),
		t.configureCommand(), t.passwordCommand(), t.apiCommand(), completionCommand(),
	)
	return root
}

func (t *Tool) shutdownCommand(order, about string) *cobra.Command {
	return &cobra.Command{
		Use: order, Short: about, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return t.Client.Shutdown(cmd.Context(), order) },
	}
}

func (t *Tool) apiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "api", Short: "Show the requests that programs may send to the supervisor", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if t.asJSON {
				return t.print(control.Endpoints())
			}
			_, err := io.WriteString(t.Out, control.Page())
			return err
		},
	}
}

// print writes an object for programs.
func (t *Tool) print(v any) error {
	encoder := json.NewEncoder(t.Out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// printLine writes one object of a stream.
func (t *Tool) printLine(v any) error { return json.NewEncoder(t.Out).Encode(v) }

// completeUnits proposes the names of units.
func (t *Tool) completeUnits(cmd *cobra.Command, taken []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), 2*time.Second)
	defer cancel()
	status, err := t.Client.Status(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []cobra.Completion
	for _, u := range status.Units {
		names = append(names, cobra.CompletionWithDesc(u.Name, u.Description))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
