package db

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{"": "", "é\t": "é\t", "a\x00b": "a\uFFFDb", "\xff\xfe": "\uFFFD", "\xc3": "\uFFFD", "\xed\xa0\x80": "\uFFFD"} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestEncodeLines(t *testing.T) {
	at := time.UnixMicro(epoch2000 + 5)
	lines := []Line{{1, at, "ab"}, {2, at, strings.Repeat("é", MaxLine)}, {3, at, ""}}
	b, n := encodeLines(lines, 100)
	if n != 1 {
		t.Fatalf("%d lines in 100 bytes, want 1", n)
	}
	want := []byte("\x00\x03\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x02ab")
	if !bytes.Equal(b, want) {
		t.Errorf("row % x, want % x", b, want)
	}
	// The longest line goes alone, cut.
	b, n = encodeLines(lines[1:], 100)
	if n != 1 || len(b) > copyRow+MaxLine {
		t.Errorf("%d lines, %d bytes", n, len(b))
	}
	b, _ = encodeLines(lines, math.MaxInt)
	var streams []uint32
	if err := eachRow(b, func(stream uint32, row []byte) { streams = append(streams, stream) }); err != nil || len(streams) != 3 || streams[2] != 3 {
		t.Errorf("streams %v, %v", streams, err)
	}
}

func TestConfNumbers(t *testing.T) {
	conf, err := decodeConf([]byte(`{"a": 1, "b": 1.5, "c": [2, {"d": 1e400}], "e": 99999999999999999999, "f": -1e999}`))
	if err != nil {
		t.Fatal(err)
	}
	if conf["a"] != int64(1) || conf["b"] != 1.5 || conf["e"] != 1e20 || conf["f"] != math.Inf(-1) {
		t.Errorf("%v", conf)
	}
	if c := conf["c"].([]any); c[0] != int64(2) || c[1].(map[string]any)["d"] != math.Inf(1) {
		t.Errorf("%v", c)
	}
	for _, bad := range []string{"[]", "{", "1"} {
		if _, err := decodeConf([]byte(bad)); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
	if conf, err := decodeConf([]byte("null")); err != nil || conf == nil {
		t.Errorf("null: %v, %v", conf, err)
	}
}

func TestInfinities(t *testing.T) {
	for _, micros := range []int64{math.MinInt64, math.MaxInt64} {
		if y := goTime(micros).Year(); y < 1969 || y > 10000 {
			t.Errorf("%d is in year %d", micros, y)
		}
	}
}

func FuzzRows(f *testing.F) {
	b, _ := encodeLines([]Line{{1, time.UnixMicro(0), "text"}, {2, time.UnixMicro(1), ""}}, 1000)
	f.Add([]byte(b))
	f.Add([]byte(b[:len(b)-1]))
	f.Fuzz(func(t *testing.T, rows []byte) {
		size := 0
		if err := eachRow(rows, func(_ uint32, row []byte) { size += len(row) }); err == nil && size != len(rows) {
			t.Errorf("%d bytes of %d", size, len(rows))
		}
	})
}

func FuzzRecords(f *testing.F) {
	f.Add(appendRecord(appendRecord(nil, 1, 5, []byte("text")), 2, 6, nil))
	f.Fuzz(func(t *testing.T, block []byte) {
		records, err := decodeRecords(block, map[int64]wireStream{1: {1, "issuer", "stream"}})
		if err == nil && len(records)*16 > len(block) {
			t.Errorf("%d records in %d bytes", len(records), len(block))
		}
	})
}
