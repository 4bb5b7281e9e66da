package waltctl

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/supervisor/report"
)

func (t *Tool) bootCommand() *cobra.Command {
	var svg bool
	cmd := &cobra.Command{
		Use: "boot", Short: "Show how long each phase and unit took to start, and what to shorten", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := t.Client.Boot(cmd.Context())
			switch {
			case err != nil:
				return err
			case t.asJSON:
				return t.print(b)
			case svg:
				status, err := t.Client.Status(cmd.Context())
				if err != nil {
					return err
				}
				booted := status.Clock.Now.Add(-status.Uptime)
				return b.Chart(t.Out, fmt.Sprintf("%s, WalT %s: boot of %s", status.Name, status.Version, booted.Format("2006-01-02 15:04:05")))
			}
			return t.printBoot(b)
		},
	}
	cmd.Flags().BoolVar(&svg, "svg", false, "as a drawing")
	return cmd
}

func (t *Tool) printBoot(b control.Boot) error {
	list := &table{right: []bool{true, true}}
	list.add(plain("AT", "TOOK", "WHAT"))
	line := func(at time.Duration, took, what, color string) {
		list.add([]cell{{text: fmt.Sprintf("%.2f", at.Seconds())}, {text: took}, {text: what, color: color}})
	}
	took := func(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) }
	if b.Firmware > 0 {
		line(-b.Firmware, took(b.Firmware), "firmware and boot loader", "")
	}
	if kernel := b.Kernel(); kernel > 0 {
		line(0, took(kernel), "kernel", "")
	}
	for _, p := range b.Phases {
		duration := "-" // not over, or never noted: the jump into the root
		if p.End > p.Begin {
			duration = took(p.End - p.Begin)
		}
		line(p.Begin, duration, p.Name, "")
	}
	units := slices.Clone(b.Units)
	slices.SortStableFunc(units, func(a, b report.UnitBoot) int { return int(a.Began - b.Began) })
	for _, u := range units {
		duration, mark, color := "-", "", ""
		if u.Ready != 0 {
			duration = took(u.Ready - u.Began)
		}
		if slices.Contains(b.Critical, u.Name) {
			mark, color = " *", yellow
		}
		line(u.Began, duration, "unit "+u.Name+mark, color)
	}
	if b.Ready != 0 {
		line(b.Ready, "", "all units had a result", bold)
	}
	if err := list.write(t.Out, t.Color); err != nil {
		return err
	}
	if len(b.Critical) > 0 {
		_, err := fmt.Fprintf(t.Out, "\n* the critical path: %s\n", strings.Join(b.Critical, " -> "))
		return err
	}
	return nil
}
