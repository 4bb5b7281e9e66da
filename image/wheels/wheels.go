// Package wheels installs locked Python packages below the cache and runs their
// programs, with the interpreter and the pip of a tool set.
//
// Where wheels come from is pip's business: its own configuration and environment
// (PIP_INDEX_URL, PIP_FIND_LINKS, PIP_CERT …) apply, and no index is named here. What
// comes is checked: each wheel has the SHA-256 of the lock. Source distributions are
// refused, because building one runs code of the package.
package wheels

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/image/toolbox"
)

// layout changes when sites are made in another way.
const layout = "site 1"

// Resolve asks pip for the closure of a wheels block and locks what it answers.
func Resolve(ctx context.Context, python *toolbox.Toolbox, f *fetch.Fetcher, w *hcl.Wheels) ([]lock.Wheel, error) {
	dir, err := f.Cache.TempDir()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	f.Progress.Say("resolve wheels %s: %s", w.Name, strings.Join(w.Requirements, ", "))
	args := append([]string{"download", "--only-binary=:all:", "--dest", dir}, w.Requirements...)
	if err := pip(ctx, python, f, args...); err != nil {
		return nil, fmt.Errorf("cannot resolve wheels %q: %w", w.Name, err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []lock.Wheel
	for _, file := range files {
		name, version, err := split(file.Name())
		if err != nil {
			return nil, err
		}
		path := filepath.Join(dir, file.Name())
		sum, size, err := hash(path)
		if err != nil {
			return nil, err
		}
		if err := f.Cache.Keep(path, f.Cache.File(sum)); err != nil {
			return nil, err
		}
		list = append(list, lock.Wheel{Set: w.Name, Name: name, Version: version, File: file.Name(), Size: size, SHA256: sum})
	}
	slices.SortFunc(list, func(a, b lock.Wheel) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// split reads name and version from the file name of a wheel (PEP 427). The name is
// normalised (PEP 503).
func split(file string) (name, version string, err error) {
	parts := strings.Split(strings.TrimSuffix(file, ".whl"), "-")
	if !strings.HasSuffix(file, ".whl") || len(parts) < 5 || len(parts) > 6 {
		return "", "", fmt.Errorf("cannot lock %q: not a wheel", file)
	}
	return strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(parts[0])), parts[1], nil
}

func hash(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}

// Site is a folder with installed wheels.
type Site struct {
	dir      string
	python   *toolbox.Toolbox
	programs map[string]entry
}

type entry struct{ module, function string }

// Install makes a wheels block of the lock ready to run, unless the cache has it
// already. It needs the network only for wheels that are not in the cache.
func Install(ctx context.Context, python *toolbox.Toolbox, l *lock.Lock, f *fetch.Fetcher, name string) (*Site, error) {
	set, err := l.WheelSet(name)
	if err != nil {
		return nil, err
	}
	id := sha256.New()
	fmt.Fprintln(id, layout)
	fmt.Fprintln(id, python.Path("."))
	for _, w := range set {
		fmt.Fprintln(id, w.SHA256)
	}
	folder := "site-" + hex.EncodeToString(id.Sum(nil))[:32]
	s := &Site{dir: f.Cache.Path("site", folder), python: python}

	unlock, err := f.Cache.Lock(ctx, folder)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := os.Stat(s.dir); err != nil {
		if err := Fetch(ctx, python, f, set); err != nil {
			return nil, fmt.Errorf("cannot fetch wheels %q: %w", name, err)
		}
		if err := install(ctx, python, f, set, s.dir); err != nil {
			return nil, fmt.Errorf("cannot install wheels %q: %w", name, err)
		}
		f.Progress.Say("installed %d wheels of %s", len(set), name)
	}
	if s.programs, err = entryPoints(s.dir); err != nil {
		return nil, err
	}
	return s, nil
}

// Missing returns the wheels that the cache does not hold, or holds damaged.
func Missing(f *fetch.Fetcher, set []lock.Wheel) []lock.Wheel {
	return slices.DeleteFunc(slices.Clone(set), func(w lock.Wheel) bool {
		sum, size, err := hash(f.Cache.File(w.SHA256))
		return err == nil && sum == w.SHA256 && size == w.Size
	})
}

// Fetch brings the wheels that are missing into the cache.
func Fetch(ctx context.Context, python *toolbox.Toolbox, f *fetch.Fetcher, set []lock.Wheel) error {
	missing := Missing(f, set)
	if len(missing) == 0 {
		return nil
	}
	var requirements strings.Builder
	for _, w := range missing {
		fmt.Fprintf(&requirements, "%s==%s --hash=sha256:%s\n", w.Name, w.Version, w.SHA256)
	}
	dir, err := f.Cache.TempDir()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	list := filepath.Join(dir, "requirements.txt")
	if err := os.WriteFile(list, []byte(requirements.String()), 0o644); err != nil {
		return err
	}
	f.Progress.Say("fetch %d wheels", len(missing))
	if err := pip(ctx, python, f, "download", "--only-binary=:all:", "--no-deps", "--require-hashes", "--dest", dir, "--requirement", list); err != nil {
		return err
	}
	for _, w := range missing {
		path := filepath.Join(dir, w.File)
		sum, _, err := hash(path)
		if err != nil {
			return fmt.Errorf("%s %s: pip has not brought the file that is locked: %w", w.Name, w.Version, err)
		}
		if sum != w.SHA256 {
			return fmt.Errorf("%s %s: expected SHA-256 %s, found %s", w.Name, w.Version, w.SHA256, sum)
		}
		os.Remove(f.Cache.File(w.SHA256)) // a damaged one
		if err := f.Cache.Keep(path, f.Cache.File(w.SHA256)); err != nil {
			return err
		}
	}
	return nil
}

// install fills a site folder. pip wants the files under their names.
func install(ctx context.Context, python *toolbox.Toolbox, f *fetch.Fetcher, set []lock.Wheel, site string) error {
	dir, err := f.Cache.TempDir()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	target := filepath.Join(dir, "site")
	args := []string{"install", "--no-index", "--no-deps", "--no-compile", "--target", target}
	for _, w := range set {
		named := filepath.Join(dir, w.File)
		if err := os.Symlink(f.Cache.File(w.SHA256), named); err != nil {
			return err
		}
		args = append(args, named)
	}
	if err := pip(ctx, python, f, args...); err != nil {
		return err
	}
	if err := os.Chmod(target, 0o755); err != nil {
		return err
	}
	return f.Cache.Keep(target, site)
}

// pip runs the pip of the tool set.
func pip(ctx context.Context, python *toolbox.Toolbox, f *fetch.Fetcher, args ...string) error {
	c := python.Command(ctx, "python3", append([]string{"-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check"}, args...)...)
	certificates, err := certificates(python, f)
	if err != nil {
		return err
	}
	c.Env = append(c.Env, certificates...)
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	if err := c.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("pip %s: %w\n%s", args[0], err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// certificates are settings for a host that has no certificates where Debian's Python
// looks for them: then those of the tool set serve, if it has any. The host's come
// first, because a site may have an authority of its own.
func certificates(python *toolbox.Toolbox, f *fetch.Fetcher) ([]string, error) {
	const usual = "/etc/ssl/certs/ca-certificates.crt"
	if _, err := os.Stat(usual); err == nil || os.Getenv("SSL_CERT_FILE") != "" {
		return nil, nil
	}
	single, _ := filepath.Glob(python.Path("usr/share/ca-certificates/mozilla/*.crt"))
	if len(single) == 0 {
		return nil, nil
	}
	var all bytes.Buffer
	for _, path := range single {
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		all.Write(raw)
	}
	sum := sha256.Sum256(all.Bytes())
	bundle := f.Cache.Path("certificates", hex.EncodeToString(sum[:])+".pem")
	if _, err := os.Stat(bundle); err == nil {
		return []string{"SSL_CERT_FILE=" + bundle, "REQUESTS_CA_BUNDLE=" + bundle}, nil
	}
	temp, err := f.Cache.Temp()
	if err != nil {
		return nil, err
	}
	defer temp.Close()
	if _, err := temp.Write(all.Bytes()); err != nil {
		return nil, err
	}
	if err := f.Cache.Keep(temp.Name(), bundle); err != nil {
		return nil, err
	}
	return []string{"SSL_CERT_FILE=" + bundle, "REQUESTS_CA_BUNDLE=" + bundle}, nil
}

// entryPoints reads the console scripts of all wheels in a site (entry_points.txt of the
// "Entry points specification" of PyPA).
func entryPoints(dir string) (map[string]entry, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.dist-info", "entry_points.txt"))
	if err != nil {
		return nil, err
	}
	programs := map[string]entry{}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		parseEntryPoints(f, programs)
		f.Close()
	}
	return programs, nil
}

func parseEntryPoints(r io.Reader, programs map[string]entry) {
	section := ""
	for lines := bufio.NewScanner(r); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
			continue
		}
		name, object, found := strings.Cut(line, "=")
		if section != "[console_scripts]" || !found {
			continue
		}
		object, _, _ = strings.Cut(object, "[") // extras
		module, function, found := strings.Cut(strings.TrimSpace(object), ":")
		if found && dotted(module) && dotted(function) {
			programs[strings.TrimSpace(name)] = entry{module, function}
		}
	}
}

// dotted accepts a Python name only, because it becomes part of a program.
func dotted(s string) bool {
	for part := range strings.SplitSeq(s, ".") {
		if part == "" {
			return false
		}
		for i := range len(part) {
			c := part[i]
			if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
				return false
			}
		}
	}
	return true
}

// Command prepares to run a program of the wheels, as "walt". Errors show when the
// command is started.
func (s *Site) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	e, known := s.programs[name]
	if !known {
		return &exec.Cmd{Path: name, Args: append([]string{name}, args...),
			Err: errors.New("cannot run " + name + ": no wheel has a program of this name")}
	}
	start := fmt.Sprintf("import sys, importlib; sys.argv[0] = %q; m = importlib.import_module(%q); sys.exit(m.%s())", name, e.module, e.function)
	return s.Python(ctx, append([]string{"-c", start}, args...)...)
}

// Python prepares to run the interpreter, which finds the packages of the site.
func (s *Site) Python(ctx context.Context, args ...string) *exec.Cmd {
	c := s.python.Command(ctx, "python3", args...)
	if c.Err == nil {
		c.Env = append(c.Env, "PYTHONPATH="+s.dir, "PYTHONPYCACHEPREFIX="+s.dir+".pycache")
	}
	return c
}

// Path names a file of the site.
func (s *Site) Path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }
