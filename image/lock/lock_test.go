package lock

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/image/archivetest"
	"github.com/waltos/waltos/image/fetch"
)

func sample() *Lock {
	hash := strings.Repeat("0a", 32)
	return &Lock{
		Debian:    Policy{Architecture: "amd64", Suites: []string{"s", "s-security"}, Components: []string{"main"}},
		Snapshots: []Snapshot{{"s", time.Date(2026, 9, 12, 7, 55, 41, 0, time.UTC)}, {"s-security", time.Date(2026, 11, 21, 0, 53, 3, 0, time.UTC)}},
		Wanted:    []Wanted{{Boot, []string{"k"}}, {Root, []string{"a"}}, {"wheels/client", []string{"w"}}},
		Packages: []Package{
			{Name: "a", Version: "1:1~b+c-1", Architecture: "amd64", Suite: "s-security", Path: "pool/a.deb", Size: 1, SHA256: hash, Sets: []string{"root"}},
			{Name: "k", Version: "2", Architecture: "amd64", Suite: "s", Source: "linux", Path: "pool/k.deb", Size: 2, SHA256: hash, Sets: []string{"boot", "root"}},
		},
		Wheels: []Wheel{{Set: "client", Name: "w", Version: "1", File: "w-1-py3-none-any.whl", Size: 3, SHA256: hash}},
	}
}

func TestEncode(t *testing.T) {
	l := sample()
	raw := l.Encode()
	again, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Encode(), raw) {
		t.Errorf("differs after reading: %s", cmp.Diff(string(raw), string(again.Encode())))
	}
	if n := bytes.Count(raw, []byte("\n")); n != 20 {
		t.Errorf("%d lines, want one an item:\n%s", n, raw)
	}
	if again.Digest() != l.Digest() || !again.Released() {
		t.Error("digest or mark differ after reading")
	}
	name := filepath.Join(t.TempDir(), "lock")
	if err := l.Save(name); err != nil {
		t.Fatal(err)
	}
	if loaded, err := Load(name); err != nil || loaded.Digest() != l.Digest() {
		t.Errorf("got %v", err)
	}
}

func TestFiles(t *testing.T) {
	l := sample()
	files, err := l.Files()
	if err != nil {
		t.Fatal(err)
	}
	want := []fetch.File{
		{Label: "k 2", Archive: fetch.Debian, Path: "pool/k.deb", Size: 2, SHA256: l.Packages[0].SHA256, Snapshot: l.Snapshots[0].Date},
		{Label: "a 1:1~b+c-1", Archive: fetch.Security, Path: "pool/a.deb", Size: 1, SHA256: l.Packages[0].SHA256, Snapshot: l.Snapshots[1].Date},
	}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Error(diff)
	}
	if _, err := l.Files("tool/none"); err == nil {
		t.Error("an unknown set is accepted")
	}
}

