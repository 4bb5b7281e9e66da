// Package analyse is the command walt-server-trackexec-analyse: it prints a table of the
// operations of an execution trace that took longest, or were most frequent, or, for one of
// them, its slowest occurrences (server-state §5.8).
//
// Its options are those of upstream, where the ID of a file of sources has become that of an
// operation, as the table shows it. Durations include those of what an operation waited for.
package analyse

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/waltos/waltos/services/daemon/trackexec/command"
	"github.com/waltos/waltos/services/daemon/trackexec/timeline"
)

// Name is that of the command.
const Name = "walt-server-trackexec-analyse"

// usualItems is how many lines a table has.
const usualItems = 20

// options are what the command is asked.
type options struct {
	items  int
	column string
	id     string
	json   bool
}

// Main runs the command and returns its exit status: 0, 1 after an error, 2 if its arguments
// are wrong.
func Main(ctx context.Context, args []string) int {
	return run(ctx, args, os.Stdout, os.Stderr)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	cmd := &cobra.Command{
		Use:   Name + " [OPTIONS] DIR",
		Short: "Show the slowest operations of an execution trace of the WalT daemon",
		Long: "Show the slowest operations of the execution trace in DIR: that of a process, or of all\n" +
			"processes of a run, such as /var/log/walt/trackexec/latest.",
		Args: func(cmd *cobra.Command, args []string) error { return check(cmd, args, &o) },
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := timeline.Open(args[0], func(format string, args ...any) { fmt.Fprintf(stderr, format+"\n", args...) })
			if err != nil {
				return err
			}
			return o.analyse(t, stdout)
		},
	}
	cmd.Flags().IntVar(&o.items, "num-items", usualItems, "number of `N` lines of the table")
	cmd.Flags().StringVar(&o.column, "sort-column", string(byCumulated), "what to sort by: cumulated-runtime, average-runtime or frequency")
	cmd.Flags().StringVar(&o.id, "file-id", "", "show the slowest occurrences of the operation with this `ID`")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return command.Run(ctx, cmd, args, stdout, stderr)
}

// check refuses arguments that make no sense.
func check(cmd *cobra.Command, args []string, o *options) error {
	if err := cobra.ExactArgs(1)(cmd, args); err != nil {
		return err
	}
	if o.items < 1 {
		return errors.New("--num-items must be at least 1")
	}
	if !slices.Contains(columns, column(o.column)) {
		return fmt.Errorf("--sort-column must be one of %v", columns)
	}
	if cmd.Flags().Changed("file-id") && (cmd.Flags().Changed("num-items") || cmd.Flags().Changed("sort-column")) {
		return errors.New("--file-id excludes --num-items and --sort-column")
	}
	return nil
}

func (o *options) analyse(t *timeline.Timeline, w io.Writer) error {
	if o.id != "" {
		k, list, found := slowest(t, o.id, usualItems)
		if !found {
			return fmt.Errorf("no operation of this trace has ID %q", o.id)
		}
		if o.json {
			return printOccurrencesJSON(w, k, list)
		}
		return printOccurrences(w, k, list)
	}
	r := summarise(t)
	list := r.greatest(column(o.column), o.items)
	if o.json {
		return printJSON(w, list)
	}
	return r.print(w, t, list)
}

// milliseconds shows a duration.
func milliseconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()*1e3) }

func (r *report) print(w io.Writer, t *timeline.Timeline, list []*operation) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "ID\tCUMULATED ms\tAVERAGE ms\tLONGEST ms\tCOUNT\tFAILED\tPROCESS\tKIND\tNAME")
	for _, o := range list {
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%v\t%s\n", o.id(), milliseconds(o.cumulated), milliseconds(o.average()),
			milliseconds(o.longest), o.count, o.failed, o.process, o.kind, timeline.Printable(o.name))
	}
	if err := out.Flush(); err != nil {
		return err
	}
	var err error
	say := func(format string, args ...any) {
		_, printed := fmt.Fprintf(w, format+"\n", args...)
		err = cmp.Or(err, printed)
	}
	if first, last, any := t.Span(); any {
		span := time.Duration(last - first)
		say("\n%d operations in %v", len(r.operations), span.Round(time.Millisecond))
		for _, process := range slices.Sorted(maps.Keys(r.idle)) {
			say("%s was idle for %v (%.1f %%)", process, r.idle[process].Round(time.Millisecond), 100*r.idle[process].Seconds()/max(span.Seconds(), 1e-9))
		}
	}
	if r.lost > 0 {
		say("%d events came too fast to be recorded", r.lost)
	}
	return err
}

// jsonOperation is an operation in JSON; durations are in seconds.
type jsonOperation struct {
	ID        string  `json:"id"`
	Process   string  `json:"process"`
	Kind      string  `json:"kind"`
	Name      string  `json:"name"`
	Count     int     `json:"count"`
	Failed    int     `json:"failed"`
	Cumulated float64 `json:"cumulated_runtime"`
	Average   float64 `json:"average_runtime"`
	Longest   float64 `json:"longest_runtime"`
}

func printJSON(w io.Writer, list []*operation) error {
	all := []jsonOperation{}
	for _, o := range list {
		all = append(all, jsonOperation{o.id(), o.process, o.kind.String(), o.name, o.count, o.failed,
			o.cumulated.Seconds(), o.average().Seconds(), o.longest.Seconds()})
	}
	return json.NewEncoder(w).Encode(all)
}

func printOccurrences(w io.Writer, k key, list []timeline.Event) error {
	fmt.Fprintf(w, "%s: %v %s\n\n", k.process, k.kind, timeline.Printable(k.name))
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "BEGAN\tDURATION ms\tOUTCOME\tNUMBER\tDETAIL")
	for i := range list {
		e := &list[i]
		number := ""
		if e.Number >= 0 {
			number = fmt.Sprint(e.Number)
		}
		detail := strings.TrimSpace(e.Detail + " " + e.Failure)
		fmt.Fprintf(out, "%s\t%s\t%v\t%s\t%s\n", time.Unix(0, e.Start).Format("2006-01-02 15:04:05.000000"),
			milliseconds(time.Duration(e.Duration)), e.State, number, timeline.Printable(detail))
	}
	return out.Flush()
}

// jsonOccurrence is one occurrence of an operation in JSON.
type jsonOccurrence struct {
	Process  string    `json:"process"`
	Kind     string    `json:"kind"`
	Name     string    `json:"name"`
	Began    time.Time `json:"began"`
	Duration float64   `json:"duration"`
	State    string    `json:"state"`
	Number   *int64    `json:"number,omitempty"`
	Detail   string    `json:"detail,omitempty"`
	Failure  string    `json:"failure,omitempty"`
}

func printOccurrencesJSON(w io.Writer, k key, list []timeline.Event) error {
	all := []jsonOccurrence{}
	for i := range list {
		e := &list[i]
		o := jsonOccurrence{k.process, k.kind.String(), k.name, time.Unix(0, e.Start), time.Duration(e.Duration).Seconds(), e.State.String(), nil, e.Detail, e.Failure}
		if e.Number >= 0 {
			o.Number = &e.Number
		}
		all = append(all, o)
	}
	return json.NewEncoder(w).Encode(all)
}
