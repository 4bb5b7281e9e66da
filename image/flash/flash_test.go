package flash

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// memory is a target that may break.
type memory struct {
	content  []byte
	writeErr error
	wrong    int64 // byte that reads wrong after Forget; 0: none
	zeroed   int64
	synced   bool
}

func (m *memory) ReadAt(p []byte, at int64) (int, error) {
	return bytes.NewReader(m.content).ReadAt(p, at)
}
func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	return copy(m.content[at:], p), m.writeErr
}
func (m *memory) Zero(at, length int64) error {
	clear(m.content[at : at+length])
	m.zeroed += length
	return nil
}
func (m *memory) Sync() error { m.synced = true; return nil }
func (m *memory) Forget() error {
	if m.wrong > 0 {
		m.content[m.wrong] ^= 1
	}
	return nil
}

// sample is an image with content at both ends and zeroes between.
func sample() (Image, []byte) {
	content := make([]byte, 3*chunk+512)
	copy(content, "begin")
	copy(content[3*chunk:], "end")
	sum := sha256.Sum256(content)
	return Image{bytes.NewReader(content), int64(len(content)), hex.EncodeToString(sum[:])}, content
}

func TestWrite(t *testing.T) {
	image, content := sample()
	m := &memory{content: bytes.Repeat([]byte{0xff}, len(content)+3*tail)}
	if err := Write(t.Context(), m, int64(len(m.content)), image, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(m.content, content) || !m.synced {
		t.Error("the target does not hold the image")
	}
	if m.zeroed != 2*chunk+tail {
		t.Errorf("%d bytes were zeroed", m.zeroed)
	}
	if rest := m.content[len(m.content)-tail:]; !bytes.Equal(rest, make([]byte, tail)) {
		t.Error("the end of the disk was not cleared")
	}
}

func TestWriteRefuses(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name      string
		ctx       context.Context
		change    func(*Image, *memory)
		want      string
		untouched bool
	}{
		{"small disk", t.Context(), func(_ *Image, m *memory) { m.content = m.content[:chunk] }, "the disk only", true},
		{"damaged image", t.Context(), func(i *Image, _ *memory) { i.SHA256 = strings.Repeat("0", 64) }, "the image is damaged", true},
		{"short image", t.Context(), func(i *Image, _ *memory) { i.Size++ }, "cannot read the image: at byte 12582912: unexpected EOF", true},
		{"cancelled", ended, func(*Image, *memory) {}, "context canceled", true},
		{"write error", t.Context(), func(_ *Image, m *memory) { m.writeErr = errors.New("medium error") }, "cannot write the disk: at byte 0: medium error; what it holds now does not boot", false},
		{"bad medium", t.Context(), func(_ *Image, m *memory) { m.wrong = chunk + 7 }, "the disk does not hold what was written", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			image, content := sample()
			m := &memory{content: bytes.Repeat([]byte{0xff}, len(content)+tail)}
			test.change(&image, m)
			err := Write(test.ctx, m, int64(len(m.content)), image, nil)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, expected %q", err, test.want)
			}
			if touched := !bytes.Equal(m.content, bytes.Repeat([]byte{0xff}, len(m.content))); touched == test.untouched {
				t.Errorf("touched: %v", touched)
			}
		})
	}
}

func TestFindRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file:                               "it is no disk",
		"/dev/null":                        "it is no disk",
		filepath.Join(t.TempDir(), "none"): "no such file",
	} {
		if _, err := Find(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestByID(t *testing.T) {
	dev := t.TempDir()
	folder := filepath.Join(dev, "disk", "by-id")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"usb-Stick_0123": "../../sdb", "wwn-0x5000c500a1b2c3d4e5": "../../sdb", "ata-x": "../../sda", "usb-Stick_0123-part1": "../../sdb1"} {
		if err := os.Symlink(target, filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"sdb": "usb-Stick_0123", "sda": "ata-x", "sdc": ""} {
		if got := byID(dev, name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// The kernel's block layer takes the image and gives it back.
func TestLoopDevice(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, for a loop device")
	}
	backing := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(backing)
	if err != nil {
		t.Fatal(err)
	}
	image, content := sample()
	size := int64(len(content)+2*tail) &^ 0xfff
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", backing).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device here: %v: %s", err, out)
	}
	path := strings.TrimSpace(string(out))
	defer exec.Command("losetup", "--detach", path).Run()
	d, err := Find(path)
	if err != nil {
		t.Fatal(err)
	}
	if d.Size != size || d.Path != path || d.ID == "" {
		t.Errorf("%+v", d)
	}
	disk, err := d.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if _, err := d.Open(); err == nil || !strings.Contains(err.Error(), "it is in use") {
		t.Errorf("opened twice: %v", err)
	}
	if err := Write(t.Context(), Disk{disk}, d.Size, image, nil); err != nil {
		t.Fatal(err)
	}
	if err := (Disk{disk}).Partitions(); err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(backing)
	if err != nil || !bytes.HasPrefix(got, content) {
		t.Errorf("the backing file does not hold the image: %v", err)
	}
}
