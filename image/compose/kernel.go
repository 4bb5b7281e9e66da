package compose

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sync/errgroup"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/image/cpio"
	"github.com/waltos/waltos/image/inputs"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/image/tree"
	"github.com/waltos/waltos/image/uki"
	"github.com/waltos/waltos/services/kmod"
)

// kernelVersion changes when the modules are prepared in another way.
const kernelVersion = "kernel 2"

// kernel is what the boot packages hold, without the modules that are dropped. The
// modules are decompressed: the file system of the root compresses them nearly as
// well, and the kernel reads zstd several times faster than its own packages' xz.
type kernel struct {
	release string     // as uname -r says
	image   []byte     // vmlinuz
	stub    []byte     // the program that unified kernel images begin with
	modules *tree.Tree // /usr/lib/modules/RELEASE with indexes
	indexes string     // folder of the host with the indexes
	count   int
}

func (k *kernel) folder() string { return "/usr/lib/modules/" + k.release }

// Files in the folder of the cache that keeps a prepared kernel.
const (
	keptRelease = "release"
	keptImage   = "vmlinuz"
	keptStub    = "stub"
	keptModules = "modules.tar.zst"
	keptIndexes = "indexes"
)

// readKernel returns the kernel of some inputs. Preparing one takes long, so the
// outcome is kept in the cache.
func (b *builder) readKernel(ctx context.Context, in *inputs.Inputs) (*kernel, error) {
	id := sha256.New()
	io.WriteString(id, kernelVersion)
	drop := b.droppedModules()
	fmt.Fprintf(id, "\n%q", drop)
	packages, err := in.Lock.Set(lock.Boot)
	if err != nil {
		return nil, err
	}
	programs, err := in.Native.Lock.Set(tools)
	if err != nil {
		return nil, err
	}
	for _, p := range slices.Concat(packages, programs) {
		if slices.Contains(p.Sets, lock.Boot) || p.Name == "kmod" {
			fmt.Fprintf(id, "\n%s", p.SHA256)
		}
	}
	cache := b.Inputs.Fetcher.Cache
	name := "kernel-" + hex.EncodeToString(id.Sum(nil))[:32]
	dir := cache.Path("kernel", name)
	unlock, err := cache.Lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := os.Stat(dir); err != nil {
		if err := b.prepareKernel(ctx, in, dir, drop); err != nil {
			return nil, fmt.Errorf("cannot prepare kernel %s: %w", in.Appliance.Boot.Kernel, err)
		}
	}
	k, err := openKernel(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the kernel prepared in %s: %w", dir, err)
	}
	return k, nil
}

// droppedModules are the patterns of what is dropped before the indexes are made.
func (b *builder) droppedModules() (drop []string) {
	for _, pattern := range b.Inputs.Appliance.Root.Drop {
		if strings.HasPrefix(pattern, "/usr/lib/modules/") {
			drop = append(drop, pattern)
		}
	}
	return drop
}

