package compose

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Report prints the outputs with their hashes, and the size of each component.
func (r *Result) Report(w io.Writer) error {
	m := r.Manifest
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if !m.Released {
		fmt.Fprintln(out, "NOT THE RELEASED IMAGE: built from a lock override")
	}
	fmt.Fprintf(out, "%s %s, build %.12s, %s, lock %.12s, in %s\n", m.Name, m.Version, m.Build, m.Go, m.Lock, r.Dir)
	if m.Signing.Development {
		fmt.Fprintln(out, "signed by local development keys: for trials only; see `image keys`")
	}
	fmt.Fprintf(out, "release key %s, Secure Boot certificate %.16s\n", strings.Join(m.Signing.Releases, ", before "), m.Signing.Certificate)
	for _, name := range slices.Sorted(maps.Keys(m.Outputs)) {
		fmt.Fprintf(out, "%s\t%s\t%s\n", name, megabytes(m.Outputs[name].Size), m.Outputs[name].SHA256)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Sizes)) {
		fmt.Fprintf(out, "  %s\t%s\n", name, megabytes(m.Sizes[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(m.Nodes)) {
		fmt.Fprintf(out, "image of nodes %s, for %s", name, m.Nodes[name])
		if m.Nodes[name] != m.Architecture {
			fmt.Fprintf(out, "; none is for %s: virtual nodes of this appliance need an image of your own", m.Architecture)
		}
		fmt.Fprintln(out)
	}
	largest := slices.SortedFunc(maps.Keys(m.Content), func(a, b string) int {
		return cmp.Or(cmp.Compare(m.Content[b], m.Content[a]), cmp.Compare(a, b))
	})
	fmt.Fprintf(out, "largest of %d origins in the root, all in %s:\n", len(largest), manifestName)
	for _, origin := range largest[:min(len(largest), shown)] {
		fmt.Fprintf(out, "  %s\t%s\n", origin, megabytes(m.Content[origin]))
	}
	return out.Flush()
}

// shown is how many origins the report lists.
const shown = 12

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
