// Package provision gets ready what a lab is made of: the appliance, built from the
// sources, and the foreign programs and files, fetched by the lock: QEMU, firmware, the
// PXE ROM, and the walt client with its Python. Nothing of the host is used but Go.
//
// Where the mirror and the snapshot archive have lost locked packages, a lab goes on
// with newer ones, and says so loudly: what it runs is then not the released image.
package provision

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/waltos/waltos/image/compose"
	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/inputs"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/qemu/client"
	"github.com/waltos/waltos/qemu/machine"
	"github.com/waltos/waltos/qemu/platform"
)

// Options say where things are; the zero value is right within the repository.
type Options struct {
	Source   string // top folder of the module; default: the one around the working directory
	Cache    string // see package fetch
	Mirror   string
	Output   string // of the build
	Progress *fetch.Progress
	Without  Parts // what not to get ready
}

// Parts are what a caller can do without.
type Parts struct{ Client bool }

// Supplies are everything a lab needs of others.
type Supplies struct {
	Image    platform.Image
	Tools    platform.Tools
	Client   client.Program
	Released bool // false: packages were replaced
	Build    *compose.Result
}

// foreignLab is the set that boots appliances of another architecture.
var foreignLab = lock.ToolSet("lab-arm64")

// Get builds and fetches.
func Get(ctx context.Context, o Options) (*Supplies, error) {
	if o.Source == "" {
		source, err := compose.FindSource(".")
		if err != nil {
			return nil, err
		}
		o.Source = source
	}
	in, err := inputs.Open(inputs.Options{
		Appliance: filepath.Join(o.Source, "image", "appliance.hcl"),
		Cache:     o.Cache, Mirror: o.Mirror, Override: true, Progress: o.Progress,
	})
	if err != nil {
		return nil, err
	}
	// All sets at once: they must come from the same lock or override.
	if err := in.Ensure(ctx, in.Lock.Sets(foreignLab)...); err != nil {
		return nil, err
	}
	s := &Supplies{}
	if err := s.tools(ctx, in); err != nil {
		return nil, err
	}
	if !o.Without.Client {
		site, err := in.Client(ctx, "client")
		if err != nil {
			return nil, err
		}
		argv, env := Split(site.Command(ctx, "walt"))
		s.Client = client.Program{Argv: argv, Env: env}
	}
	if s.Build, err = compose.Build(ctx, compose.Options{Source: o.Source, Output: o.Output, Inputs: in, Progress: o.Progress}); err != nil {
		return nil, err
	}
	s.Image = platform.Image{Disk: s.Build.Disk, Kernel: s.Build.Kernel, Initrd: s.Build.Initrd, Command: s.Build.Command, Trust: s.Build.Trust}
	s.Released = in.Lock.Released()
	return s, nil
}

func (s *Supplies) tools(ctx context.Context, in *inputs.Inputs) error {
	box, err := in.Toolbox(ctx, lock.ToolSet("lab"))
	if err != nil {
		return err
	}
	command := box.Command(ctx, "qemu-system-x86_64")
	if command.Err != nil {
		return command.Err
	}
	argv, env := Split(command)
	s.Tools = platform.Tools{
		QEMU:      machine.Program{Argv: argv, Env: env},
		Firmware:  box.Path("usr/share/OVMF/OVMF_CODE_4M.fd"),
		Variables: box.Path("usr/share/OVMF/OVMF_VARS_4M.fd"),
		ROM:       box.Path("usr/share/qemu/pxe-virtio.rom"),
		Secure:    box.Path("usr/share/OVMF/OVMF_CODE_4M.secboot.fd"),
	}
	for _, file := range []string{s.Tools.Firmware, s.Tools.Variables, s.Tools.ROM, s.Tools.Secure} {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("cannot prepare the tools of the lab: %w", err)
		}
	}
	return nil
}

// Split takes the words and the own variables out of a command, to add arguments to,
// also in another process: the variables of this one are left out,
// except the locale, which the same value in both does not make a matter of chance.
func Split(c *exec.Cmd) (argv, env []string) {
	own := os.Environ()
	for _, variable := range c.Env {
		if !slices.Contains(own, variable) || strings.HasPrefix(variable, "LC_ALL=") {
			env = append(env, variable)
		}
	}
	return append([]string{c.Path}, c.Args[1:]...), env
}
