package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	for text, want := range map[string][]Spec{
		"none":                  nil,
		"8G":                    {{8e9, none}},
		"8G,2T[template=ext4]":  {{8e9, none}, {2e12, ext4}},
		"1G[template=fat32],3G": {{1e9, fat32}, {3e9, none}},
		"1G[template=none]":     {{1e9, none}},
		"999999T":               {{999999e12, none}},
		"1G[template=hybrid-boot-v],1G[template=hybrid-boot-p]": {{1e9, hybridVolatile}, {1e9, hybridPersistent}},
	} {
		if got, err := Parse(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q has the disks %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "8", "G", "0G", "8M", "8G,", "none,8G", "8G[]", "8G[template=]", "8G[x=y]", "8G[template=ext4", "9999999G",
		"8G[template=ext4,template=fat32]", "-1G", "8G[template=ext4]x", strings.Repeat("1G,", maxDisks) + "1G"} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%q was accepted as %v", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"none", "8G", "1T[template=ext4],2G[template=hybrid-boot-p]", "8G[]"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		specs, err := Parse(text)
		if err != nil {
			return
		}
		for _, s := range specs {
			if s.Size < 1e9 || !slices.Contains(templates, s.Template) {
				t.Errorf("%q has disk %v", text, s)
			}
		}
	})
}

// tool returns a program that judges, or ends the test: the end-to-end tests have all.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := findProgram(name)
	if err != nil {
		t.Skipf("no %s on this machine (tests/vnode runs all templates with the locked programs): %v", name, err)
	}
	return path
}

// prepare makes one disk and returns its file.
func prepare(t *testing.T, folder, text string) string {
	t.Helper()
	specs, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	files, err := Prepare(t.Context(), folder, specs)
	if err != nil {
		t.Fatal(err)
	}
	return files[0].Path
}

// TestKept changes what is asked for: a disk is kept as long as it fits.
func TestKept(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "new", "disks")
	path := prepare(t, folder, "1G")
	if path != filepath.Join(folder, "disk_0.dd") {
		t.Errorf("the disk is %s", path)
	}
	mark := func() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte("mark"), 4096); err != nil {
			t.Fatal(err)
		}
	}
	marked := func() bool {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		text := make([]byte, 4)
		if _, err := f.ReadAt(text, 4096); err != nil {
			t.Fatal(err)
		}
		return string(text) == "mark"
	}
	for _, step := range []struct {
		disks  string
		kept   bool
		damage func()
	}{
		{"1G", true, nil},
		{"1G,1G", true, nil},
		{"2G", false, nil},
		{"2G[template=fat32]", false, nil},
		{"2G[template=fat32]", true, nil},
		{"2G", false, nil},
		{"2G", true, func() { os.Remove(filepath.Join(folder, "disk_0.info")) }},                  // of an older upstream
		{"2G[template=fat32]", false, func() { os.Remove(filepath.Join(folder, "disk_0.info")) }}, // its making was interrupted
		{"2G", false, func() { os.WriteFile(filepath.Join(folder, "disk_0.new"), nil, 0o644) }},   // and here too
		{"2G", true, nil},
		{"2G", false, func() { os.WriteFile(filepath.Join(folder, "disk_0.info"), []byte("[]"), 0o644) }},
		{"2G", false, func() { os.Truncate(path, 1e9) }},
	} {
		mark()
		if step.damage != nil {
			step.damage()
		}
		prepare(t, folder, step.disks)
		if marked() != step.kept {
			t.Errorf("after %q the content is kept: %v", step.disks, marked())
		}
	}
	text, err := os.ReadFile(filepath.Join(folder, "disk_0.info"))
	var have map[string]string
	if err != nil || json.Unmarshal(text, &have) != nil || have["template"] != "none" || len(have) != 1 {
		t.Errorf("the information is %q, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(folder, "disk_1.dd")); err != nil {
		t.Error("a disk that is not asked for any more is gone")
	}
}

