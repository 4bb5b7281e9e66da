package tests

import (
	"os/exec"
	"strings"
	"testing"
)

// The whole tree is formatted, vetted and clean for staticcheck.
func TestStyle(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
	}{
		{"gofmt", []string{"gofmt", "-l", "."}},
		{"vet", []string{"go", "vet", "./..."}},
		{"staticcheck", []string{"go", "tool", "staticcheck", "./..."}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), c.args[0], c.args[1:]...)
			cmd.Dir = ".."
			out, err := cmd.CombinedOutput()
			if err != nil || strings.TrimSpace(string(out)) != "" {
				t.Errorf("%s: %v\n%s", strings.Join(c.args, " "), err, out)
			}
		})
	}
}
