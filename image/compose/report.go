package compose

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

// Report prints the outputs with their hashes, and the size of each component.
func (r *Result) Report(w io.Writer) error {
	m := r.Manifest
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if !m.Released {
		fmt.Fprintln(out, "NOT THE RELEASED IMAGE: built from a lock override")
	}
	fmt.Fprintf(out, "%s %s, %s, lock %.12s, in %s\n", m.Name, m.Version, m.Go, m.Lock, r.Dir)
	for _, name := range slices.Sorted(maps.Keys(m.Outputs)) {
		fmt.Fprintf(out, "%s\t%s\t%s\n", name, megabytes(m.Outputs[name].Size), m.Outputs[name].SHA256)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Sizes)) {
		fmt.Fprintf(out, "  %s\t%s\n", name, megabytes(m.Sizes[name]))
	}
	return out.Flush()
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
