package waltctl

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/waltos/waltos/supervisor/console"
	"github.com/waltos/waltos/supervisor/watchdog"
)

func (t *Tool) watchdogCommand() *cobra.Command {
	return &cobra.Command{
		Use: "watchdog [on|off]", Short: "Show whether a machine that fails is reset; off prevents that until the next boot",
		Args: cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs), ValidArgs: []string{"on", "off"},
		RunE: func(cmd *cobra.Command, args []string) error {
			var now watchdog.Status
			if len(args) == 1 {
				var err error
				if now, err = t.Client.Watchdog(cmd.Context(), args[0]); err != nil {
					return err
				}
			} else {
				status, err := t.Client.Status(cmd.Context())
				if err != nil {
					return err
				}
				now = status.Watchdog
			}
			if t.asJSON {
				return t.print(now)
			}
			t.printWatchdog(now)
			return nil
		},
	}
}

// printWatchdog writes a line; nothing of a supervisor that tells nothing.
func (t *Tool) printWatchdog(s watchdog.Status) {
	device := fmt.Sprintf("%s, %v", console.Clean(s.Device), s.Timeout)
	var text string
	switch s.State {
	case watchdog.Absent:
		text = "none on this machine"
	case watchdog.Off:
		text = "disabled by the site file"
	case watchdog.Suspended:
		text = paint("off by request", red, t.Color) + ", until the next boot"
	case watchdog.Armed:
		text = paint("on", green, t.Color) + " (" + device + ")"
	case watchdog.Grace:
		text = fmt.Sprintf("on (%s); %s unless this ends within %v: %s", device, paint("reset", red, t.Color), s.Left.Round(time.Second), console.Clean(s.Why))
	case watchdog.Starving:
		text = fmt.Sprintf("on (%s); %s: %s", device, paint("RESET at any moment", red, t.Color), console.Clean(s.Why))
	case watchdog.Ending:
		text = "the machine is ending"
	default:
		return
	}
	if s.Trouble != "" {
		text += "; " + console.Clean(s.Trouble)
	}
	fmt.Fprintf(t.Out, "watchdog: %s\n", text)
}
