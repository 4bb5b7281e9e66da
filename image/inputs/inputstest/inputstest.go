// Package inputstest gives tests the foreign programs that judge formats.
package inputstest

import (
	"path/filepath"
	"testing"

	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/inputs"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/image/toolbox"
)

// Tools opens a tool set of the lock, as "build", for a test of a package beside
// image/appliance.hcl.
func Tools(tb testing.TB, name string) *toolbox.Toolbox {
	tb.Helper()
	if testing.Short() {
		tb.Skip("downloads packages; not with -short")
	}
	in, err := inputs.Open(inputs.Options{
		Appliance: filepath.Join("..", "appliance.hcl"), Override: true, Progress: fetch.NewProgress(tb.Output()),
	})
	if err != nil {
		tb.Fatal(err)
	}
	set := lock.ToolSet(name)
	if err := in.Ensure(tb.Context(), set); err != nil {
		tb.Fatal(err)
	}
	box, err := in.Toolbox(tb.Context(), set)
	if err != nil {
		tb.Fatal(err)
	}
	return box
}
