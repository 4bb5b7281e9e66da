package verity

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"unsafe"
)

func TestSizes(t *testing.T) {
	if s := unsafe.Sizeof(header{}); s != 312 {
		t.Errorf("struct dm_ioctl has %d bytes", s)
	}
	if s := unsafe.Sizeof(spec{}); s != 40 {
		t.Errorf("struct dm_target_spec has %d bytes", s)
	}
	if o := unsafe.Offsetof(message{}.spec); o != 312 {
		t.Errorf("the target begins at byte %d", o)
	}
}

func TestParse(t *testing.T) {
	root := strings.Repeat("ab", 32)
	target, err := Parse(root + ",01ff,100,101")
	if err != nil || target.Blocks != 100 || target.HashStart != 101 {
		t.Fatalf("%+v, %v", target, err)
	}
	if got, want := target.parameters("8:2"), "1 8:2 8:2 4096 4096 100 101 sha256 "+root+" 01ff 1 panic_on_corruption"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for _, bad := range []string{"", "a,b,c,d", root + ",01ff,100", root + ",0,100,101", root + ",01,0,0", root + ",01,100,99", root + ",01,-1,99", root[2:] + ",01,1,1"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestCheck(t *testing.T) {
	device := bytes.Repeat([]byte{7}, 3*BlockSize)
	salt := []byte{1, 2}
	sum := sha256.Sum256(append(salt[:2:2], device[:BlockSize]...))
	target := Target{Root: sum[:], Salt: salt, Blocks: 2, HashStart: 2}
	if err := target.Check(bytes.NewReader(device)); err != nil {
		t.Error(err)
	}
	device[2*BlockSize]++
	if err := target.Check(bytes.NewReader(device)); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("expected %x", sum)) {
		t.Errorf("a changed tree: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(strings.Repeat("ab", 32) + ",01ff,100,101")
	f.Fuzz(func(t *testing.T, text string) {
		if target, err := Parse(text); err == nil && len(target.parameters("259:1234567")) > 1000 {
			t.Fatal("parameters too long for the ioctl")
		}
	})
}
