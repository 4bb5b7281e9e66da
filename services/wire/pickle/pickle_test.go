package pickle

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"math/big"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

var equal = cmp.Options{
	cmp.Transformer("Entries", func(d *Dict) []Entry { return append([]Entry{}, d.Entries()...) }),
	cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 }),
	cmpopts.IgnoreUnexported(Set{}),
	cmpopts.EquateNaNs(),
}

func power(base, exp, plus int64) *big.Int {
	v := new(big.Int).Exp(big.NewInt(base), big.NewInt(exp), nil)
	return v.Add(v, big.NewInt(plus))
}

// captured are messages of real WalT 10.0 programs (client-api 1.9).
var captured = []struct {
	name, hex string
	want      any
}{
	{"call", `80 04 95 34 00 00 00 00 00 00 00 28 8c 08 41 50 49 5f 43 41 4c 4c 94
		8c 0c 72 65 62 6f 6f 74 5f 6e 6f 64 65 73 94 8c 01 78 94 85 94
		7d 94 8c 09 68 61 72 64 5f 6f 6e 6c 79 94 88 73 74 94 2e`,
		Tuple{"API_CALL", "reboot_nodes", Tuple{"x"}, NewDict("hard_only", true)}},
	{"callback", `80 04 95 21 00 00 00 00 00 00 00 28 8c 08 41 50 49 5f 43 41 4c 4c 94
		8c 0c 67 65 74 5f 75 73 65 72 6e 61 6d 65 94 29 7d 94 74 94 2e`,
		Tuple{"API_CALL", "get_username", Tuple{}, NewDict()}},
	{"answer", `80 04 95 14 00 00 00 00 00 00 00 8c 06 52 45 53 55 4c 54 94 8c 05 61 6c 69 63 65 94 86 94 2e`,
		Tuple{"RESULT", "alice"}},
	{"text", `80 04 95 44 00 00 00 00 00 00 00 28 8c 08 41 50 49 5f 43 41 4c 4c 94
		8c 0c 73 74 64 65 72 72 2e 77 72 69 74 65 94
		8c 1f 4e 6f 20 64 65 76 69 63 65 20 77 69 74 68 20 6e 61 6d 65 20 27 78 27 20 66 6f 75 6e 64 2e 0a 94
		85 94 7d 94 74 94 2e`,
		Tuple{"API_CALL", "stderr.write", Tuple{"No device with name 'x' found.\n"}, NewDict()}},
	{"result", `80 04 95 0d 00 00 00 00 00 00 00 8c 06 52 45 53 55 4c 54 94 4e 86 94 2e`, Tuple{"RESULT", nil}},
	{"pair", `80 04 95 18 00 00 00 00 00 00 00 8c 06 52 45 53 55 4c 54 94 8c 02 6e 31 94 8c 02 6e 32 94 86 94 86 94 2e`,
		Tuple{"RESULT", Tuple{"n1", "n2"}}},
	{"set", `80 04 95 58 00 00 00 00 00 00 00 28 8c 08 41 50 49 5f 43 41 4c 4c 94 8c 0a 63 6f 75 6e 74 5f 6c 6f 67 73 94
		29 7d 94 28 8c 07 68 69 73 74 6f 72 79 94 4e 4e 86 94 8c 07 69 73 73 75 65 72 73 94 8f 94 28
		8c 04 64 65 76 31 94 90 8c 10 65 78 63 6c 75 64 65 5f 63 6f 6e 73 6f 6c 65 73 94 88 75 74 94 2e`,
		Tuple{"API_CALL", "count_logs", Tuple{}, NewDict("history", Tuple{nil, nil}, "issuers", &Set{Items: []any{"dev1"}}, "exclude_consoles", true)}},
	{"array", `80 04 95 ad 00 00 00 00 00 00 00 7d 94 28
		8c 07 6e 6f 64 65 5f 69 70 94 8c 0d 31 39 32 2e 31 36 38 2e 31 35 32 2e 35 94
		8c 07 63 6d 64 61 72 67 73 94 29 8c 07 73 73 68 5f 74 74 79 94 88 8c 08 77 69 6e 5f 73 69 7a 65 94
		8c 05 61 72 72 61 79 94 8c 14 5f 61 72 72 61 79 5f 72 65 63 6f 6e 73 74 72 75 63 74 6f 72 94 93 94
		28 8c 05 61 72 72 61 79 94 8c 05 61 72 72 61 79 94 93 94 8c 01 68 94 4b 04
		43 08 18 00 50 00 00 00 00 00 94 74 94 52 94
		8c 03 65 6e 76 94 7d 94 8c 04 54 45 52 4d 94 8c 05 78 74 65 72 6d 94 73
		8c 08 74 74 79 5f 6d 6f 64 65 94 88 75 2e`,
		NewDict("node_ip", "192.168.152.5", "cmdargs", Tuple{}, "ssh_tty", true, "win_size", Int16s{24, 80, 0, 0},
			"env", NewDict("TERM", "xterm"), "tty_mode", true)},
	{"input", `80 04 95 25 00 00 00 00 00 00 00 7d 94 28 8c 03 65 76 74 94 8c 0a 69 6e 70 75 74 5f 64 61 74 61 94
		8c 04 64 61 74 61 94 43 03 6c 73 0d 94 75 2e`, NewDict("evt", "input_data", "data", []byte("ls\r"))},
	{"resize", `80 04 95 31 00 00 00 00 00 00 00 7d 94 28 8c 03 65 76 74 94 8c 0d 77 69 6e 64 6f 77 5f 72 65 73 69 7a 65 94
		8c 05 6c 69 6e 65 73 94 4b 32 8c 07 63 6f 6c 75 6d 6e 73 94 4b 84 75 2e`,
		NewDict("evt", "window_resize", "lines", int64(50), "columns", int64(132))},
	{"record", `80 04 95 87 00 00 00 00 00 00 00 7d 94 28 8c 09 74 69 6d 65 73 74 61 6d 70 94
		8c 08 64 61 74 65 74 69 6d 65 94 8c 08 64 61 74 65 74 69 6d 65 94 93 94
		43 0a 07 ea 01 02 03 04 05 0a 5b f5 94 85 94 52 94
		8c 04 6c 69 6e 65 94 8c 12 6e 6f 64 65 20 76 6e 31 20 69 73 20 62 6f 6f 74 65 64 94
		8c 06 69 73 73 75 65 72 94 8c 0b 77 61 6c 74 2d 73 65 72 76 65 72 94
		8c 06 73 74 72 65 61 6d 94 8c 0e 70 6c 61 74 66 6f 72 6d 2e 6e 6f 64 65 73 94 75 2e`,
		NewDict("timestamp", time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC), "line", "node vn1 is booted",
			"issuer", "walt-server", "stream", "platform.nodes")},
	{"zero", `80 04 4b 00 2e`, int64(0)},
	{"65536", `80 04 95 06 00 00 00 00 00 00 00 4a 00 00 01 00 2e`, int64(65536)},
	{"true", `80 04 88 2e`, true},
	{"minus one", `80 04 95 06 00 00 00 00 00 00 00 4a ff ff ff ff 2e`, int64(-1)},
	{"2^31", `80 04 95 08 00 00 00 00 00 00 00 8a 05 00 00 00 80 00 2e`, int64(1) << 31},
	{"float", `80 04 95 0a 00 00 00 00 00 00 00 47 3f f8 00 00 00 00 00 00 2e`, 1.5},
	{"empty tuple", `80 04 29 2e`, Tuple{}},
	{"shared text", `80 04 95 0d 00 00 00 00 00 00 00 5d 94 28 8c 03 61 62 63 94 68 01 65 2e`, NewList("abc", "abc")},
	{"68 bytes of a fake TFTP request", `80 04 95 39 00 00 00 00 00 00 00 7d 94 28
		8c 08 6e 6f 64 65 5f 6d 61 63 94 8c 11 35 32 3a 35 34 3a 30 30 3a 61 61 3a 62 62 3a 63 63 94
		8c 04 70 61 74 68 94 8c 0b 2f 73 74 61 72 74 2e 69 70 78 65 94 75 2e`,
		NewDict("node_mac", "52:54:00:aa:bb:cc", "path", "/start.ipxe")},
}

func TestCaptured(t *testing.T) {
	for _, test := range captured {
		data := unhex(t, test.hex)
		got, err := Unmarshal(data, Limits{Datetime: true})
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if d := cmp.Diff(test.want, got, equal); d != "" {
			t.Errorf("%s: (-want +got)\n%s", test.name, d)
		}
		again, err := Marshal(got)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		back, err := Unmarshal(again, Limits{Datetime: true})
		if d := cmp.Diff(test.want, back, equal); d != "" || err != nil {
			t.Errorf("%s: written and read again: %v (-want +got)\n%s", test.name, err, d)
		}
		for i := range data { // every cut is an error, and only the empty one is an end of file
			r := bufio.NewReader(iotest.OneByteReader(bytes.NewReader(data[:i])))
			if _, err := NewDecoder(r, Limits{Datetime: true}).Decode(); err == nil || (err == io.EOF) != (i == 0) {
				t.Errorf("%s cut to %d bytes: error %v", test.name, i, err)
			}
		}
	}
}

func TestSmallEncodings(t *testing.T) {
	for _, test := range captured {
		switch test.want.(type) {
		case int64, bool, float64:
			got, err := Marshal(test.want)
			if err != nil || !bytes.Equal(got, unhex(t, test.hex)) {
				t.Errorf("%s: got % x (%v), want %s", test.name, got, err, test.hex)
			}
		}
	}
}

