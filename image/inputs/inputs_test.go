package inputs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/image/archivetest"
	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/lock"
)

const description = `
name    = "test"
version = "1"
debian {
  architecture = "amd64"
  suites       = ["test"]
  components   = ["main"]
  keys         = []
}
disk {
  esp  = "1M"
  slot = "1M"
}
architecture "amd64" {
  kernel  = "kernel"
  command = ""
}
boot { modules = [] }
root { packages = ["server"] }
tool "build" { packages = ["tool"] }
`

// site is an archive and a place that builds from it.
type site struct {
	archive *archivetest.Archive
	options Options
	said    *bytes.Buffer
}

func pkg(name, version string, fields ...string) *archivetest.Package {
	p := &archivetest.Package{Name: name, Version: version, Fields: map[string]string{},
		Files: map[string]string{"usr/bin/" + name: name + " " + version}}
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i] == "Source" {
			p.Source = fields[i+1]
		} else {
			p.Fields[fields[i]] = fields[i+1]
		}
	}
	return p
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{archive: archivetest.New(t, "test"), said: &bytes.Buffer{}}
	s.archive.Put(
		pkg("kernel", "1", "Depends", "kernel-1", "Source", "linux"), pkg("kernel-1", "1", "Source", "linux"),
		pkg("server", "1", "Depends", "library (>= 1), data"), pkg("library", "1"), pkg("data", "1"),
		pkg("tool", "1", "Depends", "library"),
	)
	s.archive.Publish(t)
	s.options = Options{
		Appliance: filepath.Join(dir, "appliance.hcl"), Cache: filepath.Join(dir, "cache"), Mirror: s.archive.Dir,
		Progress: fetch.NewProgress(s.said), Snapshot: "none", Resolver: lock.Resolver{Keyring: s.archive.Keyring},
	}
	if err := os.WriteFile(s.options.Appliance, []byte(description), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Relock(context.Background(), s.options, false, io.Discard); err != nil {
		t.Fatal(err)
	}
	return s
}

// ensure opens the inputs and brings everything.
func (s *site) ensure(t *testing.T, override bool) (*Inputs, error) {
	t.Helper()
	s.options.Override = override
	in, err := Open(s.options)
	if err != nil {
		t.Fatal(err)
	}
	return in, in.Ensure(context.Background())
}

func versions(l *lock.Lock) string {
	var list []string
	for _, p := range l.Packages {
		list = append(list, p.Name+"="+p.Version)
	}
	return strings.Join(list, " ")
}

const original = "data=1 kernel=1 kernel-1=1 library=1 server=1 tool=1"

