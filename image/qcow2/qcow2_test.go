package qcow2

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waltos/waltos/image/inputs/inputstest"
)

func TestWrite(t *testing.T) {
	tool := qemuImg(t)
	for name, image := range map[string]Image{
		"empty":        {Size: 1 << 30},
		"one sector":   {Size: 512},
		"overlay":      {Size: 10 << 30, Backing: "disk.raw"},
		"huge overlay": {Size: 64 << 40, Backing: "disk.raw"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			raw := filepath.Join(dir, "disk.raw")
			if err := os.WriteFile(raw, bytes.Repeat([]byte("walt"), 1<<18), 0o600); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := Write(&out, image); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "disk.qcow2")
			if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			judge(t, tool, path, raw, image)
		})
	}
}

// qemuImg returns QEMU's own tool for images.
func qemuImg(t *testing.T) func(arguments ...string) *exec.Cmd {
	t.Helper()
	box := inputstest.Tools(t, "lab")
	return func(arguments ...string) *exec.Cmd { return box.Command(t.Context(), "qemu-img", arguments...) }
}

// judge has QEMU read the image.
func judge(t *testing.T, tool func(...string) *exec.Cmd, path, raw string, image Image) {
	t.Helper()
	if out, err := tool("check", path).CombinedOutput(); err != nil || !strings.Contains(string(out), "No errors") {
		t.Errorf("qemu-img check: %v\n%s", err, out)
	}
	out, err := tool("info", "--output=json", path).Output()
	if err != nil {
		t.Fatalf("qemu-img info: %v", err)
	}
	var info struct {
		Size    int64  `json:"virtual-size"`
		Backing string `json:"full-backing-filename"`
		Format  string `json:"backing-filename-format"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		t.Fatal(err)
	}
	if info.Size != image.Size {
		t.Errorf("virtual size %d, expected %d", info.Size, image.Size)
	}
	if image.Backing == "" {
		return
	}
	if info.Backing != raw || info.Format != "raw" {
		t.Errorf("backing file %q of format %q, expected %q raw", info.Backing, info.Format, raw)
	}
	dd := tool("dd", "-O", "raw", "bs=1M", "count=2", "if="+path, "of="+raw+".out")
	if out, err := dd.CombinedOutput(); err != nil {
		t.Fatalf("qemu-img dd: %v\n%s", err, out)
	}
	got, err := os.ReadFile(raw + ".out")
	if err != nil {
		t.Fatal(err)
	}
	want := append(bytes.Repeat([]byte("walt"), 1<<18), make([]byte, 1<<20)...)
	if !bytes.Equal(got, want) {
		t.Error("content is not that of the backing file followed by zeroes")
	}
}

// An image with content is the raw image, followed by zeroes.
func TestContent(t *testing.T) {
	tool := qemuImg(t)
	for name, test := range map[string]struct {
		content, size int64
		at            []int64 // clusters that are not zeroes
	}{
		"empty":          {1 << 20, 1 << 20, nil},
		"half a cluster": {3*clusterSize + 512, 1 << 30, []int64{0, 3}},
		"several tables": {2*bytesPerL1 + clusterSize, 3 * bytesPerL1, []int64{1, perL2 - 1, perL2, 2 * perL2}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			raw, path := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.qcow2")
			from, err := os.Create(raw)
			if err != nil {
				t.Fatal(err)
			}
			defer from.Close()
			if err := from.Truncate(test.content); err != nil {
				t.Fatal(err)
			}
			for _, cluster := range test.at {
				if _, err := from.WriteAt([]byte{byte(cluster + 1), 7}, cluster*clusterSize+100); err != nil {
					t.Fatal(err)
				}
			}
			to, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			image := Image{Size: test.size, Content: from, ContentSize: test.content}
			if err := errors.Join(Write(to, image), to.Close()); err != nil {
				t.Fatal(err)
			}
			judge(t, tool, path, raw, image)
			if err := from.Truncate(test.size); err != nil {
				t.Fatal(err)
			}
			if out, err := tool("compare", "-f", "raw", "-F", "qcow2", raw, path).CombinedOutput(); err != nil {
				t.Errorf("qemu-img compare: %v\n%s", err, out)
			}
		})
	}
}

// Refcount blocks count themselves.
func TestPlan(t *testing.T) {
	for _, test := range []struct {
		used int64
		want layout
	}{
		{0, layout{refcounts: 1, entries: 128, l1: 3, l2: 4, data: 4}},
		{perBlock - 8, layout{refcounts: 1, entries: 128, l1: 3, l2: 4, data: 8}},
		{perBlock - 7, layout{refcounts: 2, entries: 128, l1: 4, l2: 5, data: 9}},
		{3*perBlock - 17, layout{refcounts: 4, entries: 128, l1: 6, l2: 7, data: 19}},
	} {
		used := make([]int64, test.used)
		for i := range used {
			used[i] = int64(i)
		}
		if got := plan(64<<30, used); got != test.want {
			t.Errorf("%d clusters: %+v, expected %+v", test.used, got, test.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	for name, image := range map[string]Image{
		"no size":   {},
		"odd size":  {Size: 513},
		"too large": {Size: 65 << 40},
		"content":   {Size: 512, ContentSize: 1024},
		"long name": {Size: 512, Backing: strings.Repeat("x", 1024)},
	} {
		if err := Write(&bytes.Buffer{}, image); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