func openKernel(dir string) (*kernel, error) {
	release, err := os.ReadFile(filepath.Join(dir, keptRelease))
	if err != nil {
		return nil, err
	}
	k := &kernel{release: string(release), modules: tree.New(), indexes: filepath.Join(dir, keptIndexes)}
	if k.image, err = os.ReadFile(filepath.Join(dir, keptImage)); err != nil {
		return nil, err
	}
	if k.stub, err = os.ReadFile(filepath.Join(dir, keptStub)); err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(dir, keptModules))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	err = k.modules.AddArchive(tar.NewReader(z), "kernel "+k.release, func(name string) bool {
		if path.Ext(name) == ".ko" {
			k.count++
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	if k.count == 0 {
		return nil, errors.New("it has no modules; remove it, and it is made again")
	}
	indexes, err := os.ReadDir(k.indexes)
	if err != nil {
		return nil, err
	}
	for _, e := range indexes {
		content, err := os.ReadFile(filepath.Join(k.indexes, e.Name()))
		if err != nil {
			return nil, err
		}
		f := &tree.File{Mode: 0o644, Content: content, Origin: "depmod"}
		if err := k.modules.Replace(path.Join(k.folder(), e.Name()), f); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// prepareKernel finds the kernel and its modules wherever the packages have put
// them, decompresses and indexes the modules, and keeps all that in the cache.
func (b *builder) prepareKernel(ctx context.Context, in *inputs.Inputs, dir string, drop []string) error {
	all, err := b.readPackages(ctx, in.Lock, lock.Boot, drop)
	if err != nil {
		return err
	}
	folder, err := all.Get("/usr/lib/modules")
	if err != nil {
		return fmt.Errorf("no modules in its packages: %w", err)
	}
	if names := folder.Names(); len(names) != 1 {
		return fmt.Errorf("its packages hold modules of %d kernels (%s), not of one", len(names), strings.Join(names, ", "))
	}
	k := &kernel{release: folder.Names()[0], modules: tree.New()}
	image, err := all.Get("/boot/vmlinuz-" + k.release)
	if err != nil {
		return fmt.Errorf("no kernel in its packages: %w", err)
	}
	stub, err := all.Get("/" + uki.StubName(in.Appliance.Debian.Architecture))
	if err != nil {
		return fmt.Errorf("no stub of unified kernel images in its packages: %w", err)
	}
	b.Progress.Say("unpacking the modules of kernel %s", k.release)
	if err := k.addModules(ctx, all); err != nil {
		return err
	}

	cache := b.Inputs.Fetcher.Cache
	kept, err := cache.TempDir()
	if err != nil {
		return err
	}
	defer os.RemoveAll(kept)
	b.Progress.Say("indexing the modules of kernel %s", k.release)
	if err := b.depmod(ctx, k, filepath.Join(kept, keptIndexes)); err != nil {
		return err
	}
	var modules bytes.Buffer
	z, err := zstd.NewWriter(&modules, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return err
	}
	if err := k.modules.WriteTar(z, b.time); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		keptRelease: []byte(k.release), keptImage: image.Content, keptStub: stub.Content, keptModules: modules.Bytes(),
	} {
		if err := os.WriteFile(filepath.Join(kept, name), content, 0o644); err != nil {
			return err
		}
	}
	return cache.Keep(kept, dir)
}

// addModules takes the module folder of a tree, decompressed.
func (k *kernel) addModules(ctx context.Context, all *tree.Tree) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	err := all.Walk(func(name string, f *tree.File) error {
		if !strings.HasPrefix(name, k.folder()+"/") || f.IsDir() {
			return nil
		}
		plain := &tree.File{Mode: f.Mode, Content: f.Content, Target: f.Target, Origin: f.Origin}
		base, compressed := strings.CutSuffix(name, ".ko.xz")
		if !compressed {
			return k.modules.Add(name, plain)
		}
		group.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			r, err := xz.NewReader(bytes.NewReader(f.Content))
			if err == nil {
				plain.Content, err = io.ReadAll(r)
			}
			if err != nil {
				return fmt.Errorf("cannot decompress module %s: %w", name, err)
			}
			return nil
		})
		return k.modules.Add(base+".ko", plain)
	})
	return errors.Join(err, group.Wait())
}

