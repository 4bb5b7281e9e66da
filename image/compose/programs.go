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
	architecture, nodes := b.Inputs.Appliance.Debian.Architecture, b.Inputs.Native.Appliance.Debian.Architecture
	packages := []struct {
		path, architecture string
		into               *[]byte
	}{
		{"./supervisor", architecture, &p.supervisor}, {"./services", architecture, &p.services},
		{"./installer", architecture, &p.installer}, {"./services/node", nodes, &p.node},
	}
	paths := map[string][]string{}
	for _, program := range packages {
		paths[program.architecture] = append(paths[program.architecture], program.path)
	}
	b.Progress.Say("compiling %d programs by %s", len(packages), p.toolchain)
	for architecture, paths := range paths {
		if err := b.compile(ctx, p.toolchain, architecture, paths); err != nil {
			return nil, err
		}
	}
	total := 0
	for _, program := range packages {
		if *program.into, err = os.ReadFile(filepath.Join(b.scratch, filepath.Base(program.path))); err != nil {
			return nil, err
		}
		total += len(*program.into)
	}
	b.Progress.Say("programs: %d MB", total/1e6)
	return p, nil
}

// compile puts programs into the scratch folder, under the last words of their paths.
func (b *builder) compile(ctx context.Context, toolchain, architecture string, paths []string) error {
	arguments := append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", b.scratch + "/"}, paths...)
	cmd := exec.CommandContext(ctx, "go", arguments...)
	cmd.Dir = b.Source
	cmd.Env = goEnvironment(os.Environ(), toolchain, architecture)
	var messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &messages, &messages
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("cannot compile our programs for %s: %w\n%s", architecture, err, bytes.TrimSpace(messages.Bytes()))
	}
	return nil
}

// goEnvironment keeps of the environment what says where Go's caches and proxies
// are, and fixes all that has an effect on the code. Go calls our architectures as Debian does.
func goEnvironment(environ []string, toolchain, architecture string) []string {
	kept := []string{"GOPROXY", "GONOPROXY", "GOPRIVATE", "GOSUMDB", "GONOSUMDB", "GOMODCACHE", "GOCACHE", "GOPATH", "GOROOT", "GOINSECURE", "GOTMPDIR", "GOAUTH"}
	env := slices.DeleteFunc(slices.Clone(environ), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return strings.HasPrefix(name, "GO") && !slices.Contains(kept, name) || strings.HasPrefix(name, "CGO_")
	})
	return append(env, "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=-mod=readonly", "GOWORK=off",
		"GOENV=off", "GOTOOLCHAIN="+toolchain)
}
