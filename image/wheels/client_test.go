package wheels_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/inputs"
	"github.com/waltos/waltos/image/wheels"
)

func open(t *testing.T) *inputs.Inputs {
	t.Helper()
	if testing.Short() {
		t.Skip("downloads packages")
	}
	in, err := inputs.Open(inputs.Options{Appliance: "../appliance.hcl", Override: true, Progress: fetch.NewProgress(os.Stderr)})
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Ensure(context.Background(), inputs.Python); err != nil {
		t.Fatal(err)
	}
	return in
}

// The real client runs by the cached interpreter, on a host without Python.
func TestClient(t *testing.T) {
	in := open(t)
	ctx := context.Background()
	site, err := in.Client(ctx, "client")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "/nonexistent")
	t.Setenv("PYTHONPATH", "/nonexistent")
	t.Setenv("HOME", t.TempDir())
	for _, c := range []struct{ args, want string }{
		{"--help", "WalT platform control tool"},
		{"node show --help", "walt node show"},
		{"help list", "shell"},
	} {
		out, err := site.Command(ctx, "walt", strings.Fields(c.args)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.want) {
			t.Errorf("walt %s: %v\n%s", c.args, err, out)
		}
	}
	if err := site.Command(ctx, "none").Run(); err == nil || !strings.Contains(err.Error(), "no wheel has a program of this name") {
		t.Errorf("got %v", err)
	}
}

// A wheel that is damaged in the cache, and that pip cannot bring: pip's refusal is
// passed on, and nothing is installed.
func TestDamagedWheel(t *testing.T) {
	in := open(t)
	ctx := context.Background()
	python, err := in.Toolbox(ctx, inputs.Python)
	if err != nil {
		t.Fatal(err)
	}
	set, err := in.Lock.WheelSet("client")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := fetch.OpenCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	damaged := cache.File(set[0].SHA256)
	if err := os.MkdirAll(filepath.Dir(damaged), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(damaged, make([]byte, set[0].Size), 0o644); err != nil {
		t.Fatal(err)
	}
	// An index of nothing but a wrong file of that name.
	index := t.TempDir()
	if err := os.WriteFile(filepath.Join(index, set[0].File), []byte("wrong"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PIP_NO_INDEX", "1")
	t.Setenv("PIP_FIND_LINKS", index)
	f := &fetch.Fetcher{Cache: cache}
	one := *in.Lock
	one.Wheels = set[:1]
	_, err = wheels.Install(ctx, python, &one, f, "client")
	if err == nil || !strings.Contains(err.Error(), set[0].SHA256) {
		t.Errorf("got %v, want the expected hash in it", err)
	}
	if left, _ := os.ReadDir(cache.Path("site")); len(left) != 0 {
		t.Errorf("installed: %v", left)
	}
}
