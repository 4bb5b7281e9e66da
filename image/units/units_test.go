// Package units holds the units of the appliance; this test loads them.
package units

import (
	"testing"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/supervisor/sandbox"
)

func TestUnitsOfTheAppliance(t *testing.T) {
	units, err := hcl.LoadUnits(".")
	if err != nil {
		t.Fatal(err)
	}
	if len(units) < 15 {
		t.Errorf("only %d units", len(units))
	}
	for _, u := range units {
		if u.Sandbox == nil && u.Type != "group" {
			t.Errorf("%s has no sandbox; give it one, or say in it why it is unconfined", u.Name)
		}
		if err := sandbox.Check(u); err != nil {
			t.Errorf("%s: %v", u.Name, err)
		}
	}
}
