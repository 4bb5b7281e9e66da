package power

import (
	"encoding/binary"
	"testing"
)

func TestIsPress(t *testing.T) {
	for _, c := range []struct {
		kind, code uint16
		value      int32
		want       bool
	}{{1, 116, 1, true}, {1, 116, 0, false}, {1, 30, 1, false}, {0, 116, 1, false}} {
		raw := make([]byte, eventSize)
		binary.NativeEndian.PutUint16(raw[timeSize:], c.kind)
		binary.NativeEndian.PutUint16(raw[timeSize+2:], c.code)
		binary.NativeEndian.PutUint32(raw[timeSize+4:], uint32(c.value))
		if got := isPress(raw); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
