package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/waltos/waltos/services/atomicfile"
	"github.com/waltos/waltos/services/daemon/trackexec"
)

// featuresDone is the file, beside a mount, of the features activated in it: their
// commands need not stand being run twice.
const featuresDone = "features.json"

// featureTimeout bounds the command of a feature.
const featureTimeout = time.Minute

// imageSpec is /etc/walt/image.spec (node-protocols 2.5), YAML or JSON.
type imageSpec struct {
	Templates []string          `yaml:"templates"`
	Features  map[string]string `yaml:"features"`
}

type serverSpec struct {
	Features []string `yaml:"features"`
}

// parseSpec reads what the maker of an image wrote.
func parseSpec(text []byte) (spec imageSpec, err error) {
	err = yaml.Unmarshal(text, &spec)
	return spec, err
}

// spec expands the templates of an image, activates its features that the server has
// too, and gives it the server's own specification. All problems are reported.
func (p *preparation) spec(ctx context.Context) error {
	var problems []error
	var server serverSpec
	text, err := os.ReadFile(p.m.config.Spec)
	if err == nil {
		if err := yaml.Unmarshal(text, &server); err != nil {
			problems = append(problems, fmt.Errorf("%s is ignored: %w", p.m.config.Spec, err))
		}
		problems = append(problems, p.write("/etc/walt/server.spec", text, 0o644))
	} else if !errors.Is(err, fs.ErrNotExist) {
		problems = append(problems, err)
	}

	var spec imageSpec
	text, err = p.read("/etc/walt/image.spec")
	if err == nil {
		spec, err = parseSpec(text)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, fmt.Errorf("it is ignored: %w", err))
		}
		return errors.Join(problems...)
	}
	for _, name := range spec.Templates {
		if err := p.template(name); err != nil {
			problems = append(problems, fmt.Errorf("template %s: %w", name, err))
		}
	}
	problems = append(problems, p.features(ctx, spec.Features, server.Features))
	return errors.Join(problems...)
}

// template expands a file in place, from its original in the layers of the image, so
// that it can be expanded again when an address has changed.
func (p *preparation) template(name string) error {
	if !path.IsAbs(name) {
		return errors.New("not an absolute path")
	}
	resolved, err := p.resolve(name, true)
	if err != nil {
		return err
	}
	info, err := p.root.Lstat(resolved)
	if err != nil {
		return err
	}
	text, err := p.original(resolved)
	if err != nil {
		return err
	}
	expanded, err := expand(string(text), p.variables())
	if err != nil {
		return err
	}
	return p.write("/"+resolved, []byte(expanded), info.Mode().Perm())
}

// original reads a file as the layers of the image have it.
func (p *preparation) original(resolved string) ([]byte, error) {
	for _, dir := range p.image.lower {
		layer, err := openRoot(dir)
		if err != nil {
			return nil, err
		}
		text, err := layer.readResolved(resolved, maxText)
		layer.root.Close()
		if !errors.Is(err, fs.ErrNotExist) {
			return text, err
		}
	}
	return nil, fs.ErrNotExist
}

// expand replaces %(name)s, and %% by %, as Python's operator % does with a dict.
func expand(text string, values map[string]string) (string, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "%")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		if rest, ok := strings.CutPrefix(after, "%"); ok {
			b.WriteByte('%')
			text = rest
			continue
		}
		name, rest, ok := strings.Cut(strings.TrimPrefix(after, "("), ")s")
		value, known := values[name]
		if !strings.HasPrefix(after, "(") || !ok || !known {
			return "", fmt.Errorf("a %% that begins no known %%(name)s, before %.20q (a literal one is written %%%%)", after)
		}
		b.WriteString(value)
		text = rest
	}
}

// features runs the commands of the features that image and server both have, once
// for each mount.
func (p *preparation) features(ctx context.Context, image map[string]string, server []string) error {
	donePath := filepath.Join(p.m.folder(p.image.ID), featuresDone)
	var done []string
	if text, err := os.ReadFile(donePath); err == nil {
		if err := json.Unmarshal(text, &done); err != nil {
			return err
		}
	}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(image)) {
		if !slices.Contains(server, name) || slices.Contains(done, name) {
			continue
		}
		if err := runInside(ctx, p.m.mountPoint(p.image.ID), image[name]); err != nil {
			problems = append(problems, fmt.Errorf("feature %s: %w", name, err))
			continue
		}
		done = append(done, name)
		text, err := json.Marshal(done)
		if err == nil {
			err = atomicfile.Write(donePath, text, 0o644)
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// runInside runs a command of an image with the image as its root. It sees no process,
// mount or network of the server.
func runInside(ctx context.Context, root, command string) error {
	ctx, cancel := context.WithTimeout(ctx, featureTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot:     root,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	cmd.WaitDelay = time.Second
	if err := trackexec.RunCommand(ctx, cmd, cmd.Run); err != nil {
		return fmt.Errorf("%w: %.500s", err, strings.TrimSpace(out.String()))
	}
	return nil
}
