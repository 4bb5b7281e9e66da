// Package toolbox runs programs of locked Debian packages from the cache, so that the
// build and the lab need nothing of the host.
//
// A set of packages is unpacked once below the cache, in a folder named by the hashes of
// its packages, as an ordinary user: owners, set-id bits and devices are left out, links
// are made relative to the tree, and the folders of a merged /usr are one. A program is
// started by the dynamic loader of the tree:
//
//	TREE/usr/lib64/ld-linux-x86-64.so.2 --inhibit-cache --argv0 NAME --library-path DIRS PROGRAM ARGS
//
// Every library it links to is looked up beforehand and must be in the tree. What
// follows from this way of starting:
//
//   - /proc/self/exe is the loader. A program that finds its data beside itself has to be
//     told: QEMU by a link "qemu-bundle" beside the loader, below which it looks for modules
//     and firmware; Python by PYTHONHOME.
//   - A program that starts another one by an absolute path gets the host's.
//   - Libraries opened at run time (plug-ins, name services) come from the tree first, but
//     the loader may fall back to the host's system folders.
//
// Maintainer scripts do not run: there are no update-alternatives links, and scripts (#!)
// are not started.
package toolbox

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/lock"
)

// layout changes when trees are unpacked in another way.
const layout = "toolbox 2"

// Toolbox is an unpacked set of packages.
type Toolbox struct {
	dir   string // the tree
	cache *fetch.Cache

	mu       sync.Mutex
	programs map[string]program
}

// Open unpacks a set of the lock, as lock.ToolSet("build") or lock.Root, unless the
// cache has it already.
func Open(ctx context.Context, l *lock.Lock, f *fetch.Fetcher, set string) (*Toolbox, error) {
	packages, err := l.Set(set)
	if err != nil {
		return nil, err
	}
	id := sha256.New()
	io.WriteString(id, layout)
	var files []fetch.File
	for _, p := range packages {
		io.WriteString(id, "\n"+p.SHA256)
		files = append(files, l.File(p))
	}
	name := "toolbox-" + hex.EncodeToString(id.Sum(nil))[:32]
	t := &Toolbox{dir: f.Cache.Path("toolbox", name), cache: f.Cache, programs: map[string]program{}}
	if isFolder(t.dir) {
		return t, nil
	}
	unlock, err := f.Cache.Lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if isFolder(t.dir) {
		return t, nil
	}
	if err := f.Files(ctx, files); err != nil {
		return nil, err
	}
	if err := f.Decode(ctx, files); err != nil {
		return nil, err
	}
	temp, err := f.Cache.TempDir()
	if err != nil {
		return nil, fmt.Errorf("cannot unpack %s: %w", set, err)
	}
	defer os.RemoveAll(temp)
	if err := unpack(ctx, temp, f, files); err != nil {
		return nil, fmt.Errorf("cannot unpack %s: %w", set, err)
	}
	if err := f.Cache.Keep(temp, t.dir); err != nil {
		return nil, fmt.Errorf("cannot unpack %s: %w", set, err)
	}
	f.Progress.Say("unpacked %d packages of %s", len(files), set)
	return t, nil
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// Path names a file of the tree by its path in the packages, as
// "usr/share/OVMF/OVMF_CODE_4M.fd".
func (t *Toolbox) Path(name string) string {
	return filepath.Join(t.dir, filepath.FromSlash(merged(path.Clean("/" + name)[1:])))
}

// folders that hold programs, in the order of search.
var folders = []string{"usr/bin", "usr/sbin", "usr/games"}

// Command prepares to run a program: a name as "mkfs.erofs", or a path in the tree as
// "usr/lib/postgresql/17/bin/postgres". The environment is the caller's without what
// would lead loader, Python or QEMU elsewhere. Errors show when the command is started.
func (t *Toolbox) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	p, err := t.find(name)
	if err != nil {
		return &exec.Cmd{Path: name, Args: append([]string{name}, args...), Err: err}
	}
	var c *exec.Cmd
	if p.loader == "" {
		c = exec.CommandContext(ctx, p.file, args...)
		c.Args[0] = t.Path(p.name)
	} else {
		start := []string{"--inhibit-cache", "--argv0", t.Path(p.name), "--library-path", strings.Join(p.libraries, ":"), p.file}
		c = exec.CommandContext(ctx, p.loader, append(start, args...)...)
	}
	c.Env = t.environment()
	return c
}

func (t *Toolbox) environment() []string {
	var env []string
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		drop := slices.ContainsFunc([]string{"LD_", "PYTHON", "QEMU_"}, func(p string) bool { return strings.HasPrefix(name, p) })
		if !drop && !slices.Contains([]string{"GCONV_PATH", "LOCPATH", "LANGUAGE", "LC_ALL", "LANG", "GLIBC_TUNABLES", "VIRTUAL_ENV"}, name) {
			env = append(env, variable)
		}
	}
	env = append(env, "LC_ALL=C.UTF-8", "GCONV_PATH="+t.Path(libraries+"/gconv"))
	if isFolder(t.Path("usr/lib/python3")) {
		// The tree does not change once it has its name, so compiled modules go elsewhere.
		env = append(env, "PYTHONHOME="+t.Path("usr"), "PYTHONNOUSERSITE=1",
			"PYTHONPYCACHEPREFIX="+t.cache.Path("pycache", filepath.Base(t.dir)))
	}
	return env
}

// libraries is Debian's folder of amd64.
const libraries = "usr/lib/x86_64-linux-gnu"

// program is what it takes to start one.
type program struct {
	name      string   // path in the tree, links not followed: its base is argv[0]
	file      string   // absolute, links followed
	loader    string   // absolute; empty for a static program
	libraries []string // folders to search, absolute
}

func (t *Toolbox) find(name string) (program, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p, known := t.programs[name]; known {
		return p, nil
	}
	candidates := []string{merged(path.Clean("/" + name)[1:])}
	if !strings.Contains(name, "/") {
		candidates = nil
		for _, folder := range folders {
			candidates = append(candidates, folder+"/"+name)
		}
	}
	for _, candidate := range candidates {
		p, err := t.inspect(candidate)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return program{}, fmt.Errorf("cannot run %s: %w", name, err)
		}
		t.programs[name] = p
		return p, nil
	}
	return program{}, fmt.Errorf("cannot run %s: not in this toolbox (%s)", name, strings.Join(candidates, ", "))
}

// inspect reads what a program links to and checks that all of it is in the tree.
func (t *Toolbox) inspect(name string) (program, error) {
	p := program{name: name}
	var err error
	if p.file, err = filepath.EvalSymlinks(t.Path(name)); err != nil {
		return p, err
	}
	p.libraries = []string{t.Path(libraries), t.Path("usr/lib")}
	done := map[string]bool{}
	queue := []string{p.file}
	for len(queue) > 0 {
		file := queue[0]
		queue = queue[1:]
		object, err := elf.Open(file)
		if err != nil {
			return p, fmt.Errorf("%s is not a program: %w", file, err)
		}
		needed, _ := object.ImportedLibraries()
		for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
			paths, _ := object.DynString(tag)
			for _, list := range paths {
				for dir := range strings.SplitSeq(list, ":") {
					if inTree := t.Path(dir); strings.HasPrefix(dir, "/") && isFolder(inTree) && !slices.Contains(p.libraries, inTree) {
						p.libraries = append(p.libraries, inTree)
					}
				}
			}
		}
		if file == p.file {
			if p.loader, err = t.loader(object); err != nil {
				object.Close()
				return p, err
			}
		}
		object.Close()
		for _, library := range needed {
			if done[library] {
				continue
			}
			done[library] = true
			found := slices.IndexFunc(p.libraries, func(dir string) bool {
				_, err := os.Stat(filepath.Join(dir, library))
				return err == nil
			})
			switch {
			case found >= 0:
				queue = append(queue, filepath.Join(p.libraries[found], library))
			case !strings.HasPrefix(library, "ld-linux"):
				return p, fmt.Errorf("%s needs %s, which is in none of the packages", filepath.Base(file), library)
			}
		}
	}
	return p, nil
}

// loader returns the interpreter that a program names, of the tree; empty for a static
// program.
func (t *Toolbox) loader(object *elf.File) (string, error) {
	for _, segment := range object.Progs {
		if segment.Type != elf.PT_INTERP || segment.Filesz > 4096 {
			continue
		}
		name, err := io.ReadAll(segment.Open())
		if err != nil {
			return "", err
		}
		loader, err := filepath.EvalSymlinks(t.Path(strings.TrimRight(string(name), "\x00")))
		if err != nil {
			return "", fmt.Errorf("the loader is missing: %w; is libc6 in the set?", err)
		}
		return loader, nil
	}
	return "", nil
}
