package disk

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waltos/waltos/image/gpt"
)

// formatted returns a file of that size with what a real tool makes of it.
func formatted(t *testing.T, size int64, command ...string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "part")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if len(command) == 0 {
		return f
	}
	tool, err := exec.LookPath(command[0])
	if err != nil {
		tool, err = exec.LookPath("/usr/sbin/" + command[0])
	}
	if err != nil {
		t.Skipf("%s is not here", command[0])
	}
	if out, err := exec.Command(tool, append(command[1:], path)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", command, err, out)
	}
	return f
}

func TestDecide(t *testing.T) {
	const size = 32 << 20
	ext := []string{"mke2fs", "-q", "-F", "-t", "ext4", "-L", DataName}
	poke := func(f *os.File, at int64, b ...byte) *os.File {
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, c := range []struct {
		name    string
		content func(t *testing.T) *os.File
		size    int64
		fresh   bool
		want    Decision
		refused string
	}{
		{"blank", func(t *testing.T) *os.File { return formatted(t, size) }, size, false, Decision{Format: true}, ""},
		{"blank, made now", func(t *testing.T) *os.File { return formatted(t, size) }, size, true, Decision{Format: true}, ""},
		{"remains, made now", func(t *testing.T) *os.File { return poke(formatted(t, size), 5000, 1) }, size, true, Decision{Format: true}, ""},
		{"remains", func(t *testing.T) *os.File { return poke(formatted(t, size), 5000, 1) }, size, false, Decision{}, "unknown data"},
		{"ours", func(t *testing.T) *os.File { return formatted(t, size, ext...) }, size, false, Decision{}, ""},
		{"of the system before", func(t *testing.T) *os.File { return formatted(t, size, ext...) }, size, true, Decision{Check: true}, ""},
		{"damaged", func(t *testing.T) *os.File { return poke(formatted(t, size, ext...), 1024+0x3a, 3, 0) }, size, false, Decision{Check: true}, ""},
		{"cut off", func(t *testing.T) *os.File { return formatted(t, size, ext...) }, size / 2, false, Decision{}, "the partition only 16 MiB"},
		{"a stranger's", func(t *testing.T) *os.File {
			return formatted(t, size, "mke2fs", "-q", "-F", "-t", "ext4", "-L", "photos")
		}, size, true, Decision{}, `"photos"`},
		{"swap", func(t *testing.T) *os.File { return formatted(t, size, "mkswap", "-q") }, size, true, Decision{}, "swap space"},
		{"fat", func(t *testing.T) *os.File { return formatted(t, size, "mkfs.vfat") }, size, true, Decision{}, "FAT"},
		{"luks", func(t *testing.T) *os.File { return poke(formatted(t, size), 0, []byte("LUKS\xba\xbe")...) }, size, true, Decision{}, "LUKS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := decide(c.content(t), "part", c.size, c.fresh)
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Fatalf("error %v, want %q", err, c.refused)
				}
				return
			}
			if err != nil || got != c.want {
				t.Fatalf("%+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

func TestReadExt(t *testing.T) {
	f := formatted(t, 64<<20, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-L", DataName)
	e, ok, err := ReadExt(f)
	if want := (Ext{Label: DataName, BlockSize: 4096, Blocks: 16384, Valid: true}); err != nil || !ok || e != want {
		t.Errorf("%+v, %v, %v", e, ok, err)
	}
}

// TestAddData: the partition takes the free space, and says that it is not formatted.
func TestAddData(t *testing.T) {
	const size = 512 << 20
	table, err := gpt.New(size, gpt.GUID{1})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Add(&gpt.Partition{Name: "root-a", Type: gpt.Linux, ID: gpt.GUID{2}}, 100<<20); err != nil {
		t.Fatal(err)
	}
	index, p, err := addData(table)
	if err != nil || index != 2 || p.Attributes&unformatted == 0 || p.Size() < 400<<20 {
		t.Fatalf("partition %d %+v, %v", index, p, err)
	}
	small, err := gpt.New(32<<20, gpt.GUID{1})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := addData(small); err == nil || !strings.Contains(err.Error(), "larger disk") {
		t.Errorf("a disk of 32 MiB: %v", err)
	}
}

func FuzzContent(f *testing.F) {
	f.Add([]byte("LUKS\xba\xbe"), true)
	f.Add(make([]byte, 3000), false)
	f.Fuzz(func(t *testing.T, data []byte, fresh bool) {
		padded := append(data, make([]byte, 4096)...)
		d, err := decide(bytes.NewReader(padded), "part", int64(len(padded)), fresh)
		// Formatted is only what is blank, or was made by us and looks like nothing.
		if err == nil && d.Format && !fresh && len(bytes.Trim(padded, "\x00")) != 0 {
			t.Fatalf("%q would be formatted", data)
		}
	})
}