func TestParseRefuses(t *testing.T) {
	good := string(sample().Encode())
	for _, c := range []struct{ old, new, want string }{
		{"pool/a.deb", "../a.deb", "bad hash, size, path"},
		{"pool/a.deb", "/a.deb", "bad hash, size, path"},
		{`"size":1`, `"size":-1`, "bad hash, size, path"},
		{`"sha256":"0a`, `"sha256":"xx`, "bad hash, size, path"},
		{`"name":"a"`, `"name":"k"`, "twice"},
		{`"name":"a"`, `"nam":"a"`, "json: unknown field"},
		{"w-1-py3-none-any.whl", "../x.whl", "bad hash, size or file"},
		{"\n}\n", "\n}\n{}", "text follows"},
		{"{", "[", "line"},
	} {
		if _, err := Parse([]byte(strings.Replace(good, c.old, c.new, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s → %s: got %v, want %q in it", c.old, c.new, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample().Encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := Parse(raw)
		if err != nil {
			return
		}
		again, err := Parse(l.Encode())
		if err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		if again.Digest() != l.Digest() {
			t.Error("differs after reading")
		}
	})
}

func appliance(suite string) *hcl.Appliance {
	return &hcl.Appliance{
		Debian: &hcl.Debian{Architecture: "amd64", Suites: []string{suite}, Components: []string{"main"}},
		Boot:   &hcl.Boot{Kernel: "a"}, Root: &hcl.Root{Packages: []string{"a"}},
	}
}

func TestSuitePassedOff(t *testing.T) {
	archive := archivetest.New(t, "stable")
	archive.Put(&archivetest.Package{Name: "a", Version: "1"})
	archive.Publish(t)
	cache, err := fetch.OpenCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	resolver := Resolver{Keyring: archive.Keyring, Fetcher: &fetch.Fetcher{Cache: cache, Mirror: fetch.FindMirror(archive.Dir, "")}}
	ctx := context.Background()
	if _, err := resolver.Resolve(ctx, appliance("stable")); err != nil {
		t.Fatal(err)
	}
	// The same signed files under another name.
	mirror := t.TempDir()
	resolver.Fetcher = &fetch.Fetcher{Cache: cache, Mirror: fetch.FindMirror(mirror, "")}
	link(t, filepath.Join(archive.Dir, "dists", "stable"), filepath.Join(mirror, "dists", "testing"))
	if _, err := resolver.Resolve(ctx, appliance("testing")); err == nil || !strings.Contains(err.Error(), "asked for suite testing, got stable") {
		t.Errorf("got %v", err)
	}
	resolver.Now = func() time.Time { return time.Now().Add(-24 * time.Hour) }
	if _, err := resolver.Resolve(ctx, appliance("testing")); err == nil {
		t.Error("a key of tomorrow is trusted")
	}
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func TestChanges(t *testing.T) {
	old := &Lock{
		Packages: []Package{
			{Name: "a", Version: "1", Path: "pool/a_1.deb", Size: 1e6, Sets: []string{"root"}},
			{Name: "b", Version: "1", Path: "pool/b_1.deb", Size: 2e6, Sets: []string{"boot", "root"}},
			{Name: "c", Version: "1", Path: "pool/c_1.deb", Size: 3e6, Sets: []string{"root"}},
			{Name: "same", Version: "1", Path: "pool/same_1.deb", Size: 1, Sets: []string{"root"}},
		},
		Wheels: []Wheel{{Set: "client", Name: "w", Version: "1", File: "w-1.whl", Size: 1e6}},
	}
	now := &Lock{
		Packages: []Package{
			{Name: "b", Version: "2", Path: "pool/b_2.deb", Size: 2.5e6, Sets: []string{"boot", "root"}},
			{Name: "c", Version: "1", Path: "pool/c_1.deb", Size: 3e6, Sets: []string{"tool/lab"}},
			{Name: "d", Version: "1", Path: "pool/d_1.deb", Size: 1e4, Sets: []string{"root"}},
			{Name: "same", Version: "1", Path: "pool/same_1.deb", Size: 1, Sets: []string{"root"}},
		},
		Wheels: []Wheel{{Set: "client", Name: "w", Version: "0", File: "w-0.whl", Size: 1e6}},
	}
	want := []string{
		"- a 1 (1.00 MB; root), no longer fetched: pool/a_1.deb",
		"  b 1 → 2 (2.00 MB → 2.50 MB)",
		"  c 1: root → tool/lab",
		"+ d 1 (0.01 MB; root)",
		"  wheel w 1 → 0 (1.00 MB → 1.00 MB)",
		"set boot: 2.00 MB → 2.50 MB",
		"set root: 6.00 MB → 2.51 MB",
		"set tool/lab: 0.00 MB → 3.00 MB",
	}
	if got := now.Changes(old); !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if got := now.Changes(now); len(got) > 0 {
		t.Errorf("nothing changed, but %q", got)
	}
}