func TestReadsNoFurtherThanStop(t *testing.T) {
	r := bufio.NewReader(bytes.NewReader(append(unhex(t, captured[0].hex), "raw data"...)))
	if _, err := NewDecoder(r, Limits{}).Decode(); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(r)
	if string(rest) != "raw data" {
		t.Errorf("what follows is %q", rest)
	}
}

func TestSharedListIsOneList(t *testing.T) {
	// l = []; v = (l, l); l.append(1) — through the memo, after both references were made.
	data := []byte{opProto, 4, opEmptyList, opMemoize, opBinGet, 0, opTuple2, opBinGet, 0, opBinInt1, 1, opAppend, opPop, opStop}
	v, err := Unmarshal(data, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	pair := v.(Tuple)
	if pair[0] != pair[1] || len(pair[0].(*List).Items) != 1 {
		t.Errorf("got %#v", pair)
	}
}

func TestRefused(t *testing.T) {
	repeat := func(b []byte, n int) []byte { return bytes.Repeat(b, n) }
	p := func(parts ...[]byte) []byte { return append([]byte{opProto, 4}, bytes.Join(parts, nil)...) }
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"os.system", p([]byte("\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.")), "not accepted"},
		{"GLOBAL", p([]byte("cos\nsystem\n.")), "opcode 0x63"},
		{"array class alone", p([]byte("\x8c\x05array\x8c\x05array\x93.")), "function or class"},
		{"reduce of the class", p([]byte("\x8c\x05array\x8c\x05array\x93)R.")), "cannot be called"},
		{"datetime from a client", p([]byte("\x8c\x08datetime\x8c\x08datetime\x93C\x0a\x07\xea\x01\x02\x03\x04\x05\x0a\x5b\xf5\x85R.")), "not accepted"},
		{"array of doubles", p([]byte("\x8c\x05array\x8c\x14_array_reconstructor\x93(\x8c\x05array\x8c\x05array\x93\x8c\x01dK\x0eC\x00tR.")), "another type"},
		{"NEWOBJ", p([]byte(")\x81.")), "opcode"},
		{"BUILD", p([]byte("}}b.")), "opcode"},
		{"persistent id", p([]byte("NQ.")), "opcode"},
		{"extension", p([]byte("\x82\x01.")), "opcode"},
		{"text protocol", []byte("I1\n."), "begins with"},
		{"protocol 9", []byte{opProto, 9, opNone, opStop}, "protocol 9"},
		{"empty stack", p([]byte(".")), "0 values"},
		{"two values", p([]byte("NN.")), "2 values"},
		{"open mark", p([]byte("(N.")), "1 marks"},
		{"pop below mark", p([]byte("N(0.")), "stack"},
		{"tuple below mark", p([]byte("NN(\x86.")), "stack"},
		{"append to tuple", p([]byte(")Na.")), "does not apply"},
		{"odd dict", p([]byte("}(NNNu.")), "without value"},
		{"list as key", p([]byte("}]Ns.")), "cannot be a key"},
		{"unknown memo", p([]byte("h\x05.")), "memo of 0"},
		{"memo out of order", p([]byte("Nr\xff\xff\xff\x7f.")), "order"},
		{"huge str", p([]byte("\x8d\xff\xff\xff\xff\xff\xff\xff\x7f")), "too long"},
		{"huge frame", p([]byte("\x95\xff\xff\xff\xff\xff\xff\xff\xffN.")), "too long"},
		{"huge int", p([]byte("\x8b\xff\xff\x0f\x00")), "too long"},
		{"pretended str", p([]byte("X\x00\x00\x30\x00abc")), "unexpected EOF"},
		{"wrong UTF-8", p([]byte("\x8c\x01\xff.")), "UTF-8"},
		{"deep", p(repeat([]byte{opEmptyList}, 100), repeat([]byte{opAppend}, 99), []byte(".")), "too deep"},
		{"list in itself", p([]byte("]\x94h\x00a.")), "too deep"},
		{"doubling", p([]byte(")"), repeat([]byte("2\x86"), 60), []byte(".")), "too many"},
		{"repeated text", p([]byte("X\x00\x00\x10\x00"), repeat([]byte{'x'}, 1<<20), []byte("\x94(h\x00h\x00h\x00h\x00h\x00t\x86.")), "too long"},
		{"many values", p([]byte("("), repeat([]byte{opNone}, 1100000), []byte("t.")), "too many"},
	}
	for _, test := range tests {
		v, err := Unmarshal(test.data, Limits{})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, %v; want an error with %q", test.name, v, err, test.want)
		}
	}
}

