package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/waltos/waltos/image/compare"
	"github.com/waltos/waltos/image/keys"
)

// Verification is what a second build has shown.
type Verification struct {
	First, Second *Result
	Differences   []compare.Difference
}

// Verify builds the outputs unless they are there, then builds them once more from a
// copy of the sources, in another folder, with other modes, times and order of its
// files, and with another umask, locale, time zone and number of processors, and
// compares byte for byte. The second build has no keys, but the signatures of the first.
// It is removed in the end.
func Verify(ctx context.Context, o Options) (*Verification, error) {
	first, err := Build(ctx, o)
	if err != nil {
		return nil, err
	}
	b, err := open(o)
	if err != nil {
		return nil, err
	}
	if !first.Manifest.Released {
		return nil, errors.New("cannot verify: the outputs were built from a lock override; run `go run ./image lock --update`")
	}
	scratch, err := b.Inputs.Fetcher.Cache.TempDir()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	b.Progress.Say("building once more, elsewhere")
	second, err := b.rebuild(ctx, scratch, first.Manifest.extras())
	if err != nil {
		return nil, fmt.Errorf("cannot build once more: %w", err)
	}
	differences, err := Compare(ctx, o, first, second)
	if err != nil {
		return nil, err
	}
	return &Verification{first, second, differences}, nil
}

// Open returns the outputs that a folder holds.
func Open(dir string) (*Result, error) {
	m, err := readManifest(filepath.Join(dir, manifestName))
	if err != nil {
		return nil, fmt.Errorf("%s holds no build: %w", dir, err)
	}
	return m.result(dir), nil
}

// Compare compares the outputs of two builds, and their manifests.
func Compare(ctx context.Context, o Options, first, second *Result) ([]compare.Difference, error) {
	c, done, err := comparer(ctx, o)
	if err != nil {
		return nil, err
	}
	defer done()
	names := maps.Clone(first.Manifest.Outputs)
	maps.Copy(names, second.Manifest.Outputs)
	return c.Folders(ctx, first.Dir, second.Dir, append(slices.Sorted(maps.Keys(names)), manifestName))
}

// comparer returns what compares outputs, until done is called.
func comparer(ctx context.Context, o Options) (c *compare.Comparer, done func(), err error) {
	b, err := open(o)
	if err != nil {
		return nil, nil, err
	}
	box, err := b.Inputs.Toolbox(ctx, tools)
	if err != nil {
		return nil, nil, err
	}
	scratch, err := b.Inputs.Fetcher.Cache.TempDir()
	if err != nil {
		return nil, nil, err
	}
	return &compare.Comparer{Command: box.Command, Scratch: scratch}, func() { os.RemoveAll(scratch) }, nil
}

// rebuild runs the builder of a copy of the sources in a process of its own.
func (b *builder) rebuild(ctx context.Context, scratch string, also []string) (*Result, error) {
	source, out := filepath.Join(scratch, "another place"), filepath.Join(scratch, "out")
	if err := copySource(b.Source, source); err != nil {
		return nil, fmt.Errorf("cannot copy the sources: %w", err)
	}
	program := filepath.Join(scratch, "image")
	compile := exec.CommandContext(ctx, "go", "build", "-o", program, "./image")
	compile.Dir = source
	if text, err := compile.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot compile the builder: %w\n%s", err, bytes.TrimSpace(text))
	}
	var messages bytes.Buffer
	cmd := exec.CommandContext(ctx, "sh", "-c", `umask 077; exec "$0" "$@"`, program, "build",
		"--cache", b.Inputs.Fetcher.Cache.Path(), "--mirror", b.Options.Mirror, "--architecture", b.Inputs.Appliance.Debian.Architecture,
		"--output", out, "--signatures", b.Output, "--also", strings.Join(also, ","))
	cmd.Dir = filepath.Join(source, "services")
	cmd.Env = append(os.Environ(), "TZ=Pacific/Apia", "LC_ALL=tr_TR.UTF-8", "GOMAXPROCS=1", "SOURCE_DATE_EPOCH=12345",
		"GOAMD64=v3", "GOARM64=v9.0", "GOFLAGS=-trimpath=false", keys.FolderVariable+"="+filepath.Join(scratch, "no keys"))
	cmd.Stdout, cmd.Stderr = &messages, &messages
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, bytes.TrimSpace(messages.Bytes()))
	}
	return Open(out)
}

// copySource copies what Go and the builder read, in random order, with other modes
// and times.
func copySource(from, to string) error {
	var files []string
	err := filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && name != from && strings.HasPrefix(entry.Name(), ".") {
			return fs.SkipDir
		}
		if !entry.IsDir() {
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	rand.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	for _, name := range files {
		if err := copyFile(name, filepath.Join(to, strings.TrimPrefix(name, from))); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, content, info.Mode().Perm()&0o700); err != nil {
		return err
	}
	at := time.Unix(rand.Int64N(1e9), 0)
	return os.Chtimes(to, at, at)
}

// Report prints every output with what was found.
func (v *Verification) Report(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	differs := map[string]bool{}
	for _, d := range v.Differences {
		differs[d.Where[0]] = true
	}
	for _, name := range slices.Sorted(maps.Keys(v.First.Manifest.Outputs)) {
		found := "identical"
		if differs[name] {
			found = "DIFFERS"
		}
		fmt.Fprintf(out, "%s\t%s\t%s\n", name, found, v.First.Manifest.Outputs[name].SHA256)
	}
	for _, d := range v.Differences {
		fmt.Fprintln(out, d)
	}
	return out.Flush()
}
