package machine

import (
	"slices"
	"strings"
	"testing"
)

func TestBoards(t *testing.T) {
	for _, c := range []struct {
		spec Spec
		want []string
	}{
		{Spec{Accelerator: TCG, Serial: true}, []string{"-machine q35,graphics=off", "-cpu max,erms=off,fsrm=off"}},
		{Spec{Accelerator: KVM}, []string{"-machine q35", "-cpu max"}},
		{Spec{Board: ARM64, Accelerator: TCG, Serial: true}, []string{"-machine virt", "-cpu cortex-a72"}},
	} {
		arguments := c.spec.arguments()
		for _, want := range c.want {
			option, value, _ := strings.Cut(want, " ")
			if i := slices.Index(arguments, option); i < 0 || arguments[i+1] != value {
				t.Errorf("%+v: no %s in %q", c.spec, want, arguments)
			}
		}
	}
}
