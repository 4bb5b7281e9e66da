package dhcp

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/services/internal/nettest"
)

func testLease(n byte, until int64) *lease {
	return &lease{addr: netip.AddrFrom4([4]byte{192, 168, 152, n}), mac: mac{2, 0, 0, 0, 0, n}, until: time.Unix(until, 0), bound: true}
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases")
	j, leases, err := openJournal(path)
	if err != nil || len(leases) != 0 {
		t.Fatalf("new journal: %v, %v", leases, err)
	}
	if err := j.add([]*lease{testLease(2, 100), testLease(3, 100)}); err != nil {
		t.Fatal(err)
	}
	if err := j.add([]*lease{testLease(2, 200)}); err != nil {
		t.Fatal(err)
	}
	j.close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Whatever the byte where a power cut tears the file, the complete lines count.
	for cut := range whole {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		j, leases, err := openJournal(path)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		complete := bytes.Count(whole[:cut], []byte("\n"))
		if rest := whole[bytes.LastIndexByte(whole[:cut], '\n')+1:]; cut == len(whole)-1 || rest[cut-(len(whole)-len(rest))] == '\n' {
			complete++ // only the line feed is missing
		}
		if want := min(complete, 2); len(leases) != want {
			t.Fatalf("cut at %d: %d leases, want %d", cut, len(leases), want)
		}
		if complete == 3 && leases[0].until.Unix() != 200 {
			t.Fatalf("cut at %d: an old lease won", cut)
		}
		// What follows is not lost behind the torn line.
		if err := j.add([]*lease{testLease(9, 300)}); err != nil {
			t.Fatal(err)
		}
		j.close()
		if leases, err = readJournal(path); err != nil || leases[len(leases)-1].addr != testLease(9, 0).addr {
			t.Fatalf("cut at %d: the next lease is lost (%v)", cut, err)
		}
	}
}

func TestJournalIsRewritten(t *testing.T) {
	j, _, err := openJournal(filepath.Join(t.TempDir(), "leases"))
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	live := []*lease{testLease(2, 100)}
	for i := 0; !j.worn(len(live)); i++ {
		if i > 2*compactAfter {
			t.Fatal("a journal grows without end")
		}
		j.records++
	}
	if err := j.rewrite(live); err != nil {
		t.Fatal(err)
	}
	if j.worn(len(live)) {
		t.Error("worn after it was rewritten")
	}
}

// A full disk neither stops the service nor costs a lease that is on it; leases are
// written again as soon as there is room.
func TestJournalOnFullDisk(t *testing.T) {
	if !nettest.Enter(t) {
		return
	}
	dir := nettest.SmallDisk(t, 64)
	path, ballast := filepath.Join(dir, "leases"), filepath.Join(dir, "ballast")
	if err := os.WriteFile(path, encodeRecords([]*lease{testLease(2, 100)}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	j, leases, err := openJournal(path)
	if err != nil || len(leases) != 1 {
		t.Fatalf("on a full disk: %v, %v", leases, err)
	}
	defer j.close()
	leases = append(leases, testLease(3, 200))
	if err := j.add(leases[1:]); err == nil || !j.worn(2) {
		t.Errorf("a lease was written to a full disk: %v, worn: %v", err, j.worn(2))
	}
	if err := j.rewrite(leases); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("rewritten on a full disk: %v", err)
	}
	if kept, err := readJournal(path); err != nil || len(kept) != 1 {
		t.Errorf("the old file holds %v, %v", kept, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := j.rewrite(leases); err != nil || j.worn(2) {
		t.Errorf("with room: %v", err)
	}
	if err := j.add([]*lease{testLease(4, 300)}); err != nil {
		t.Error(err)
	}
	if kept, err := readJournal(path); err != nil || len(kept) != 3 {
		t.Errorf("the new file holds %v, %v", kept, err)
	}
}

// FuzzJournal checks that a damaged file gives leases or none, but no crash.
func FuzzJournal(f *testing.F) {
	f.Add(encodeRecords([]*lease{testLease(2, 100), testLease(3, 1)}))
	f.Add([]byte("00000000 {}\n"))
	f.Add(bytes.Repeat([]byte("x"), 5000))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		if _, err := decodeJournal(bytes.NewReader(b), "leases"); err != nil {
			t.Fatal(err)
		}
	})
}
