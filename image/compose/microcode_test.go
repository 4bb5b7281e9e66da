package compose

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/waltos/waltos/image/tree"
)

func TestMicrocode(t *testing.T) {
	root := tree.New()
	early, err := microcode(root, time.Unix(1e9, 0))
	if err != nil || len(early) != 0 {
		t.Fatalf("without microcode: %d bytes, %v", len(early), err)
	}
	for name, content := range map[string]string{
		"/usr/lib/firmware/amd-ucode/microcode_amd.bin": "a", "/usr/lib/firmware/amd-ucode/microcode_amd_fam17h.bin": "b",
		"/usr/lib/firmware/amd-ucode/microcode_amd.bin.asc": "signature", "/usr/lib/firmware/intel-ucode/06-8e-09": "c", "/usr/lib/firmware/intel-ucode/06-8e-0a": "c",
		"/usr/lib/firmware/other.bin": "x",
	} {
		if err := root.Add(name, &tree.File{Mode: 0o644, Content: []byte(content)}); err != nil {
			t.Fatal(err)
		}
	}
	if early, err = microcode(root, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	if root.Find("/usr/lib/firmware/intel-ucode") != nil || root.Find("/usr/lib/firmware/other.bin") == nil {
		t.Error("the root has still microcode, or lost other firmware")
	}
	// The next archive begins where the kernel looks for one.
	if len(early)%4 != 0 || !bytes.HasPrefix(early, []byte("070701")) {
		t.Errorf("%d bytes that begin with %.10q", len(early), early)
	}
	program, err := exec.LookPath("cpio")
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("not judged: cpio is not on this machine")
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, "-idm", "--quiet", "--no-preserve-owner")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(early)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v\n%s", err, text)
	}
	for name, want := range map[string]string{"AuthenticAMD.bin": "ab", "GenuineIntel.bin": "c"} {
		if got, err := os.ReadFile(filepath.Join(dir, "kernel/x86/microcode", name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
}
