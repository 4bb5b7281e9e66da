package waltctl

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/waltos/waltos/supervisor/console"
	"github.com/waltos/waltos/supervisor/control"
)

func (t *Tool) eventsCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use: "events [UNIT]", Short: "Show when units changed their state, and why", Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: t.completeUnits,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				if _, err := t.Client.Unit(cmd.Context(), args[0]); err != nil {
					return err
				}
				name = args[0]
			}
			return t.Client.Events(cmd.Context(), name, follow, func(e control.Event) error {
				if t.asJSON {
					return t.printLine(e)
				}
				_, err := fmt.Fprintln(t.Out, t.event(e))
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	return cmd
}

// event is an event as a line.
func (t *Tool) event(e control.Event) string {
	line := fmt.Sprintf("%s %s: %s for %.2f s -> %s", e.Time.Format("2006-01-02 15:04:05.000"), e.Unit,
		e.From, e.Took.Seconds(), paint(string(e.To), stateColor(e.To), t.Color))
	if e.Reason != "" {
		line += ": " + console.Clean(e.Reason)
	}
	return line
}
