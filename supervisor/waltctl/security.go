package waltctl

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/waltos/waltos/supervisor/console"
	"github.com/waltos/waltos/supervisor/sandbox/seccomp"
	"github.com/waltos/waltos/supervisor/security"
	"github.com/waltos/waltos/supervisor/unit"
)

func (t *Tool) securityCommand() *cobra.Command {
	var groups bool
	cmd := &cobra.Command{
		Use: "security [UNIT]", Short: "Show what units can still do, and why", Args: cobra.MaximumNArgs(1),
		Long: `security shows what each unit can do to the machine, or all of one unit with the attribute of
its file that gives it. The kernel is asked what the main process of the unit really can
do; where that is more than the file declares, it is told and the exit code is 1.`,
		ValidArgsFunction: t.completeUnits,
		RunE: func(cmd *cobra.Command, args []string) error {
			if groups {
				text, err := seccomp.Groups()
				if err == nil {
					_, err = io.WriteString(t.Out, text)
				}
				return err
			}
			reports, err := t.Client.Security(cmd.Context())
			if err != nil {
				return err
			}
			if len(args) == 1 {
				i := slices.IndexFunc(reports, func(r security.Report) bool { return r.Unit == args[0] })
				if i < 0 {
					return unit.ErrUnknown{Name: args[0]}
				}
				reports = reports[i : i+1]
			}
			switch {
			case t.asJSON:
				err = t.print(reports)
			case len(args) == 1:
				err = t.printSecurity(reports[0])
			default:
				err = t.printSecurities(reports)
			}
			if err != nil {
				return err
			}
			return differences(reports)
		},
	}
	cmd.Flags().BoolVar(&groups, "groups", false, "list the groups of system calls that unit files name")
	return cmd
}

// differences is an error if there are any.
func differences(reports []security.Report) error {
	var units []string
	for _, r := range reports {
		if len(r.Differs) > 0 {
			units = append(units, r.Unit)
		}
	}
	if units == nil {
		return nil
	}
	return fmt.Errorf("more is possible than declared: %s", strings.Join(units, ", "))
}

// printSecurities writes a line a unit.
func (t *Tool) printSecurities(reports []security.Report) error {
	list := &table{}
	list.add(plain("UNIT", "USER", "CAPABILITIES", "NETWORK", "WRITES", "SYSTEM CALLS", ""))
	for _, r := range reports {
		can := map[string]string{}
		for _, a := range r.Aspects {
			can[a.Name] = a.Can
		}
		capabilities := short(strings.ReplaceAll(strings.ToLower(can["capabilities"]), "cap_", ""))
		network := cmp.Or(map[string]string{"the machine's": "machine", "its own loopback": "none"}[can["network"]], can["network"])
		row := plain(r.Unit, can["user"], capabilities, network, short(can["writes"]+" "+can["mounts"]), can["system calls"], "")
		end := &row[len(row)-1]
		switch {
		case len(r.Differs) > 0:
			*end = cell{"DIFFERS: " + strings.Join(r.Differs, "; "), red}
		case r.Reason != "":
			row[4].text = "what its user may"
			*end = cell{"not confined", yellow} // the reason is long
		case r.PID == 0:
			*end = cell{"not running", faint}
		}
		list.add(row)
	}
	if err := list.write(t.Out, t.Color); err != nil {
		return err
	}
	_, err := fmt.Fprintln(t.Out, "\nAll of a unit, and what gives it: waltctl security UNIT")
	return err
}

// short is a list that fits into a table.
func short(list string) string {
	const most = 2
	fields := strings.Fields(list)
	if len(fields) > most {
		return strings.Join(fields[:most], " ") + fmt.Sprintf(" and %d more", len(fields)-most)
	}
	return strings.Join(fields, " ")
}

func (t *Tool) printSecurity(r security.Report) error {
	how := "confined"
	if r.Reason != "" {
		how = paint("not confined", yellow, t.Color) + ": " + console.Clean(r.Reason)
	}
	if r.PID == 0 {
		how += "; not running, as declared"
	} else {
		how += fmt.Sprintf("; as process %d has it", r.PID)
	}
	fmt.Fprintf(t.Out, "%s: %s\n", paint(r.Unit, bold, t.Color), how)
	list := &table{}
	list.add(plain("  ASPECT", "CAN", "BY"))
	for _, a := range r.Aspects {
		list.add(plain("  "+a.Name, console.Clean(a.Can), a.Why))
	}
	if err := list.write(t.Out, t.Color); err != nil {
		return err
	}
	for _, d := range r.Differs {
		fmt.Fprintf(t.Out, "%s: %s\n", paint("DIFFERS", red, t.Color), d)
	}
	for _, refused := range r.Refused {
		fmt.Fprintf(t.Out, "refused: %s of %s, %d times\n", refused.Call, console.Clean(refused.Command), refused.Count)
	}
	return nil
}
