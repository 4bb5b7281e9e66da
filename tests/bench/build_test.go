package bench

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/waltos/waltos/image/compose"
	"github.com/waltos/waltos/tests/supplies"
)

// build runs the command that a person runs, in a copy of the sources.
func build(b *testing.B, folder, output string) {
	b.Helper()
	command := exec.CommandContext(b.Context(), "go", "run", "./image", "build", "--output", output)
	command.Dir = folder
	if out, err := command.CombinedOutput(); err != nil {
		b.Fatalf("cannot build: %v\n%s", err, out)
	}
}

// copied returns a copy of the sources whose every package the Go toolchain has
// compiled, and the folder that its outputs are in.
func copied(b *testing.B) (folder, output string) {
	b.Helper()
	supplies.Get(b) // downloads
	folder, output = filepath.Join(b.TempDir(), "source"), filepath.Join(b.TempDir(), "output")
	copySource(b, folder)
	build(b, folder, output)
	return folder, output
}

// BenchmarkBuildWarm makes all outputs in a new folder; the cache has the packages and
// what was made of each, and the Go toolchain its compiled packages.
func BenchmarkBuildWarm(b *testing.B) {
	folder, _ := copied(b)
	for n := 0; b.Loop(); n++ {
		build(b, folder, filepath.Join(b.TempDir(), fmt.Sprint(n)))
	}
}

// BenchmarkBuildGoChange makes all outputs again after one string of the services has
// changed.
func BenchmarkBuildGoChange(b *testing.B) {
	folder, output := copied(b)
	file := filepath.Join(folder, "services", "main.go")
	content, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	const old = `"usage: services NAME`
	if !strings.Contains(string(content), old) {
		b.Fatalf("%s lacks %s, which this changes", file, old)
	}
	for n := 0; b.Loop(); n++ {
		text := strings.Replace(string(content), old, fmt.Sprintf(`"usage %d: services NAME`, n), 1)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
		build(b, folder, output)
	}
	sizes(b, output)
}

// BenchmarkBuildNothing finds that everything is current.
func BenchmarkBuildNothing(b *testing.B) {
	folder, output := copied(b)
	for b.Loop() {
		build(b, folder, output)
	}
}

// sizes reports the components of a build.
func sizes(b *testing.B, output string) {
	b.Helper()
	content, err := os.ReadFile(filepath.Join(output, "manifest.json"))
	if err != nil {
		b.Fatal(err)
	}
	var m compose.Manifest
	if err := json.Unmarshal(content, &m); err != nil {
		b.Fatal(err)
	}
	t := newTable("COMPONENT", "MB")
	for _, name := range slices.Sorted(maps.Keys(m.Sizes)) {
		t.row(name, fmt.Sprintf("%.1f", float64(m.Sizes[name])/1e6))
	}
	t.print(b)
	b.ReportMetric(float64(m.Sizes["root"]+m.Sizes["verity"])/1e6, "MB(root-slot)")
	b.ReportMetric(float64(m.Sizes["kernel"]+m.Sizes["initrd"])/1e6, "MB(kernel+initramfs)")
}
