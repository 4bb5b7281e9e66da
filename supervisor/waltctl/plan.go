package waltctl

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/supervisor/console"
	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/supervisor/unit"
)

func (t *Tool) planCommand() *cobra.Command {
	return &cobra.Command{
		Use: "plan", Short: "Show what the unit files would change", Args: cobra.NoArgs,
		Long: "plan reads the unit files of the image and of /etc/walt/units.d and shows what applying them\n" +
			"would change. It changes nothing.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := t.Client.Plan(cmd.Context())
			switch {
			case err != nil:
				return err
			case t.asJSON:
				return t.print(p)
			}
			return t.printPlan(p)
		},
	}
}

func (t *Tool) applyCommand() *cobra.Command {
	var yes bool
	var limit time.Duration
	cmd := &cobra.Command{
		Use: "apply", Short: "Read the unit files again: show what changes, ask, then restart only what must be", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := t.Client.Plan(cmd.Context())
			if err != nil {
				return err
			}
			if !t.asJSON {
				if err := t.printPlan(p); err != nil {
					return err
				}
			}
			if !changes(p) {
				return nil
			}
			if !yes && !t.confirm("Apply this?") {
				return fmt.Errorf("nothing was changed")
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			return t.Client.ApplyPlan(ctx, p.ID, func(e control.Event) {
				if t.asJSON {
					_ = t.printLine(e) // the result decides
					return
				}
				fmt.Fprintln(t.Out, t.event(e))
			})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().DurationVar(&limit, "timeout", waitTime, "how long to wait for the result")
	return cmd
}

// confirm asks a person.
func (t *Tool) confirm(question string) bool {
	fmt.Fprintf(t.Out, "%s [y/N] ", question)
	line, err := bufio.NewReader(t.In).ReadString('\n')
	answer := strings.ToLower(strings.TrimSpace(line))
	return err == nil && (answer == "y" || answer == "yes")
}

func changes(p control.Plan) bool {
	for _, s := range p.Steps {
		if s.Action != unit.Keep {
			return true
		}
	}
	return false
}

// printPlan shows what changes, and why.
func (t *Tool) printPlan(p control.Plan) error {
	kept := 0
	for _, s := range p.Steps {
		if s.Action == unit.Keep {
			kept++
			continue
		}
		color := map[unit.Action]string{unit.Add: green, unit.Discard: red, unit.Renew: yellow}[s.Action]
		fmt.Fprintf(t.Out, "%s %s%s\n", paint(fmt.Sprintf("%-8s", s.Action), color, t.Color), s.Unit, because(s))
		for _, d := range s.Changes {
			fmt.Fprintf(t.Out, "           %s: %s -> %s%s\n", d.Path, shown(d.Old), shown(d.New), restarts(s, d))
		}
	}
	if kept == len(p.Steps) {
		_, err := fmt.Fprintf(t.Out, "nothing changes: all %d units are as their files say\n", kept)
		return err
	}
	_, err := fmt.Fprintf(t.Out, "unchanged: %d\n", kept)
	return err
}

func because(s unit.Step) string {
	if s.Because == "" {
		return ""
	}
	return ": " + s.Because
}

func shown(value string) string {
	if value == "" {
		return "(not given)"
	}
	return console.Clean(value)
}

// restarts marks what of several changes makes the restart necessary.
func restarts(s unit.Step, d hcl.Difference) string {
	if s.Action == unit.Renew && !d.Live {
		return " (needs the restart)"
	}
	return ""
}

// unitsHelp is the reference of unit files as a help topic: "waltctl help units".
func unitsHelp() *cobra.Command {
	return &cobra.Command{Use: "units", Short: "The language of unit files", Long: hcl.UnitReference()}
}