func TestManySetAdditionsAreLinear(t *testing.T) {
	data := []byte{opProto, 4, opEmptySet}
	for i := range 50000 {
		data = append(data, opMark, opBinInt, byte(i), byte(i>>8), 0, 0, opAddItems)
	}
	v, err := Unmarshal(append(data, opStop), Limits{})
	if err != nil || len(v.(*Set).Items) != 50000 {
		t.Errorf("got %v", err)
	}
}

func TestMemoryFollowsInput(t *testing.T) {
	// 14 bytes that pretend 4 MB.
	data := []byte("\x80\x04\x95\x00\x00\x3f\x00\x00\x00\x00\x00B\x00\x00\x3e\x00")
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if _, err := Unmarshal(data, Limits{}); err == nil {
				b.Fatal("accepted")
			}
		}
	})
	if got := result.AllocedBytesPerOp(); got > 100<<10 {
		t.Errorf("allocates %d bytes", got)
	}
}

func TestDictEquality(t *testing.T) {
	d := NewDict(int64(1), "a", true, "b", 1.0, "c", "1", "d")
	if d.Len() != 2 || d.Entries()[0].Value != "c" {
		t.Errorf("got %v", d.Entries())
	}
	for i := range 100 {
		d.Set(fmt.Sprint("k", i), i)
	}
	d.Set("k50", "new")
	if v, _ := d.Get("k50"); v != "new" || d.Len() != 102 {
		t.Errorf("got %v of %d", v, d.Len())
	}
	if _, ok := d.Get("none"); ok {
		t.Error("a missing key is found")
	}
}

// values for the comparison with Python: the Go value, and the expression it equals.
var values = []struct {
	v      any
	python string
}{
	{nil, `None`}, {true, `True`}, {int64(0), `0`}, {int64(255), `255`}, {int64(256), `256`}, {int64(65535), `65535`},
	{int64(-1), `-1`}, {int64(math.MaxInt32), `2**31-1`}, {int64(math.MinInt32), `-2**31`}, {int64(math.MinInt32) - 1, `-2**31-1`},
	{int64(math.MaxInt64), `2**63-1`}, {int64(math.MinInt64), `-2**63`},
	{power(2, 71, 0), `2**71`}, {power(-2, 71, 0), `-2**71`}, {power(-2, 71, -1), `-2**71-1`}, {power(2, 2048, -159), `2**2048-159`}, {power(-2, 2047, 0), `-2**2047`},
	{1.5, `1.5`}, {math.Inf(-1), `float('-inf')`},
	{"", `''`}, {"é☃😀", `'é☃😀'`}, {"a\xed\xb3\xbfb", `'a\udcffb'`}, {strings.Repeat("x", 70000), `'x'*70000`},
	{[]byte("\x00\xff"), `b'\x00\xff'`}, {bytes.Repeat([]byte("y"), 300), `b'y'*300`},
	{Tuple{}, `()`}, {Tuple{int64(1)}, `(1,)`}, {Tuple{int64(1), "b", nil, 2.5}, `(1,'b',None,2.5)`},
	{NewList(), `[]`}, {NewList("a", NewList(int64(2))), `['a',[2]]`},
	{NewDict(), `{}`}, {NewDict("k", NewDict(int64(3), Tuple{nil})), `{'k':{3:(None,)}}`},
	{&Set{Items: []any{int64(7)}}, `{7}`}, {Int16s{24, 80, -1, 0}, `__import__('array').array('h',[24,80,-1,0])`},
	{time.Date(2026, 11, 22, 17, 5, 9, 123456000, time.UTC), `__import__('datetime').datetime(2026,11,22,17,5,9,123456)`},
}

