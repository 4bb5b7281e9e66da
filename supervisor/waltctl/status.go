package waltctl

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/waltos/waltos/supervisor/console"
	"github.com/waltos/waltos/supervisor/control"
)

func (t *Tool) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status [UNIT]", Short: "Show the state of the server and of its units, or all of one unit", Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: t.completeUnits,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				detail, err := t.Client.Unit(cmd.Context(), args[0])
				switch {
				case err != nil:
					return err
				case t.asJSON:
					return t.print(detail)
				}
				return t.printDetail(detail, time.Now())
			}
			status, err := t.Client.Status(cmd.Context())
			switch {
			case err != nil:
				return err
			case t.asJSON:
				return t.print(status)
			}
			return t.printStatus(status, time.Now())
		},
	}
}

func (t *Tool) printStatus(s control.Status, now time.Time) error {
	state := map[string]string{"ready": green, "degraded": red}[s.State]
	fmt.Fprintf(t.Out, "%s: WalT %s, %s, up %s\n", paint(s.Name, bold, t.Color), s.Version, paint(s.State, state, t.Color), age(s.Uptime))
	fmt.Fprintf(t.Out, "configuration: %s\n", s.Configuration)
	if s.Refused != "" {
		fmt.Fprintf(t.Out, "%s configuration:\n  %s\n", paint("REFUSED", red, t.Color), strings.ReplaceAll(s.Refused, "\n", "\n  "))
	}
	full := ""
	if s.Data.Full() {
		full = ": " + paint("FULL", red, t.Color) + ", nothing new is stored"
	}
	fmt.Fprintf(t.Out, "data partition: %s free of %s%s\n", size(s.Data.Free), size(s.Data.Size), full)
	synchronised := "synchronised"
	if !s.Clock.Synchronised {
		synchronised = "not synchronised"
	}
	fmt.Fprintf(t.Out, "clock: %s, %s\n", s.Clock.Now.Format("2006-01-02 15:04:05 MST"), synchronised)
	fmt.Fprintf(t.Out, "slot: %s; Secure Boot: %s\n", s.Slot, cmp.Or(s.SecureBoot, "unknown"))
	t.printWatchdog(s.Watchdog)
	fmt.Fprintln(t.Out)
	list := &table{}
	list.add(plain("UNIT", "STATE", "SINCE", "PID", "RESTARTS", "MEMORY", "REASON"))
	for _, u := range s.Units {
		pid := "-"
		if u.PID != 0 {
			pid = fmt.Sprint(u.PID)
		}
		row := plain(u.Name, string(u.State), age(now.Sub(u.Since)), pid, fmt.Sprint(u.Restarts), size(u.Memory), words(u))
		row[1].color = stateColor(u.State)
		list.add(row)
	}
	return list.write(t.Out, t.Color)
}

// words is why a unit is in its state, or else what it says of itself.
func words(u control.Unit) string {
	why := cmp.Or(u.Reason, u.Status)
	if !u.Next.IsZero() {
		next := "next run at " + u.Next.Format("2006-01-02 15:04")
		if why == "" {
			return next
		}
		why = next + "; " + why
	}
	return console.Clean(why)
}

func (t *Tool) printDetail(d control.Detail, now time.Time) error {
	fmt.Fprintf(t.Out, "%s: %s\n", paint(d.Name, bold, t.Color), d.Description)
	list := &table{}
	line := func(name, format string, args ...any) {
		if text := fmt.Sprintf(format, args...); text != "" {
			list.add(plain("  "+name, console.Clean(text)))
		}
	}
	state := fmt.Sprintf("%s since %s (%s)", d.State, d.Since.Format("2006-01-02 15:04:05"), age(now.Sub(d.Since)))
	list.add([]cell{{text: "  state"}, {text: state, color: stateColor(d.State)}})
	line("reason", "%s", d.Reason)
	line("says", "%s", d.Status)
	if !d.Next.IsZero() {
		line("next run", "%s", d.Next.Format("2006-01-02 15:04:05"))
	}
	if d.Restarts > 0 {
		line("restarts", "%d", d.Restarts)
	}
	line("needs", "%s", strings.Join(d.Dependencies.Needs, " "))
	line("wants", "%s", strings.Join(d.Dependencies.Wants, " "))
	line("binds", "%s", strings.Join(d.Dependencies.Binds, " "))
	line("after", "%s", strings.Join(d.Dependencies.After, " "))
	if d.Stored > 0 {
		line("stored", "%d descriptors", d.Stored)
	}
	usage := d.Usage
	line("memory", "%s, at most %s so far, %s", size(usage.Memory), size(usage.MemoryPeak), limit(usage.MemoryLimit, size))
	line("tasks", "%d, %s", usage.Tasks, limit(usage.TasksLimit, func(n int64) string { return fmt.Sprint(n) }))
	line("cpu", "%.2f s", usage.CPU.Seconds())
	if usage.OOMKills > 0 {
		line("killed", "%d processes for want of memory", usage.OOMKills)
	}
	if err := list.write(t.Out, t.Color); err != nil {
		return err
	}
	if len(usage.Processes) > 0 {
		fmt.Fprintln(t.Out, "\nprocesses")
		tree := &table{right: []bool{true, true}}
		for _, p := range usage.Processes {
			tree.add(plain("  "+fmt.Sprint(p.PID), size(p.Memory), strings.Repeat("  ", p.Depth)+console.Clean(p.Command)))
		}
		if err := tree.write(t.Out, false); err != nil {
			return err
		}
	}
	if len(d.Events) > 0 {
		fmt.Fprintln(t.Out, "\nevents")
		for _, e := range d.Events {
			fmt.Fprintln(t.Out, "  "+t.event(e))
		}
	}
	if len(d.Log) > 0 {
		fmt.Fprintln(t.Out, "\nlast lines")
		for _, r := range d.Log {
			fmt.Fprintln(t.Out, "  "+t.record(r))
		}
	}
	return nil
}

func limit(n int64, format func(int64) string) string {
	if n == 0 {
		return "no limit"
	}
	return "limit " + format(n)
}
