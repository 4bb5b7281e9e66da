// Package supplies builds the appliance and fetches the tools of the lab, once for all
// tests and benchmarks of a package.
package supplies

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/qemu/provision"
)

var shared struct {
	sync.Once
	*provision.Supplies
	err error
}

// Get returns what a lab needs, or ends the test.
func Get(t testing.TB) *provision.Supplies {
	t.Helper()
	shared.Do(func() {
		// All share the result: it must outlive the context of this one.
		ctx := context.WithoutCancel(t.Context())
		shared.Supplies, shared.err = provision.Get(ctx, provision.Options{Progress: fetch.NewProgress(os.Stderr)})
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.Supplies
}