// TestFailedMaking: a disk that cannot be made leaves the one that is there, and no other.
func TestFailedMaking(t *testing.T) {
	folder := t.TempDir()
	prepare(t, folder, "1G")
	if err := os.WriteFile(filepath.Join(folder, "disk_0.new"), []byte("of an earlier attempt"), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // which keeps the formatter from running
	if _, err := Prepare(ctx, folder, []Spec{{2e9, ext4}}); err == nil {
		t.Fatal("a disk was made without its formatter")
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 2 || !(Spec{1e9, none}).isAt(filepath.Join(folder, "disk_0")) {
		t.Errorf("there are %v, %v", entries, err)
	}
}

// extract copies the partition of a disk to a file of its own, sparse.
func extract(t *testing.T, path string, p extent) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "partition")
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	base, size := int64(p.first)*sectorSize, int64(p.sectors)*sectorSize
	if err := out.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for at := base; ; {
		data, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if err == unix.ENXIO || data >= base+size {
			return to
		}
		if err != nil {
			t.Fatal(err)
		}
		if at, err = unix.Seek(int(in.Fd()), data, unix.SEEK_HOLE); err != nil {
			t.Fatal(err)
		}
		at = min(at, base+size)
		if _, err := io.Copy(io.NewOffsetWriter(out, data-base), io.NewSectionReader(in, data, at-data)); err != nil {
			t.Fatal(err)
		}
	}
}

// allocated returns how many bytes a file takes.
func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Blocks * 512
}

func TestExt4(t *testing.T) {
	fsck, debugfs := tool(t, "e2fsck"), tool(t, "debugfs")
	tool(t, "mke2fs")
	for template, want := range map[string]string{ext4: "lost+found", hybridVolatile: "walt_hybrid", hybridPersistent: "walt_hybrid .persistent"} {
		path := prepare(t, t.TempDir(), "8G[template="+template+"]")
		if size := allocated(t, path); size > 200<<20 {
			t.Errorf("the empty disk of template %s takes %d bytes", template, size)
		}
		at := fmt.Sprintf("%s?offset=%d", path, firstSector*sectorSize)
		if out, err := exec.Command(fsck, "-fn", at).CombinedOutput(); err != nil {
			t.Errorf("e2fsck of template %s: %v\n%s", template, err, out)
		}
		var listed strings.Builder
		for _, folder := range []string{"/", "/walt_hybrid"} {
			out, err := exec.Command(debugfs, "-R", "ls -l "+folder, at).CombinedOutput()
			if err != nil {
				t.Errorf("debugfs of template %s: %v\n%s", template, err, out)
			}
			listed.Write(out)
		}
		for name := range strings.FieldsSeq(want) {
			if !strings.Contains(listed.String(), name) {
				t.Errorf("template %s has no %s:\n%s", template, name, listed.String())
			}
		}
		if template == ext4 && strings.Contains(listed.String(), "walt_hybrid\n") || template != hybridPersistent && strings.Contains(listed.String(), ".persistent") {
			t.Errorf("template %s has more:\n%s", template, listed.String())
		}
	}
}

func TestFAT32(t *testing.T) {
	fsck := tool(t, "fsck.fat")
	for _, size := range []string{"1G", "9G", "17G", "40G", "3T"} {
		path := prepare(t, t.TempDir(), size+"[template=fat32]")
		stat, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		partition := extract(t, path, partition(stat.Size()))
		if out, err := exec.Command(fsck, "-nv", partition).CombinedOutput(); err != nil || !bytes.Contains(out, []byte("512 bytes per logical sector")) ||
			bytes.Contains(out, []byte("differences")) || bytes.Contains(out, []byte("Dirty")) {
			t.Errorf("fsck.fat of %s: %v\n%s", size, err, out)
		}
		if taken := allocated(t, path); taken > 1<<20 {
			t.Errorf("the empty disk of %s takes %d bytes", size, taken)
		}
	}
}

// TestPartition has sfdisk read the tables.
func TestPartition(t *testing.T) {
	sfdisk := tool(t, "sfdisk")
	for disks, want := range map[string]string{
		"1G[template=ext4]":  "start=        2048, size=     1951077, type=83",
		"1G[template=fat32]": "start=        2048, size=     1951077, type=c",
		"3T[template=fat32]": "start=        2048, size=  4294965247, type=c",
	} {
		out, err := exec.Command(sfdisk, "--dump", prepare(t, t.TempDir(), disks)).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), "label: dos") {
			t.Errorf("%s: %v\n%s", disks, err, out)
		}
	}
}

// TestNoRoom makes a disk where none can be: nothing is left that looks like one.
func TestNoRoom(t *testing.T) {
	folder := t.TempDir()
	_, err := Prepare(t.Context(), folder, []Spec{{Size: 1 << 62, Template: fat32}})
	if err == nil {
		t.Fatal("a disk of 4 EiB was made")
	}
	if left, _ := os.ReadDir(folder); len(left) > 0 || !strings.Contains(err.Error(), "cannot make disk "+folder+"/disk_0.dd") {
		t.Errorf("%v; there are %v", err, left)
	}
}