func TestLockAndEnsure(t *testing.T) {
	s := newSite(t)
	in, err := s.ensure(t, false)
	if err != nil {
		t.Fatal(err)
	}
	if got := versions(in.Lock); got != original || !in.Lock.Released() {
		t.Errorf("got %s", got)
	}
	// Once the cache is filled, no archive is needed.
	if err := os.RemoveAll(s.archive.Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ensure(t, false); err != nil {
		t.Errorf("offline: %v", err)
	}
	set, err := in.Lock.Set(lock.Root)
	if err != nil || len(set) != 3 {
		t.Fatalf("root has %v, %v", set, err)
	}
	data, err := in.Fetcher.Data(context.Background(), in.Lock.File(set[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	if h, err := data.Next(); err != nil || h.Name != "usr/bin/data" {
		t.Errorf("got %v, %v", h, err)
	}
}

func TestRelock(t *testing.T) {
	s := newSite(t)
	relock := func(update bool) string {
		t.Helper()
		var out bytes.Buffer
		if err := Relock(context.Background(), s.options, update, &out); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if out := relock(false); !strings.Contains(out, "fits") {
		t.Errorf("got %q", out)
	}
	if out := relock(true); !strings.Contains(out, "nothing changed") {
		t.Errorf("got %q", out)
	}
	s.archive.Put(pkg("library", "2"))
	s.archive.Publish(t)
	if out := relock(false); !strings.Contains(out, "fits") {
		t.Errorf("got %q", out)
	}
	if out := relock(true); !strings.Contains(out, "  library 1 → 2") {
		t.Errorf("got %q", out)
	}

	// A changed description makes the lock stale.
	changed := strings.Replace(description, `["tool"]`, `["tool", "data"]`, 1)
	if err := os.WriteFile(s.options.Appliance, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.options); err == nil || !strings.Contains(err.Error(), "tool/build names has changed; run `go run ./image lock`") {
		t.Errorf("got %v", err)
	}
	relock(false)
	if _, err := Open(s.options); err != nil {
		t.Error(err)
	}

	// A mirror that goes back in time is refused.
	s.archive.Date = s.archive.Date.Add(-24 * time.Hour)
	s.archive.Publish(t)
	err := Relock(context.Background(), s.options, true, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "older than the locked") {
		t.Errorf("got %v", err)
	}
}

func TestPackageGone(t *testing.T) {
	for name, c := range map[string]struct {
		change func(a *archivetest.Archive)
		gone   []string // names and versions
		want   string
		said   []string
	}{
		"newer version": {
			change: func(a *archivetest.Archive) { a.Put(pkg("library", "2")) },
			gone:   []string{"library 1"},
			want:   "data=1 kernel=1 kernel-1=1 library=2 server=1 tool=1",
			said:   []string{"gone: library 1; used instead: library 2"},
		},
		"others stay as locked": {
			change: func(a *archivetest.Archive) { a.Put(pkg("library", "2"), pkg("data", "2")) },
			gone:   []string{"library 1"},
			want:   "data=1 kernel=1 kernel-1=1 library=2 server=1 tool=1",
		},
		"newer version needs another newer": {
			change: func(a *archivetest.Archive) {
				a.Put(pkg("server", "2", "Depends", "library (>= 2), data"), pkg("library", "2"), pkg("data", "2"))
			},
			gone: []string{"server 1"},
			want: "data=1 kernel=1 kernel-1=1 library=2 server=2 tool=1",
		},
		"newer version needs more": {
			change: func(a *archivetest.Archive) { a.Put(pkg("library", "2", "Depends", "extra"), pkg("extra", "7")) },
			gone:   []string{"library 1"},
			want:   "data=1 extra=7 kernel=1 kernel-1=1 library=2 server=1 tool=1",
		},
		"the kernel changes its name": {
			change: func(a *archivetest.Archive) {
				a.Put(pkg("kernel", "2", "Depends", "kernel-2", "Source", "linux"), pkg("kernel-2", "2", "Source", "linux"))
				a.Drop("kernel-1")
			},
			gone: []string{"kernel-1 1"},
			want: "data=1 kernel=2 kernel-2=2 library=1 server=1 tool=1",
			said: []string{"gone: kernel-1 1; used instead: kernel-2 2", "gone: kernel 1; used instead: kernel 2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			for _, gone := range c.gone {
				name, version, _ := strings.Cut(gone, " ")
				if err := os.Remove(s.archive.Path(pkg(name, version))); err != nil {
					t.Fatal(err)
				}
			}
			c.change(s.archive)
			s.archive.Publish(t)

			// The build alone refuses, and names what to do.
			_, err := s.ensure(t, false)
			gone := (*fetch.Gone)(nil)
			if !errors.As(err, &gone) || len(gone.Packages) != len(c.gone) || gone.Packages[0].Label != c.gone[0] ||
				!strings.Contains(err.Error(), "image lock --update") {
				t.Fatalf("got %v", err)
			}
			// The lab goes on, loudly.
			in, err := s.ensure(t, true)
			if err != nil {
				t.Fatal(err)
			}
			if got := versions(in.Lock); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			for _, text := range append(c.said, "NOT THE RELEASED IMAGE") {
				if !strings.Contains(s.said.String(), text) {
					t.Errorf("did not say %q, but\n%s", text, s.said)
				}
			}
			if in.Lock.Released() {
				t.Error("the override passes for the released lock")
			}
			// The next run finds the override, says so again, and needs no archive.
			if err := os.RemoveAll(s.archive.Dir); err != nil {
				t.Fatal(err)
			}
			s.said.Reset()
			in, err = s.ensure(t, true)
			if err != nil || versions(in.Lock) != c.want || !strings.Contains(s.said.String(), "NOT THE RELEASED IMAGE") {
				t.Errorf("second run: %v, %s\n%s", err, versions(in.Lock), s.said)
			}
		})
	}
}

func TestListedButMissing(t *testing.T) {
	s := newSite(t)
	if err := os.Remove(s.archive.Path(pkg("library", "1"))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ensure(t, true); err == nil || !strings.Contains(err.Error(), "library 1 is still listed") {
		t.Errorf("got %v", err)
	}
}

func TestCorruptPackage(t *testing.T) {
	s := newSite(t)
	file := s.archive.Path(pkg("library", "1"))
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-1] ^= 1
	if err := os.WriteFile(file, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = s.ensure(t, true)
	corrupt := (*fetch.Corrupt)(nil)
	if !errors.As(err, &corrupt) {
		t.Fatalf("got %v", err)
	}
	want := fmt.Sprintf("cannot use library 1 of %s: expected SHA-256 %s", file, corrupt.File.SHA256)
	if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "found "+corrupt.Hash) ||
		!strings.Contains(err.Error(), "WALT_MIRROR") {
		t.Errorf("got %q, want %q in it", err, want)
	}
}

func TestForeignSignature(t *testing.T) {
	s := newSite(t)
	s.options.Resolver.Keyring = archivetest.New(t, "test").Keyring
	err := Relock(context.Background(), s.options, true, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "no good signature of a pinned key") {
		t.Errorf("got %v", err)
	}
}

// The locks of the repository fit its description, and that of another architecture holds
// nothing but what runs there.
func TestLocksOfRepository(t *testing.T) {
	for _, architecture := range []string{"", "amd64", "arm64"} {
		in, err := Open(Options{Appliance: "../appliance.hcl", Architecture: architecture, Cache: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		native := in.Native.Appliance.Debian.Architecture
		foreign := architecture != "" && architecture != native
		if in.Foreign() != foreign || len(in.Locks()) == 2 != foreign {
			t.Errorf("%q: foreign is %v, with %d locks", architecture, in.Foreign(), len(in.Locks()))
		}
		if !foreign {
			continue
		}
		if sets := in.Lock.Sets(lock.Boot, lock.Root); len(sets) > 0 {
			t.Errorf("%s: the lock has sets %v, which are those of %s", architecture, sets, native)
		}
		for _, p := range in.Lock.Packages {
			if p.Architecture != architecture && p.Architecture != "all" {
				t.Errorf("%s: package %s is of %s", architecture, p.Name, p.Architecture)
			}
		}
		if _, err := in.Native.Lock.Set(lock.ToolSet("lab-" + architecture)); err != nil {
			t.Error(err)
		}
	}
	if _, err := Open(Options{Appliance: "../appliance.hcl", Architecture: "pdp11", Cache: t.TempDir()}); err == nil || !strings.Contains(err.Error(), `"pdp11"`) {
		t.Errorf("an architecture without a block: %v", err)
	}
}
