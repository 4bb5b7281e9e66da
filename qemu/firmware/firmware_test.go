package firmware

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/waltos/waltos/image/gpt"
	"github.com/waltos/waltos/image/sign"
)

// empty is a store of variables as an erased flash memory holds it.
func empty(size int) []byte {
	const begin = 72
	out := bytes.Repeat([]byte{0xff}, begin+size)
	copy(out[volumeSignatureAt:], "_FVH")
	binary.LittleEndian.PutUint16(out[volumeHeaderAt:], begin)
	copy(out[begin:], authenticated[:])
	binary.LittleEndian.PutUint32(out[begin+16:], uint32(size))
	return out
}

func keys() []sign.Variable {
	var all []sign.Variable
	for _, name := range []string{sign.Programs, sign.ExchangeKeys, sign.PlatformKey} {
		all = append(all, sign.NewVariable(name, time.Unix(1, 0), gpt.RandomGUID(), []byte("certificate")))
	}
	return all
}

// That the real firmware reads it is shown by the tests of Secure Boot in tests/.
func TestEnrol(t *testing.T) {
	all := keys()
	whole, err := Enrol(empty(4096), all)
	if err != nil {
		t.Fatal(err)
	}
	one, err := Enrol(empty(4096), all[:1])
	if err != nil {
		t.Fatal(err)
	}
	after, err := Enrol(one, all[1:])
	if err != nil || !bytes.Equal(whole, after) {
		t.Errorf("variables are not added after those that are there, %v", err)
	}
	for _, v := range all {
		if !bytes.Contains(whole, v.Data) {
			t.Errorf("%s is missing", v.Name)
		}
	}
	if binary.Size(header{}) != variableHeader {
		t.Errorf("the header has %d bytes", binary.Size(header{}))
	}
	for name, store := range map[string][]byte{"nothing": nil, "zeroes": make([]byte, 4096), "full": empty(300), "cut off": empty(4096)[:1000]} {
		if _, err := Enrol(store, all); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzEnrol(f *testing.F) {
	all := keys()
	f.Add(empty(512))
	f.Fuzz(func(t *testing.T, store []byte) {
		if out, err := Enrol(store, all); err == nil && len(out) != len(store) {
			t.Errorf("%d bytes became %d", len(store), len(out))
		}
	})
}
