// Package compose builds the outputs of the appliance from its inputs: it fills the
// root tree, the node images and the initial root file systems, and writes the disk.
//
// The same inputs give the same bytes, whatever the folder, the time, the umask, the
// locale and the number of processors: owners and modes come from trees, the one
// time is that of the lock's newest snapshot, identifiers derive from names, and the same
// keys make the same signatures; without those, only the UKI, what holds it, and the
// signatures differ.
// Neither privilege nor anything of the host but the Go toolchain is used; that one
// is pinned by go.mod.
package compose

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/inputs"
	"github.com/waltos/waltos/image/keys"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/image/sign"
	"github.com/waltos/waltos/image/store"
	"github.com/waltos/waltos/image/toolbox"
	"github.com/waltos/waltos/image/wheels"
)

// Options say what to build from and where to.
type Options struct {
	// Source is the top folder of the module; default: the one that holds the
	// working directory.
	Source string
	// Architecture of the appliance; see package inputs.
	Architecture string
	// Output is the folder of the outputs; default: .cache/build of Source, or
	// .cache/build-ARCHITECTURE where that is given.
	Output string
	// Inputs are opened by default from image/appliance.hcl of Source.
	Inputs *inputs.Inputs
	// Cache and Mirror are used when Inputs is nil; see package inputs.
	Cache, Mirror string
	Override      bool
	// Also names further outputs; see Extras.
	Also     []string
	Progress *fetch.Progress
	// Keys sign the outputs; default: those of keys.DefaultFolder. Development keys are
	// made where there are none.
	Keys *keys.Store
	// Signatures is the folder of a published build whose signatures are used instead of
	// keys; may be empty.
	Signatures string
}

// Result names the outputs, all in one folder.
type Result struct {
	Dir      string
	Disk     string // raw disk image with a GPT
	Kernel   string // as the boot loader gets it
	Initrd   string
	Command  string // the kernel command line itself
	UKI      string
	Bundle   string // for upgrades
	Manifest *Manifest
	// Trust are the variables that make firmware trust the UKI, where Keys are known.
	Trust []sign.Variable
	// Reused says that the outputs were there already.
	Reused bool
}

// Names of the outputs.
const (
	DiskName     = "walt.img"
	kernelName   = "vmlinuz"
	initrdName   = "initrd.img"
	commandName  = "cmdline"
	ukiName      = "walt.efi"
	sbomName     = "walt.spdx.json"
	bundleName   = "walt.bundle"
	manifestName = "manifest.json"
	// signatureName is beside the manifest: minisign finds it there.
	signatureName = manifestName + ".minisig"
)

// tools is the set of programs that the build runs.
var tools = lock.ToolSet("build")

// FindSource returns the top folder of the module that holds a folder.
func FindSource(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "image", "appliance.hcl")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("cannot find the sources: neither %s nor a folder above it holds image/appliance.hcl; change to the repository", dir)
		}
	}
}

// Build makes the outputs, or finds that they are there and current.
func Build(ctx context.Context, o Options) (*Result, error) {
	b, err := open(o)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(b.Output, 0o755); err != nil {
		return nil, fmt.Errorf("cannot make the output folder: %w", err)
	}
	unlock, err := b.Inputs.Fetcher.Cache.Lock(ctx, "build-"+digestOf([]byte(b.Output))[:16])
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := b.sweep(); err != nil {
		return nil, fmt.Errorf("cannot clear the output folder: %w", err)
	}
	if err := b.build(ctx); err != nil {
		return nil, fmt.Errorf("cannot build the appliance: %w", err)
	}
	return b.result()
}

// builder is one run of Build.
type builder struct {
	Options
	time     time.Time // of every file
	toolbox  *toolbox.Toolbox
	scratch  string // folder removed in the end
	programs *programs
	manifest *Manifest
	signer   signer
	reused   bool
}

func open(o Options) (*builder, error) {
	err := checkExtras(o.Also)
	if err != nil {
		return nil, err
	}
	if o.Source == "" {
		if o.Source, err = FindSource("."); err != nil {
			return nil, err
		}
	}
	if o.Source, err = filepath.Abs(o.Source); err != nil {
		return nil, err
	}
	if o.Output == "" {
		o.Output = filepath.Join(o.Source, ".cache", "build")
		if o.Architecture != "" {
			o.Output += "-" + o.Architecture
		}
	}
	if o.Output, err = filepath.Abs(o.Output); err != nil {
		return nil, err
	}
	if o.Inputs == nil {
		o.Inputs, err = inputs.Open(inputs.Options{
			Appliance:    filepath.Join(o.Source, "image", "appliance.hcl"),
			Architecture: o.Architecture, Cache: o.Cache, Mirror: o.Mirror, Override: o.Override, Progress: o.Progress,
		})
		if err != nil {
			return nil, err
		}
	}
	if o.Keys == nil && o.Signatures == "" {
		dir, err := keys.DefaultFolder()
		if err != nil {
			return nil, err
		}
		o.Keys = &keys.Store{Dir: dir, Sources: o.Source}
	}
	return &builder{Options: o}, nil
}

