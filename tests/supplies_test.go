package tests

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/qemu/provision"
)

var supplies struct {
	sync.Once
	*provision.Supplies
	err error
}

// prepare builds the appliance and fetches the lab's tools, once for all tests.
func prepare(t *testing.T) *provision.Supplies {
	t.Helper()
	supplies.Do(func() {
		// All tests share the result: it must outlive the context of this one.
		supplies.Supplies, supplies.err = provision.Get(context.WithoutCancel(t.Context()), provision.Options{Progress: fetch.NewProgress(os.Stderr)})
	})
	if supplies.err != nil {
		t.Fatal(supplies.err)
	}
	return supplies.Supplies
}
