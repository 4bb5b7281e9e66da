// Package waltctl is the command line of the supervisor, for administrators.
//
// Exit status: 0 done; 1 refused, or the unit is not as wanted; 2 wrong usage.
package waltctl

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/supervisor/journal"
	"github.com/waltos/waltos/supervisor/unit"
)

// Command returns the command; socket and journal are where the supervisor has them.
func Command(socket, journalDir string) *cobra.Command {
	root := &cobra.Command{
		Use: "waltctl", Short: "Look at and change what runs on this WalT server",
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(statusCommand(socket), bootCommand(socket), logsCommand(socket, journalDir))
	for what, about := range map[string]string{
		"start":   "Start a unit and those it needs or wants",
		"stop":    "Stop a unit, and first those that need it",
		"restart": "Restart a unit; its sockets and stored connections stay open",
	} {
		root.AddCommand(changeCommand(socket, what, about))
	}
	for what, about := range map[string]string{"poweroff": "Stop all units and switch off", "reboot": "Stop all units and reboot"} {
		root.AddCommand(&cobra.Command{
			Use: what, Short: about, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				_, err := control.Ask(socket, control.Request{Do: what})
				return err
			},
		})
	}
	return root
}

// Main runs the command and returns its exit status.
func Main(socket, journalDir string, args []string, out, errors io.Writer) int {
	cmd := Command(socket, journalDir)
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(errors)
	ran := false
	for _, c := range cmd.Commands() {
		if run := c.RunE; run != nil {
			c.RunE = func(cmd *cobra.Command, args []string) error { ran = true; return run(cmd, args) }
		}
	}
	err := cmd.Execute()
	if err == nil {
		return 0
	}
	fmt.Fprintf(errors, "waltctl: %v\n", err)
	if !ran {
		return 2
	}
	return 1
}

func printJSON(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

func statusCommand(socket string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "status [UNIT]", Short: "Show the state of the server and of its units", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := control.Ask(socket, control.Request{Do: "status"})
			if err != nil {
				return err
			}
			status := answer.Status
			if len(args) == 1 {
				var only []control.Unit
				for _, u := range status.Units {
					if u.Name == args[0] {
						only = append(only, u)
					}
				}
				if only == nil {
					return unit.ErrUnknown{Name: args[0]}
				}
				status.Units = only
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), status)
			}
			return printStatus(cmd.OutOrStdout(), status, time.Now())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printStatus(out io.Writer, s *control.Status, now time.Time) error {
	fmt.Fprintf(out, "%s: WalT %s, %s, up %s\n", s.Name, s.Version, s.State, age(s.Uptime))
	fmt.Fprintf(out, "configuration: %s\n", s.Configuration)
	if s.Refused != "" {
		fmt.Fprintf(out, "REFUSED configuration:\n  %s\n", strings.ReplaceAll(s.Refused, "\n", "\n  "))
	}
	full := ""
	if s.Data.Full() {
		full = ": FULL, nothing new is stored"
	}
	fmt.Fprintf(out, "data partition: %s free of %s%s\n\n", size(s.Data.Free), size(s.Data.Size), full)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "UNIT\tSTATE\tSINCE\tPID\tRESTARTS\tMEMORY\tREASON")
	for _, u := range s.Units {
		pid := "-"
		if u.PID != 0 {
			pid = fmt.Sprint(u.PID)
		}
		words := u.Reason
		if words == "" {
			words = u.Status
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", u.Name, u.State, age(now.Sub(u.Since)), pid, u.Restarts, size(u.Memory), words)
	}
	return table.Flush()
}

// age prints a duration with its two largest units.
func age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

func size(bytes int64) string {
	switch {
	case bytes == 0:
		return "-"
	case bytes < 10<<20:
		return fmt.Sprintf("%.1fM", float64(bytes)/(1<<20))
	}
	return fmt.Sprintf("%dM", bytes>>20)
}