func (b *builder) build(ctx context.Context) error {
	native := b.Inputs.Native
	sets := []string{lock.Boot, tools} // nodes have its kernel
	for _, image := range native.Appliance.Images {
		sets = append(sets, lock.ImageSet(image.Name))
	}
	shipped, err := b.Inputs.Shipped()
	if err != nil {
		return err
	}
	if len(wheels.Missing(b.Inputs.Fetcher, shipped)) > 0 {
		sets = append(sets, inputs.Python)
	}
	if !b.Inputs.Foreign() {
		sets = append(sets, lock.Root)
	} else if err := b.Inputs.Ensure(ctx, lock.Boot, lock.Root); err != nil {
		return err
	}
	if err := native.Ensure(ctx, sets...); err != nil {
		return err
	}
	for _, l := range b.Inputs.Locks() {
		for _, s := range l.Snapshots {
			if s.Date.After(b.time) {
				b.time = s.Date
			}
		}
		for _, p := range l.Packages {
			if p.Listed.After(b.time) {
				b.time = p.Listed
			}
		}
	}
	if b.time.IsZero() {
		return errors.New("the lock has no snapshot time; run `go run ./image lock`")
	}
	b.time = b.time.UTC().Truncate(time.Second)

	scratch, err := b.Inputs.Fetcher.Cache.TempDir()
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	b.scratch = scratch
	if b.programs, err = b.buildPrograms(ctx); err != nil {
		return err
	}
	if err := b.openSigner(); err != nil {
		return err
	}
	if b.manifest, err = b.newManifest(); err != nil {
		return err
	}
	if current, err := readManifest(filepath.Join(b.Output, manifestName)); err == nil && current.Inputs == b.manifest.Inputs && current.complete(b.Output) {
		b.manifest, b.reused = current, true
		b.Progress.Say("nothing changed: %s", b.Output)
		return b.addExtras(ctx)
	}
	if b.toolbox, err = b.Inputs.Toolbox(ctx, tools); err != nil {
		return err
	}
	if err := b.compose(ctx, shipped); err != nil {
		return err
	}
	return b.addExtras(ctx)
}

// openSigner finds what signs, and makes development keys where there are none.
func (b *builder) openSigner() (err error) {
	if b.Signatures != "" {
		b.signer, err = openPublished(b.Signatures)
		return err
	}
	b.signer = owner{b.Keys}
	made, err := b.Keys.Ensure()
	if made {
		b.Progress.Say("made development keys in %s: this build is signed for trials; `go run ./image keys` tells of your own", b.Keys.Dir)
	}
	return err
}

func (b *builder) compose(ctx context.Context, shipped []lock.Wheel) error {
	if err := b.Inputs.FetchWheels(ctx, shipped); err != nil {
		return err
	}
	kernel, err := b.readKernel(ctx, b.Inputs)
	if err != nil {
		return err
	}
	b.Progress.Say("kernel %s: %d modules", kernel.release, kernel.count)
	nodes := kernel
	if b.Inputs.Foreign() {
		if nodes, err = b.readKernel(ctx, b.Inputs.Native); err != nil {
			return err
		}
	}
	content := &rootContent{kernel: kernel, wheels: shipped}
	var initrd []byte
	group, groupContext := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	group.Go(func() (err error) {
		initrd, err = b.initramfs(kernel, b.programs.supervisor, b.Inputs.Appliance.Boot.Modules, b.Inputs.Appliance.Kernel)
		return err
	})
	group.Go(func() (err error) {
		images, err := b.nodeImages(groupContext, nodes)
		if err == nil {
			content.images, err = store.Build(images)
		}
		return err
	})
	group.Go(func() (err error) {
		content.packages, err = b.readPackages(groupContext, b.Inputs.Lock, lock.Root, b.Inputs.Appliance.Root.Drop)
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	early, err := microcode(content.packages, b.time)
	if err != nil {
		return err
	}
	initrd = append(early, initrd...)
	root, err := b.root(content)
	if err != nil {
		return err
	}
	b.Progress.Say("root: %d MB in %d packages", root.Size()/1e6, len(b.manifest.Packages))
	return b.write(ctx, root, kernel, initrd)
}

func (b *builder) result() (result *Result, err error) {
	result = b.manifest.result(b.Output)
	result.Reused = b.reused
	if b.Keys != nil {
		result.Trust, err = b.Keys.Variables(b.time)
	}
	return result, err
}

// result names the outputs of a folder.
func (m *Manifest) result(dir string) *Result {
	in := func(name string) string { return filepath.Join(dir, name) }
	return &Result{
		Dir: dir, Disk: in(DiskName), Kernel: in(kernelName), Initrd: in(initrdName), UKI: in(ukiName), Bundle: in(bundleName),
		Command: m.Command, Manifest: m,
	}
}
