package compose

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChanges(t *testing.T) {
	got := changes(options("quiet console=tty0 console=ttyS0 panic=10"), options("console=tty0 console=ttyS1 panic=10 ro"))
	want := []Change{{"console (2)", "ttyS0", "ttyS1"}, {"quiet", "set", ""}, {"ro", "", "set"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	d := &Diff{Options: got}
	var out bytes.Buffer
	if err := d.Report(&out); err != nil {
		t.Fatal(err)
	}
	const text = "packages: no change\nunits: no change\nkernel options: 3 changed\n" +
		"  console (2)  ttyS0  -> ttyS1\n  quiet        set    -> -\n  ro           -      -> set\nsizes: no change\nfiles: no change\n"
	if got := out.String(); got != text {
		t.Errorf("got\n%s", got)
	}
}

// A build does not differ from itself: the roots are read as a whole.
func TestDiffWithItself(t *testing.T) {
	result, in := built(t)
	d, err := DiffBuilds(t.Context(), Options{Inputs: in}, result.Dir, result.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if !d.Empty() {
		t.Errorf("%+v", d)
	}
}