// TestPython has Python read what we write and us read what Python writes.
func TestPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here to compare with")
	}
	const program = `
import pickle, sys
for line in sys.stdin:
    ours, expression = line.rstrip("\n").split("\t")
    expected = eval(expression)
    got = pickle.loads(bytes.fromhex(ours))
    same = type(got) is type(expected) and got == expected
    print("same" if same else "differs: %r" % (got,), *(pickle.dumps(expected, p).hex() for p in (2, 3, 4, 5)), sep="\t")
`
	var in bytes.Buffer
	for _, v := range values {
		data, err := Marshal(v.v)
		if err != nil {
			t.Fatalf("%s: %v", v.python, err)
		}
		fmt.Fprintf(&in, "%x\t%s\n", data, v.python)
	}
	cmd := exec.Command(python, "-X", "utf8", "-c", program)
	cmd.Stdin = &in
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python3: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != len(values) {
		t.Fatalf("python3 answered %d lines for %d values", len(lines), len(values))
	}
	for i, line := range lines {
		fields := strings.Split(line, "\t")
		if fields[0] != "same" {
			t.Errorf("%s: Python reads what we write otherwise: %s", values[i].python, fields[0])
		}
		for j, text := range fields[1:] {
			if j < 2 { // protocols 2 and 3 write bytes, sets, arrays and dates by calling classes
				switch values[i].v.(type) {
				case []byte, *Set, Int16s, time.Time:
					continue
				}
			}
			got, err := Unmarshal(unhex(t, text), Limits{Datetime: true})
			if d := cmp.Diff(values[i].v, got, equal); d != "" || err != nil {
				t.Errorf("%s of protocol %d: %v\n%s", values[i].python, j+2, err, d)
			}
		}
	}
}

func TestMarshalGoValues(t *testing.T) {
	got, err := Marshal(map[string]any{"b": []any{uint8(1), uint64(math.MaxUint64), float32(2)}, "a": []string{"x"}, "c": map[string]string{"k": "\xff"}})
	if err != nil {
		t.Fatal(err)
	}
	v, err := Unmarshal(got, Limits{})
	want := NewDict("a", NewList("x"), "b", NewList(int64(1), power(2, 64, -1), 2.0), "c", NewDict("k", "\uFFFD"))
	if d := cmp.Diff(any(want), v, equal); d != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}
	if _, err := Marshal(struct{}{}); err == nil {
		t.Error("a struct was encoded")
	}
	loop := NewList()
	loop.Items = append(loop.Items, loop)
	if _, err := Marshal(loop); err == nil {
		t.Error("a list that holds itself was encoded")
	}
}

func FuzzDecode(f *testing.F) {
	for _, test := range captured {
		f.Add(unhex(f, test.hex))
	}
	f.Add([]byte("\x80\x04]\x94h\x00a."))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Unmarshal(data, Limits{Size: 1 << 16, Datetime: true})
		// Cut anywhere by the network, it is the same.
		pieces := bufio.NewReader(iotest.OneByteReader(bytes.NewReader(data)))
		piecewise, pieceErr := NewDecoder(pieces, Limits{Size: 1 << 16, Datetime: true}).Decode()
		if rest, _ := io.ReadAll(pieces); len(rest) == 0 && (err == nil) != (pieceErr == nil) {
			t.Fatalf("at once: %v, byte by byte: %v", err, pieceErr)
		}
		if err != nil {
			return
		}
		if d := cmp.Diff(v, piecewise, equal); d != "" {
			t.Fatal(d)
		}
		again, err := Marshal(v)
		if err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
		// Written without sharing a value grows, but within what its limits allow.
		back, err := Unmarshal(again, Limits{Datetime: true, Depth: 200})
		if err != nil {
			t.Fatalf("cannot read what was written: %v", err)
		}
		if d := cmp.Diff(v, back, equal); d != "" {
			t.Fatal(d)
		}
	})
}

func BenchmarkDecodeCall(b *testing.B) {
	data := unhex(b, captured[0].hex)
	b.ReportAllocs()
	in := bytes.NewReader(data)
	r := bufio.NewReader(in)
	d := NewDecoder(r, Limits{})
	for b.Loop() {
		in.Reset(data)
		r.Reset(in)
		if _, err := d.Decode(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeCall(b *testing.B) {
	v := Tuple{"API_CALL", "reboot_nodes", Tuple{"x"}, NewDict("hard_only", true)}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = Append(buf[:0], v)
	}
}
