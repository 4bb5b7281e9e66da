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
		// Of these two, one follows the kernel's events only, and a long recovery of the other must not be ended.
		if silent := u.Name == "walt-server-netconfig" || u.Name == "postgresql"; u.Ready != nil && u.Ready.Notify && u.Alive == nil && !silent {
			t.Errorf("%s has no proof of life: whoever can say READY=1 can say WATCHDOG=1", u.Name)
		}
		if err := sandbox.Check(u); err != nil {
			t.Errorf("%s: %v", u.Name, err)
		}
	}
}
