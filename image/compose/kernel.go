package compose

import (
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
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/waltos/waltos/image/cpio"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/image/tree"
	"github.com/waltos/waltos/services/kmod"
)

// indexVersion changes when module indexes are made in another way.
const indexVersion = "indexes 1"

// kernel is what the boot packages hold, without the modules that are dropped.
type kernel struct {
	release string     // as uname -r says
	image   []byte     // vmlinuz
	modules *tree.Tree // /usr/lib/modules/RELEASE with indexes
	indexes string     // folder of the host with the indexes
	count   int
}

func (k *kernel) folder() string { return "/usr/lib/modules/" + k.release }

// readKernel finds the kernel and its modules wherever the packages have put them,
// and indexes the modules.
func (b *builder) readKernel(ctx context.Context) (*kernel, error) {
	// What concerns modules only is dropped, before the indexes are made.
	var drop []string
	for _, pattern := range b.Inputs.Appliance.Root.Drop {
		if strings.HasPrefix(pattern, "/usr/lib/modules/") {
			drop = append(drop, pattern)
		}
	}
	all, err := b.readPackages(ctx, lock.Boot, drop)
	if err != nil {
		return nil, err
	}
	modules, err := all.Get("/usr/lib/modules")
	if err != nil {
		return nil, fmt.Errorf("package %s brings no kernel modules: %w", b.Inputs.Appliance.Boot.Kernel, err)
	}
	names := modules.Names()
	if len(names) != 1 {
		return nil, fmt.Errorf("package %s brings modules of %d kernels (%s), not of one", b.Inputs.Appliance.Boot.Kernel, len(names), strings.Join(names, ", "))
	}
	k := &kernel{release: names[0], modules: tree.New()}
	image, err := all.Get("/boot/vmlinuz-" + k.release)
	if err != nil {
		return nil, fmt.Errorf("package %s brings no kernel: %w", b.Inputs.Appliance.Boot.Kernel, err)
	}
	k.image = image.Content
	err = all.Walk(func(name string, f *tree.File) error {
		if !strings.HasPrefix(name, k.folder()+"/") || f.IsDir() {
			return nil
		}
		if strings.HasSuffix(name, ".ko.xz") {
			k.count++
		}
		return k.modules.Add(name, f)
	})
	if err != nil {
		return nil, err
	}
	if err := b.index(ctx, k); err != nil {
		return nil, fmt.Errorf("cannot index the modules of kernel %s: %w", k.release, err)
	}
	return k, nil
}

// index adds what depmod makes of the modules. It reads all of them, so the outcome
// is kept in the cache.
func (b *builder) index(ctx context.Context, k *kernel) error {
	id := sha256.New()
	io.WriteString(id, indexVersion)
	packages, err := b.Inputs.Lock.Set(lock.Boot)
	if err != nil {
		return err
	}
	programs, err := b.Inputs.Lock.Set(tools)
	if err != nil {
		return err
	}
	for _, p := range append(packages, programs...) {
		if p.Name == "kmod" || strings.HasPrefix(p.Name, "linux-") {
			fmt.Fprintf(id, "\n%s", p.SHA256)
		}
	}
	err = k.modules.Walk(func(name string, _ *tree.File) error {
		fmt.Fprintf(id, "\n%s", name)
		return nil
	})
	if err != nil {
		return err
	}
	cache := b.Inputs.Fetcher.Cache
	k.indexes = cache.Path("modules", hex.EncodeToString(id.Sum(nil))[:32])
	if _, err := os.Stat(k.indexes); err != nil {
		b.Progress.Say("indexing the modules of kernel %s", k.release)
		if err := b.depmod(ctx, k); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(k.indexes)
	if err != nil {
		return err
	}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(k.indexes, e.Name()))
		if err != nil {
			return err
		}
		f := &tree.File{Mode: 0o644, Content: content, Origin: "depmod"}
		if err := k.modules.Replace(path.Join(k.folder(), e.Name()), f); err != nil {
			return err
		}
	}
	return nil
}

// depmod runs depmod on a copy of the modules and keeps its outputs.
func (b *builder) depmod(ctx context.Context, k *kernel) error {
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
	out, err := b.toolbox.Command(ctx, "depmod", "-b", base, "-C", none, k.release).CombinedOutput()
	if err != nil {
		return fmt.Errorf("depmod: %w\n%s", err, bytes.TrimSpace(out))
	}
	cache := b.Inputs.Fetcher.Cache
	kept, err := cache.TempDir()
	if err != nil {
		return err
	}
	defer os.RemoveAll(kept)
	made, err := filepath.Glob(filepath.Join(base, "usr/lib/modules", k.release, "modules.*"))
	if err != nil {
		return err
	}
	for _, name := range made {
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(kept, filepath.Base(name)), content, 0o644); err != nil {
			return err
		}
	}
	return cache.Keep(kept, k.indexes)
}

// initramfs returns the compressed archive of an initial root: our program as
// /init, which is also what the kernel calls to load modules, and modules with all
// that they need. The modules are there as plain files, because zstd over them all
// is as small as many files under xz and quicker to read.
func (b *builder) initramfs(k *kernel, program []byte, names []string) ([]byte, error) {
	t := tree.New()
	for name, f := range map[string]*tree.File{
		"/init":          {Mode: 0o755, Content: program},
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

// selectModules adds the closure of some modules, decompressed, and indexes that
// name these only.
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
		content, err := decompress(step.Path, f.Content)
		if err != nil {
			return err
		}
		selected[step.Name] = true
		if err := t.Add(path.Join(folder, plain(step.Path)), &tree.File{Mode: 0o644, Content: content}); err != nil {
			return err
		}
	}
	for _, index := range []struct {
		name string
		keep func(line string) (string, bool)
	}{
		{"modules.dep", func(line string) (string, bool) {
			file, _, _ := strings.Cut(line, ":")
			return plain(line), selected[kmod.Normalize(file)]
		}},
		{"modules.alias", func(line string) (string, bool) {
			words := strings.Fields(line)
			return line, len(words) == 3 && selected[words[2]]
		}},
		{"modules.softdep", func(line string) (string, bool) {
			words := strings.Fields(line)
			return line, len(words) > 1 && selected[kmod.Normalize(words[1])]
		}},
		{"modules.builtin", func(line string) (string, bool) { return line, true }},
	} {
		content, err := os.ReadFile(filepath.Join(k.indexes, index.name))
		if err != nil {
			return err
		}
		var out strings.Builder
		for line := range strings.Lines(string(content)) {
			if line, ok := index.keep(line); ok {
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

// plain takes the suffix of compression out of the names in a line.
func plain(line string) string { return strings.ReplaceAll(line, ".ko.xz", ".ko") }

func decompress(name string, content []byte) ([]byte, error) {
	switch path.Ext(name) {
	case ".ko":
		return content, nil
	case ".xz":
		r, err := xz.NewReader(bytes.NewReader(content))
		if err != nil {
			return nil, fmt.Errorf("cannot decompress module %s: %w", name, err)
		}
		out, err := io.ReadAll(r)
		if err != nil {
			return nil, fmt.Errorf("cannot decompress module %s: %w", name, err)
		}
		return out, nil
	}
	return nil, errors.New("cannot decompress module " + name + ": compression not known")
}