func changeCommand(socket, what, about string) *cobra.Command {
	return &cobra.Command{
		Use: what + " UNIT", Short: about, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := control.Ask(socket, control.Request{Do: what, Unit: args[0]})
			if err != nil {
				return err
			}
			u := answer.Unit
			good := u.State == unit.Running || u.State == unit.Done
			if what == "stop" {
				good = u.State == unit.Stopped
			}
			if !good {
				return fmt.Errorf("%s is %s: %s", u.Name, u.State, u.Reason)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is %s\n", u.Name, u.State)
			return nil
		},
	}
}

func bootCommand(socket string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "boot", Short: "Show how long each phase and unit took to start", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := control.Ask(socket, control.Request{Do: "boot"})
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), answer.Boot)
			}
			return printBoot(cmd.OutOrStdout(), answer.Boot)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printBoot(out io.Writer, b *control.Boot) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "AT\tTOOK\t  WHAT")
	if len(b.Phases) > 0 {
		fmt.Fprintf(table, "0.00\t%.2f\t  kernel\n", b.Phases[0].Begin.Seconds())
	}
	for _, p := range b.Phases {
		took := "-" // not over, or never noted: the jump into the root
		if p.End > p.Begin {
			took = fmt.Sprintf("%.2f", (p.End - p.Begin).Seconds())
		}
		fmt.Fprintf(table, "%.2f\t%s\t  %s\n", p.Begin.Seconds(), took, p.Name)
	}
	for _, u := range b.Units {
		took := "-"
		if u.Ready != 0 {
			took = fmt.Sprintf("%.2f", (u.Ready - u.Began).Seconds())
		}
		fmt.Fprintf(table, "%.2f\t%s\t  unit %s\n", u.Began.Seconds(), took, u.Name)
	}
	if b.Ready != 0 {
		fmt.Fprintf(table, "%.2f\t\t  all units had a result\n", b.Ready.Seconds())
	}
	return table.Flush()
}

func logsCommand(socket, dir string) *cobra.Command {
	var follow, asJSON bool
	var lines int
	cmd := &cobra.Command{
		Use: "logs [UNIT]", Short: "Show what a unit, the kernel, or all have said", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			show := func(r journal.Record) error { return printRecord(cmd.OutOrStdout(), r, asJSON) }
			if !follow {
				// What the supervisor still holds comes first to the disk; without a supervisor
				// the disk has it all.
				_, _ = control.Ask(socket, control.Request{Do: "flush"})
				return last(dir, name, 0, lines, show)
			}
			return control.Follow(socket, func(first uint64) error {
				return last(dir, name, first, lines, show)
			}, func(r journal.Record) error {
				if name != "" && r.Unit != name {
					return nil
				}
				return show(r)
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	cmd.Flags().IntVarP(&lines, "lines", "n", 100, "how many lines back; 0: all")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one record a line")
	return cmd
}

// last shows the last records of a unit (all units if empty) below a number (0: all).
func last(dir, name string, below uint64, lines int, show func(journal.Record) error) error {
	segments, err := journal.Segments(dir)
	if err != nil {
		return err
	}
	wanted := func(r journal.Record) bool {
		return (name == "" || r.Unit == name) && (below == 0 || r.Number < below)
	}
	if lines <= 0 {
		for _, path := range segments {
			if err := journal.ReadSegment(path, func(r journal.Record) error {
				if wanted(r) {
					return show(r)
				}
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	}
	var kept []journal.Record
	for i := len(segments) - 1; i >= 0 && len(kept) < lines; i-- {
		var here []journal.Record
		if err := journal.ReadSegment(segments[i], func(r journal.Record) error {
			if wanted(r) {
				here = append(here, r)
			}
			return nil
		}); err != nil {
			return err
		}
		kept = append(here, kept...)
	}
	for _, r := range kept[max(0, len(kept)-lines):] {
		if err := show(r); err != nil {
			return err
		}
	}
	return nil
}

func printRecord(out io.Writer, r journal.Record, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(out).Encode(r)
	}
	_, err := fmt.Fprintf(out, "%s %s: %s\n", r.Time().Format("2006-01-02 15:04:05.000"), r.Unit, r.Text)
	return err
}

// Run is Main for the program waltctl itself.
func Run(args []string) int {
	return Main(control.Path, "/var/log/walt/journal", args, os.Stdout, os.Stderr)
}
