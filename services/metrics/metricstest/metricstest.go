// Package metricstest looks at what a process counts, for tests of those who count.
package metricstest

import (
	"slices"

	"github.com/waltos/waltos/services/metrics"
)

// Number returns the present number of a series, that with these labels; 0 if there is none.
func Number(set *metrics.Set, name string, labels ...string) float64 {
	for _, f := range set.Collect() {
		for _, s := range f.Samples {
			if f.Name+s.Suffix == name && slices.Equal(s.Labels, labels) {
				return s.Value
			}
		}
	}
	return 0
}
