package tests

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/qemu/provision"
)

var supplies struct {
	sync.Once
	*provision.Supplies
	err error
}

// prepare builds the appliance and fetches the lab's tools, once for all tests.
func prepare(t *testing.T) *provision.Supplies {
	t.Helper()
	supplies.Do(func() {
		// All tests share the result: it must outlive the context of this one.
		supplies.Supplies, supplies.err = provision.Get(context.WithoutCancel(t.Context()), provision.Options{Progress: fetch.NewProgress(os.Stderr)})
	})
	if supplies.err != nil {
		t.Fatal(supplies.err)
	}
	return supplies.Supplies
}

// copySource copies the source tree to another folder, without what git and builds
// keep in it.
func copySource(t *testing.T, target string) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if entry.Name() == ".git" || entry.Name() == ".cache" {
				return filepath.SkipDir
			}
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel("..", path)
		if err != nil {
			return err
		}
		file := filepath.Join(target, relative)
		return errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, content, 0o644))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestReproducible builds a second time from another folder, at another time, in
// another zone, with another umask, language and number of CPUs: each output has the
// same SHA-256.
func TestReproducible(t *testing.T) {
	first := prepare(t)
	if !first.Released {
		t.Skip("SKIPPED: packages of the lock are gone and were replaced; `go run ./image lock --update` makes this test possible again")
	}
	source := filepath.Join(t.TempDir(), "somewhere else")
	copySource(t, source)
	output := filepath.Join(t.TempDir(), "out")
	old := syscall.Umask(0o077)
	build := exec.CommandContext(t.Context(), "go", "run", "./image", "build", "--output", output)
	build.Dir = source
	build.Env = append(os.Environ(), "TZ=Asia/Kathmandu", "LC_ALL=C", "GOMAXPROCS=1", "SOURCE_DATE_EPOCH=12345")
	text, err := build.CombinedOutput()
	syscall.Umask(old)
	if err != nil {
		t.Fatalf("the second build failed: %v\n%s", err, text)
	}
	one, two := manifest(t, filepath.Dir(first.Image.Disk)), manifest(t, output)
	for name, sum := range one {
		if two[name] != sum {
			t.Errorf("%s differs: %s, then %s", name, sum, two[name])
		}
	}
	if len(one) < 5 || len(one) != len(two) {
		t.Errorf("the outputs are %v, then %v", one, two)
	}
}

// manifest returns the SHA-256 of each output of a build.
func manifest(t *testing.T, folder string) map[string]string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(folder, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Outputs map[string]struct{ SHA256 string }
	}
	if err := json.Unmarshal(content, &m); err != nil {
		t.Fatal(err)
	}
	sums := map[string]string{}
	for name, output := range m.Outputs {
		sums[name] = output.SHA256
	}
	return sums
}