// depmod runs depmod on a copy of the modules and puts what it makes into a folder.
func (b *builder) depmod(ctx context.Context, k *kernel, out string) error {
	base, err := os.MkdirTemp(b.scratch, "depmod")
	if err != nil {
		return err
	}
	err = k.modules.Walk(func(name string, f *tree.File) error {
		host := filepath.Join(base, filepath.FromSlash(name))
		switch {
		case f.IsDir():
			return os.MkdirAll(host, 0o755)
		case f.Mode.IsRegular():
			return os.WriteFile(host, f.Content, 0o644)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := os.Symlink("usr/lib", filepath.Join(base, "lib")); err != nil {
		return err
	}
	none := filepath.Join(base, "no-configuration")
	if err := os.Mkdir(none, 0o755); err != nil {
		return err
	}
	if text, err := b.toolbox.Command(ctx, "depmod", "-b", base, "-C", none, k.release).CombinedOutput(); err != nil {
		return fmt.Errorf("depmod: %w\n%s", err, bytes.TrimSpace(text))
	}
	made, err := filepath.Glob(filepath.Join(base, "usr/lib/modules", k.release, "modules.*"))
	if err != nil {
		return err
	}
	if err := os.Mkdir(out, 0o755); err != nil {
		return err
	}
	for _, name := range made {
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, filepath.Base(name)), content, 0o644); err != nil {
			return err
		}
	}
	return os.RemoveAll(base)
}

// initramfs returns the compressed archive of an initial root: our program as
// /init, which is also what the kernel calls to load modules, and modules with all
// that they need, and their settings.
func (b *builder) initramfs(k *kernel, program []byte, names []string, settings *hcl.Kernel) ([]byte, error) {
	t := tree.New()
	for name, f := range map[string]*tree.File{
		"/init":          {Mode: 0o755, Content: program},
		modprobeConf:     {Mode: 0o644, Content: settings.ModprobeConf()},
		"/sbin/modprobe": symlink("/init"),
		"/proc":          {Mode: fs.ModeDir | 0o755},
		"/sys":           {Mode: fs.ModeDir | 0o755},
		"/dev":           {Mode: fs.ModeDir | 0o755},
		"/run":           {Mode: fs.ModeDir | 0o755},
		// The kernel opens it before it runs /init.
		"/dev/console": {Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Device: [2]uint32{5, 1}},
	} {
		if err := t.Add(name, f); err != nil {
			return nil, err
		}
	}
	if err := k.selectModules(t, names); err != nil {
		return nil, fmt.Errorf("cannot make an initramfs: %w", err)
	}
	var out bytes.Buffer
	// One thread, so that the output does not depend on the number of processors.
	w, err := zstd.NewWriter(&out, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	if err := cpio.Write(w, t, b.time); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// selectModules adds the closure of some modules, and indexes that name these only.
func (k *kernel) selectModules(t *tree.Tree, names []string) error {
	catalog, err := kmod.Open(os.DirFS(k.indexes))
	if err != nil {
		return err
	}
	steps, err := catalog.Closure(names...)
	if err != nil {
		return err
	}
	folder := "/lib/modules/" + k.release
	selected := map[string]bool{}
	for _, step := range steps {
		f, err := k.modules.Get(path.Join(k.folder(), step.Path))
		if err != nil {
			return err
		}
		selected[step.Name] = true
		if err := t.Add(path.Join(folder, step.Path), f); err != nil {
			return err
		}
	}
	for _, index := range []struct {
		name string
		keep func(line string) bool
	}{
		{"modules.dep", func(line string) bool {
			file, _, _ := strings.Cut(line, ":")
			return selected[kmod.Normalize(file)]
		}},
		{"modules.alias", func(line string) bool {
			words := strings.Fields(line)
			return len(words) == 3 && selected[words[2]]
		}},
		{"modules.softdep", func(line string) bool {
			words := strings.Fields(line)
			return len(words) > 1 && selected[kmod.Normalize(words[1])]
		}},
		{"modules.builtin", func(string) bool { return true }},
	} {
		content, err := os.ReadFile(filepath.Join(k.indexes, index.name))
		if err != nil {
			return err
		}
		var out strings.Builder
		for line := range strings.Lines(string(content)) {
			if index.keep(line) {
				out.WriteString(line)
			}
		}
		f := &tree.File{Mode: 0o644, Content: []byte(out.String())}
		if err := t.Add(path.Join(folder, index.name), f); err != nil {
			return err
		}
	}
	return nil
}
