package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// programs are our own, compiled for the appliance and for nodes.
type programs struct {
	toolchain  string // as "go1.26.8"
	supervisor []byte
	services   []byte
	installer  []byte
	node       []byte
}

var toolchainLine = regexp.MustCompile(`(?m)^toolchain (go\S+)$`)

// buildPrograms compiles with the toolchain that go.mod names, whatever the host's
// environment says. The Go build cache makes a repeated build quick.
func (b *builder) buildPrograms(ctx context.Context) (*programs, error) {
	module, err := os.ReadFile(filepath.Join(b.Source, "go.mod"))
	if err != nil {
		return nil, err
	}
	match := toolchainLine.FindSubmatch(module)
	if match == nil {
		return nil, errors.New("go.mod has no toolchain line: the version of Go must be pinned")
	}
	p := &programs{toolchain: string(match[1])}
	packages := []struct {
		path string
		into *[]byte
	}{
		{"./supervisor", &p.supervisor}, {"./services", &p.services}, {"./installer", &p.installer}, {"./services/node", &p.node},
	}
	arguments := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", b.scratch + "/"}
	for _, program := range packages {
		arguments = append(arguments, program.path)
	}
	cmd := exec.CommandContext(ctx, "go", arguments...)
	cmd.Dir = b.Source
	cmd.Env = goEnvironment(os.Environ(), p.toolchain)
	var messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &messages, &messages
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("cannot compile our programs: %w\n%s", err, bytes.TrimSpace(messages.Bytes()))
	}
	total := 0
	for _, program := range packages {
		if *program.into, err = os.ReadFile(filepath.Join(b.scratch, filepath.Base(program.path))); err != nil {
			return nil, err
		}
		total += len(*program.into)
	}
	b.Progress.Say("programs: %d MB by %s", total/1e6, p.toolchain)
	return p, nil
}

// goEnvironment keeps of the environment what says where Go's caches and proxies
// are, and fixes all that has an effect on the code.
func goEnvironment(environ []string, toolchain string) []string {
	kept := []string{"GOPROXY", "GONOPROXY", "GOPRIVATE", "GOSUMDB", "GONOSUMDB", "GOMODCACHE", "GOCACHE", "GOPATH", "GOROOT", "GOINSECURE", "GOTMPDIR", "GOAUTH"}
	env := slices.DeleteFunc(slices.Clone(environ), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return strings.HasPrefix(name, "GO") && !slices.Contains(kept, name) || strings.HasPrefix(name, "CGO_")
	})
	return append(env, "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS=-mod=readonly", "GOWORK=off",
		"GOENV=off", "GOTOOLCHAIN="+toolchain)
}
