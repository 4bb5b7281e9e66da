package waltctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/waltos/waltos/supervisor/console"
	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/supervisor/unit"
)

// waitTime is how long the result of an order is waited for unless told otherwise: the
// longest that any unit of the appliance may take to start.
const waitTime = 5 * time.Minute

func (t *Tool) changeCommand(order, about string) *cobra.Command {
	var noWait bool
	var limit time.Duration
	cmd := &cobra.Command{
		Use: order + " UNIT...", Short: about, Args: cobra.MinimumNArgs(1), ValidArgsFunction: t.completeUnits,
		RunE: func(cmd *cobra.Command, names []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			var failures []error
			for _, name := range names {
				if err := t.change(ctx, order, name, !noWait); err != nil {
					failures = append(failures, err)
				}
			}
			return errors.Join(failures...)
		},
	}
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for the result")
	cmd.Flags().DurationVar(&limit, "timeout", waitTime, "how long to wait for the result")
	return cmd
}

func (t *Tool) change(ctx context.Context, order, name string, wait bool) error {
	u, err := t.Client.Change(ctx, order, name, wait, func(e control.Event) {
		if t.asJSON {
			_ = t.printLine(control.Step{Event: &e}) // the result decides
			return
		}
		fmt.Fprintln(t.Out, t.event(e))
	})
	if ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("cannot wait longer for %s to %s: %w", name, order, context.DeadlineExceeded)
	}
	if err != nil {
		return err
	}
	if t.asJSON {
		if err := t.printLine(control.Step{Unit: &u}); err != nil {
			return err
		}
	}
	if !wait {
		if !t.asJSON {
			fmt.Fprintf(t.Out, "%s is %s; the result is not waited for\n", u.Name, u.State)
		}
		return nil
	}
	good := slices.Contains([]unit.State{unit.Scheduled, unit.Listening, unit.Running, unit.Done}, u.State)
	if order == "stop" {
		good = u.State == unit.Stopped
	}
	if !good {
		if u.Reason == "" {
			return fmt.Errorf("%s is %s", u.Name, u.State)
		}
		return fmt.Errorf("%s is %s: %s", u.Name, u.State, console.Clean(u.Reason))
	}
	if !t.asJSON {
		fmt.Fprintf(t.Out, "%s is %s\n", u.Name, paint(string(u.State), stateColor(u.State), t.Color))
	}
	return nil
}
