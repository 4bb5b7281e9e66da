package qcow2

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestWrite(t *testing.T) {
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
			judge(t, path, raw, image)
		})
	}
}

// judge has QEMU's own tools read the image, where they are installed.
func judge(t *testing.T, path, raw string, image Image) {
	t.Helper()
	tool, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("not judged: qemu-img is not on this machine")
	}
	if out, err := exec.Command(tool, "check", path).CombinedOutput(); err != nil || !strings.Contains(string(out), "No errors") {
		t.Errorf("qemu-img check: %v\n%s", err, out)
	}
	out, err := exec.Command(tool, "info", "--output=json", path).Output()
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
	dd := exec.Command(tool, "dd", "-O", "raw", "bs=1M", "count=2", "if="+path, "of="+raw+".out")
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

func TestRefusals(t *testing.T) {
	for name, image := range map[string]Image{
		"no size":   {},
		"odd size":  {Size: 513},
		"too large": {Size: 65 << 40},
		"long name": {Size: 512, Backing: strings.Repeat("x", 1024)},
	} {
		if err := Write(&bytes.Buffer{}, image); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
