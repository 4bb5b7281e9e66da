// Package bench measures the appliance and prints figures; nothing in it is judged by
// the clock. Every limit that a figure is compared with is measured in the same run.
//
//	go test ./tests/bench -run xxx -bench . -benchtime 1x -timeout 60m
//
// Build: the time of `image build` with a filled cache, after a change of Go code, and
// with nothing to do; the size of each output. Boot: the appliance in the lab, from its
// disk through UEFI and by direct kernel, first and second boot, with one node; the
// memory of our processes at rest. Native (API, Logs, History, Memory, Scale, Trackexec): calls, log
// lines, memory, and a platform of 10,000 nodes, with the daemon as processes of this machine
// and PostgreSQL of the lock: neither appliance nor root.
//
// The lab is at 127.0.0.8. On a machine without KVM it emulates, and two labs at a time
// disturb each other's figures.
package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
)

// source is the top of the repository, from the folder of this package.
const source = "../.."

// table collects rows and prints them as one.
type table struct {
	text   strings.Builder
	writer *tabwriter.Writer
}

func newTable(heads ...string) *table {
	t := &table{}
	t.writer = tabwriter.NewWriter(&t.text, 0, 0, 2, ' ', 0)
	t.row(heads...)
	return t
}

func (t *table) row(cells ...string) {
	t.writer.Write([]byte(strings.Join(cells, "\t") + "\n"))
}

// print writes the table at once: a benchmark's own log is cut after some lines.
func (t *table) print(b *testing.B) {
	t.writer.Flush()
	fmt.Fprintf(os.Stderr, "\n%s\n%s\n", b.Name(), &t.text)
}

// copySource copies the files that git knows, or would take, to another folder.
func copySource(b *testing.B, target string) {
	b.Helper()
	list := exec.CommandContext(b.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = source
	out, err := list.Output()
	if err != nil {
		b.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(source, name))
		if os.IsNotExist(err) {
			continue // removed, not yet committed
		}
		if err != nil {
			b.Fatal(err)
		}
		file := filepath.Join(target, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(file, content, 0o644); err != nil {
			b.Fatal(err)
		}
	}
}
