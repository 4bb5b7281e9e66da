// Package units holds the units of the appliance; this test loads them.
package units

import (
	"testing"

	"github.com/waltos/waltos/hcl"
)

func TestUnitsOfTheAppliance(t *testing.T) {
	units, err := hcl.LoadUnits(".")
	if err != nil {
		t.Fatal(err)
	}
	if len(units) < 15 {
		t.Errorf("only %d units", len(units))
	}
}
