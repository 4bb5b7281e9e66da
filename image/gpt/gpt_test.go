package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestSizes(t *testing.T) {
	if n := binary.Size(header{}); n != headerSize {
		t.Errorf("header has %d bytes, expected %d", n, headerSize)
	}
	if n := binary.Size(entry{}); n != entrySize {
		t.Errorf("entry has %d bytes, expected %d", n, entrySize)
	}
}

func TestGUID(t *testing.T) {
	const text = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	if got := EFISystem.String(); got != text {
		t.Errorf("got %s, expected %s", got, text)
	}
	if EFISystem[0] != 0x28 || EFISystem[15] != 0x3b {
		t.Errorf("wrong byte order: % x", EFISystem[:])
	}
	for _, bad := range []string{"", "c12a7328", text + "0", strings.Replace(text, "c", "x", 1)} {
		if _, err := ParseGUID(bad); err == nil {
			t.Errorf("ParseGUID(%q) was accepted", bad)
		}
	}
	if got, want := DerivedGUID("a").String(), "ca978112-ca1b-8dca-bac2-31b39a23dc4d"; got != want {
		t.Errorf("DerivedGUID is %s, expected %s", got, want)
	}
	if first, second := RandomGUID(), RandomGUID(); first == second {
		t.Error("RandomGUID repeats itself")
	}
}

const diskSize = 64 << 20

func image(t *testing.T) (*Table, *os.File) {
	t.Helper()
	table, err := New(diskSize, DerivedGUID("disk"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []struct {
		name string
		kind GUID
		size int64
	}{{"esp", EFISystem, 8 << 20}, {"root-a", Linux, 16 << 20}, {"root-b", Linux, 16 << 20}} {
		if err := table.Add(&Partition{Name: p.name, Type: p.kind, ID: DerivedGUID(p.name)}, p.size); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(diskSize); err != nil {
		t.Fatal(err)
	}
	if err := table.Write(f); err != nil {
		t.Fatal(err)
	}
	return table, f
}

// judge has sgdisk verify a disk, where it is installed.
func judge(t *testing.T, f *os.File) {
	t.Helper()
	sgdisk, err := exec.LookPath("sgdisk")
	if err != nil {
		t.Log("not judged: sgdisk is not on this machine")
		return
	}
	out, err := exec.Command(sgdisk, "-v", f.Name()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No problems found") {
		t.Errorf("sgdisk: %v\n%s", err, out)
	}
}

func TestWriteAndRead(t *testing.T) {
	table, f := image(t)
	judge(t, f)
	got, err := Read(f, diskSize)
	if err != nil {
		t.Fatal(err)
	}
	if !got.equal(table) || got.Stale() {
		t.Errorf("read %+v, wrote %+v", got, table)
	}
	if _, esp := got.Find("esp"); esp.Offset() != 1<<20 || esp.Size() != 8<<20 {
		t.Errorf("esp at %d, %d bytes", esp.Offset(), esp.Size())
	}
}

func TestFirstBoot(t *testing.T) {
	_, f := image(t)
	const grown = 200<<20 + 3*SectorSize
	if err := f.Truncate(grown); err != nil {
		t.Fatal(err)
	}
	table, err := Read(f, grown)
	if err != nil {
		t.Fatal(err)
	}
	if !table.Stale() {
		t.Error("the backup is not at the end of the disk, but Stale is false")
	}
	if err := table.Add(&Partition{Name: "data", Type: Linux, ID: RandomGUID()}, 0); err != nil {
		t.Fatal(err)
	}
	if err := table.Write(f); err != nil {
		t.Fatal(err)
	}
	judge(t, f)

	// The disk grows again.
	const larger = 300 << 20
	if err := f.Truncate(larger); err != nil {
		t.Fatal(err)
	}
	if table, err = Read(f, larger); err != nil {
		t.Fatal(err)
	}
	if changed, err := table.Grow("data"); !changed || err != nil {
		t.Errorf("Grow: %v, %v", changed, err)
	}
	if changed, err := table.Grow("data"); changed || err != nil {
		t.Errorf("second Grow: %v, %v", changed, err)
	}
	if changed, err := table.Grow("root-a"); changed || err != nil {
		t.Errorf("Grow of an enclosed partition: %v, %v", changed, err)
	}
	if err := table.Write(f); err != nil {
		t.Fatal(err)
	}
	judge(t, f)
	if number, data := table.Find("data"); number != 4 || data.Offset()+data.Size() != larger-1<<20 {
		t.Errorf("data is partition %d and ends at %d", number, data.Offset()+data.Size())
	}
}

func TestDamage(t *testing.T) {
	for name, c := range map[string]struct {
		sectors []int64
		want    string // of the error; empty: repaired
	}{
		"primary header": {[]int64{1}, ""},
		"primary array":  {[]int64{2}, ""},
		"backup header":  {[]int64{diskSize/SectorSize - 1}, ""},
		"both":           {[]int64{1, diskSize/SectorSize - 1}, "checksum"},
		"none":           {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			want, f := image(t)
			for _, s := range c.sectors {
				if _, err := f.WriteAt([]byte{0xff}, s*SectorSize+60); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Read(f, diskSize)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, expected %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !got.equal(want) || got.Stale() != (len(c.sectors) > 0) {
				t.Errorf("stale %v, table %+v", got.Stale(), got)
			}
			if err := got.Write(f); err != nil {
				t.Fatal(err)
			}
			judge(t, f)
		})
	}
	if _, err := Read(bytes.NewReader(make([]byte, 1<<20)), 1<<20); !errors.Is(err, ErrNoTable) {
		t.Errorf("empty disk: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	table, _ := image(t)
	for name, err := range map[string]error{
		"same name": table.Add(&Partition{Name: "esp"}, 1<<20),
		"too large": table.Add(&Partition{Name: "x"}, 1<<30),
		"long name": table.Add(&Partition{Name: strings.Repeat("x", 37)}, 1<<20),
		"odd size":  table.Add(&Partition{Name: "x"}, 1),
		"shrunk":    table.Resize(20 << 20),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(1000, GUID{}); err == nil {
		t.Error("a tiny disk was accepted")
	}
}

const fuzzSize = 100 * SectorSize

func FuzzRead(f *testing.F) {
	table, err := New(fuzzSize, GUID{1})
	if err != nil {
		f.Fatal(err)
	}
	table.Partitions = []*Partition{nil, {Name: "a", Type: Linux, First: 40, Last: 50}}
	disk := make(sink, fuzzSize)
	if err := table.Write(disk); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(disk[:34*SectorSize]))
	f.Fuzz(func(t *testing.T, head []byte) {
		disk := make([]byte, max(len(head), fuzzSize))
		copy(disk, head)
		if table, err := Read(bytes.NewReader(disk), int64(len(disk))); err == nil {
			if err := table.Write(sink(disk)); err != nil {
				t.Errorf("a table that was read cannot be written: %v", err)
			}
			if again, err := Read(bytes.NewReader(disk), int64(len(disk))); err != nil || !again.equal(table) {
				t.Errorf("a table that was written is not the same: %v", err)
			}
		}
	})
}

type sink []byte

func (s sink) WriteAt(data []byte, at int64) (int, error) { return copy(s[at:], data), nil }
