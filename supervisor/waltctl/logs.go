package waltctl

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/waltos/waltos/supervisor/console"
	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/supervisor/crash"
	"github.com/waltos/waltos/supervisor/journal"
	"github.com/waltos/waltos/supervisor/unit"
)

// selection is which records are shown.
type selection struct {
	query   journal.Query
	pattern *regexp.Regexp
	urgency int    // this urgent or more
	below   uint64 // only records with a smaller number; 0: all
}

func (s *selection) wants(r journal.Record) bool { return s.query.Wants(r) && s.shows(r) }

// shows is what the query does not tell.
func (s *selection) shows(r journal.Record) bool {
	return r.Urgency() <= s.urgency && (s.below == 0 || r.Number < s.below) && (s.pattern == nil || s.pattern.MatchString(r.Text))
}

// standardLines is how many lines are shown of a journal that nothing bounds.
const standardLines = 100

func (t *Tool) logsCommand() *cobra.Command {
	var follow, boots bool
	var lines int
	var since, until, boot, grep, priority string
	cmd := &cobra.Command{
		Use: "logs [UNIT...]", Short: "Show what units and the kernel have said",
		Long: `logs shows the last lines that units have said, of all of them unless some are named. The kernel is
the unit "kernel", PID 1 is "supervisor".

TIME is a duration such as 90s, 10m, 2h or 3d before now, or 15:04, 2006-01-02, "2006-01-02 15:04:05".
BOOT is the number that --boots lists, or 0 for this boot, -1 for the one before.`,
		ValidArgsFunction: t.completeUnits,
		RunE: func(cmd *cobra.Command, units []string) error {
			s := &selection{query: journal.Query{Units: units}, urgency: len(journal.Priorities)}
			var err error
			now := time.Now()
			if s.query.Since, err = moment(since, now); err != nil {
				return err
			}
			if s.query.Until, err = moment(until, now); err != nil {
				return err
			}
			if priority != "" {
				if s.urgency = slices.Index(journal.Priorities, priority); s.urgency < 0 {
					return fmt.Errorf("no priority is named %q; write one of %s", priority, strings.Join(journal.Priorities, ", "))
				}
			}
			if grep != "" {
				if s.pattern, err = regexp.Compile(grep); err != nil {
					return fmt.Errorf("cannot search: %w", err)
				}
			}
			// What the supervisor still holds comes first to the disk; without a supervisor
			// the disk has it all.
			if err := t.Client.Flush(cmd.Context()); err != nil && !errors.Is(err, control.ErrUnreachable) {
				return err
			}
			if boots {
				return t.printBoots()
			}
			if boot != "" {
				if s.query.Boot, err = t.bootNumber(boot); err != nil {
					return err
				}
			}
			if !cmd.Flags().Changed("lines") && (since != "" || boot != "") {
				lines = 0
			}
			if !follow {
				found := false
				err := t.last(s, lines, func(r journal.Record) error { found = true; return t.printRecord(r) })
				if err == nil && !found {
					err = t.knows(cmd.Context(), units)
				}
				return err
			}
			return t.Client.Follow(cmd.Context(), func(first uint64) error {
				s.below = first
				defer func() { s.below = 0 }()
				return t.last(s, lines, t.printRecord)
			}, func(r journal.Record) error {
				if !s.wants(r) {
					return nil
				}
				return t.printRecord(r)
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	flags.IntVarP(&lines, "lines", "n", standardLines, "how many lines back; 0: all, as with --since and --boot")
	flags.StringVar(&since, "since", "", "only from that `TIME` on")
	flags.StringVar(&until, "until", "", "only up to that `TIME`")
	flags.StringVarP(&boot, "boot", "b", "", "only of a `BOOT`; without a value of this one")
	flags.Lookup("boot").NoOptDefVal = "0"
	flags.BoolVar(&boots, "boots", false, "list the boots that the journal knows")
	flags.StringVarP(&grep, "grep", "g", "", "only lines with a match of that regular `EXPRESSION`")
	flags.StringVarP(&priority, "priority", "p", "", "only that `PRIORITY` or more urgent: "+strings.Join(journal.Priorities, ", "))
	_ = cmd.RegisterFlagCompletionFunc("priority", cobra.FixedCompletions(journal.Priorities, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// knows refuses names that no unit has: whoever has mistyped one would believe that it is silent.
func (t *Tool) knows(ctx context.Context, names []string) error {
	status, err := t.Client.Status(ctx)
	if err != nil {
		return nil // nobody to ask
	}
	known := []string{"kernel", "supervisor", crash.Unit}
	for _, u := range status.Units {
		known = append(known, u.Name)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return unit.ErrUnknown{Name: name}
		}
	}
	return nil
}

// moment reads a time before now.
func moment(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly, time.RFC3339} {
		if at, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return at, nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if at, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			year, month, day := now.Date()
			return time.Date(year, month, day, at.Hour(), at.Minute(), at.Second(), 0, now.Location()), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time; write 10m, 3d, 15:04 or \"2006-01-02 15:04:05\"", text)
}

// last shows the last records of a selection, as many as lines (0: all).
func (t *Tool) last(s *selection, lines int, show func(journal.Record) error) error {
	q := s.query
	q.Lines, q.Wanted = lines, s.shows
	return journal.Last(t.Journal, q, show)
}

func (t *Tool) printBoots() error {
	boots, err := journal.Boots(t.Journal)
	if err != nil {
		return err
	}
	if t.asJSON {
		return t.print(boots)
	}
	list := &table{right: []bool{true, false, false, true}}
	list.add(plain("BOOT", "FIRST LINE", "LAST LINE", "LINES"))
	for _, b := range boots {
		list.add(plain(fmt.Sprint(b.Number), b.First.Format(time.DateTime), b.Last.Format(time.DateTime), fmt.Sprint(b.Lines)))
	}
	return list.write(t.Out, t.Color)
}

// bootNumber reads what --boot was given.
func (t *Tool) bootNumber(text string) (uint64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no boot; write a number that --boots lists, or 0, -1, …", text)
	}
	boots, err := journal.Boots(t.Journal)
	if err != nil {
		return 0, err
	}
	if n <= 0 {
		if i := int64(len(boots)) - 1 + n; i >= 0 {
			return boots[i].Number, nil
		}
	} else if slices.ContainsFunc(boots, func(b journal.Boot) bool { return b.Number == uint64(n) }) {
		return uint64(n), nil
	}
	return 0, fmt.Errorf("the journal does not go back to boot %s; --boots lists those it has", text)
}

func (t *Tool) printRecord(r journal.Record) error {
	if t.asJSON {
		return t.printLine(r)
	}
	_, err := fmt.Fprintln(t.Out, t.record(r))
	return err
}

// record is a record as a line. What a terminal would obey is made harmless.
func (t *Tool) record(r journal.Record) string {
	color := ""
	switch u := r.Urgency(); {
	case u <= 3:
		color = red
	case u == 4:
		color = yellow
	case u == 7:
		color = faint
	}
	return fmt.Sprintf("%s %s: %s", r.Time().Format("2006-01-02 15:04:05.000"), r.Unit, paint(console.Clean(r.Text), color, t.Color))
}
