package literal

import (
	"bytes"
	"fmt"
	"math/big"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/waltos/waltos/services/wire/pickle"
)

type tuple = pickle.Tuple

var equal = cmp.Options{
	cmp.Transformer("Entries", func(d *pickle.Dict) []pickle.Entry { return append([]pickle.Entry{}, d.Entries()...) }),
	cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 }),
	cmpopts.IgnoreUnexported(pickle.Set{}),
	cmpopts.EquateNaNs(),
}

func bigInt(text string) *big.Int {
	v, _ := new(big.Int).SetString(text, 0)
	return v
}

func TestParse(t *testing.T) {
	tests := []struct {
		text string
		want any
	}{
		{`('SET_MODE', 'pickle4')`, tuple{"SET_MODE", "pickle4"}},
		{`('API_CALL', 'sync_clock', (), {})`, tuple{"API_CALL", "sync_clock", tuple{}, pickle.NewDict()}},
		{`( 'aa:bb:cc:dd:ee:ff', 'g1',)`, tuple{"aa:bb:cc:dd:ee:ff", "g1"}},
		{`('CLOSE')`, "CLOSE"},
		{`('CLOSE',)`, tuple{"CLOSE"}},
		{" ( ( 1 ) , ) ", tuple{int64(1)}},
		{`[]`, &pickle.List{Items: []any{}}}, {`[1,[2,],]`, pickle.NewList(int64(1), pickle.NewList(int64(2)))},
		{`{'a': 1, "b":{}}`, pickle.NewDict("a", int64(1), "b", pickle.NewDict())},
		{`{'a', 'a', 'b'}`, &pickle.Set{Items: []any{"a", "b"}}},
		{`None`, nil}, {`True`, true}, {`False`, false},
		{`0`, int64(0)}, {`-12`, int64(-12)}, {`+ 1_000`, int64(1000)}, {`0xfF`, int64(255)}, {`0b11`, int64(3)}, {`00`, int64(0)},
		{`123456789012345678901234567890`, bigInt("123456789012345678901234567890")},
		{`-9223372036854775808`, int64(-1 << 63)},
		{`1.5`, 1.5}, {`.5`, .5}, {`-2.`, -2.0}, {`1e3`, 1000.0}, {`1E-2`, .01}, {`1_0.2_5`, 10.25}, {`0xe+1`[:3], int64(14)},
		{`''`, ""}, {`"it's"`, "it's"}, {`'\\ \' \" \n\r\t\x41é\U0001F600\101\q'`, "\\ ' \" \n\r\tAé😀A\\q"},
		{`'é☃'`, "é☃"}, {`'\udcff'`, "\xed\xb3\xbf"},
		{`b'a\x00\xff\'\u0041'`, []byte("a\x00\xff'\\u0041")}, {`B""`, []byte{}},
	}
	for _, test := range tests {
		got, err := Parse(test.text)
		if d := cmp.Diff(test.want, got, equal); d != "" || err != nil {
			t.Errorf("%s: %v (-want +got)\n%s", test.text, err, d)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		``, ` `, `(`, `(1`, `(1 2)`, `(,)`, `[1,,2]`, `{1:}`, `{1:2, 3}`, `{1, 2:3}`, `{[]:1}`, `{()}`, `1 2`, `('a', 1) x`,
		`__import__('os').system('id')`, `os`, `print`, `lambda: 1`, `1+1`, `1 if 1 else 2`, `f'{1}'`, `r'a'`, `u'a'`, `'a' 'b'`, `'''a'''`,
		`'a`, `'a\`, `"a'`, "'a\nb'", `'\x4'`, `'\u12'`, `'\U00110000'`, `'\N{DASH}'`, `b'é'`, "'\xff'", `set()`, `datetime.datetime(1,2,3)`,
		`007`, `1__0`, `_1`, `1_`, `1._5`, `1j`, `0x`, `0xg`, `1e`, `--`, `.`, `1.2.3`, `nan`, `inf`,
		strings.Repeat("(", 100000), strings.Repeat("[", 70) + strings.Repeat("]", 70), strings.Repeat("9", 5000),
	} {
		if v, err := Parse(text); err == nil {
			t.Errorf("%.60s: accepted as %v", text, v)
		}
	}
}

// formats are values with their repr.
var formats = []struct {
	v    any
	want string
}{
	{tuple{"RESULT", 1718000000}, `('RESULT', 1718000000)`},
	{nil, `None`}, {true, `True`}, {false, `False`}, {int64(-5), `-5`}, {bigInt("0x10000000000000000"), `18446744073709551616`},
	{1.5, `1.5`}, {1e15, `1000000000000000.0`}, {1e16, `1e+16`}, {1e-4, `0.0001`}, {1e-5, `1e-05`}, {0.1, `0.1`}, {-1.7976931348623157e308, `-1.7976931348623157e+308`},
	{tuple{}, `()`}, {tuple{int64(1)}, `(1,)`}, {tuple{int64(1), "a"}, `(1, 'a')`},
	{pickle.NewList(), `[]`}, {[]any{1, nil}, `[1, None]`}, {[]string{"a"}, `['a']`},
	{pickle.NewDict("a", 1, "b", tuple{}), `{'a': 1, 'b': ()}`}, {map[string]any{"b": 2, "a": 1}, `{'a': 1, 'b': 2}`},
	{&pickle.Set{Items: []any{"x"}}, `{'x'}`}, {&pickle.Set{}, `set()`},
	{"", `''`}, {"it's", `"it's"`}, {`"`, `'"'`}, {`'"`, `'\'"'`}, {"\\\t\n\r\x00\x7f", `'\\\t\n\r\x00\x7f'`},
	{"é☃😀", `'é☃😀'`}, {"\u00a0\u0085\u200b\U000e0001", `'\xa0\x85\u200b\U000e0001'`}, {"\xed\xb3\xbf", `'\udcff'`},
	{[]byte("login: "), `b'login: '`}, {[]byte("it's"), `b"it's"`}, {[]byte("'\""), `b'\'"'`}, {[]byte("\x1b[0m\xc3\xa9\r\n"), `b'\x1b[0m\xc3\xa9\r\n'`},
	{time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC), `datetime.datetime(2026, 1, 2, 3, 4, 5, 678901)`},
	{time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC), `datetime.datetime(2026, 1, 2, 3, 4)`},
	{pickle.Int16s{24, -80}, `array('h', [24, -80])`}, {pickle.Int16s{}, `array('h')`},
}

func TestFormat(t *testing.T) {
	for _, test := range formats {
		got, err := Format(test.v)
		if err != nil || got != test.want {
			t.Errorf("got %s (%v), want %s", got, err, test.want)
		}
	}
	loop := pickle.NewList()
	loop.Items = append(loop.Items, loop)
	if _, err := Format(loop); err == nil {
		t.Error("a list that holds itself was formatted")
	}
	if _, err := Format(struct{}{}); err == nil {
		t.Error("a struct was formatted")
	}
}

// TestPython compares with what repr gives of the same pickled values, and with every byte and
// many characters.
func TestPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here to compare with")
	}
	var all []any
	for _, test := range formats {
		all = append(all, test.v)
	}
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	var text []rune
	for r := rune(0); r < 0x250; r++ {
		text = append(text, r)
	}
	all = append(all, every, string(text))
	var in bytes.Buffer
	for _, v := range all {
		data, err := pickle.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&in, "%x\n", data)
	}
	cmd := exec.Command(python, "-X", "utf8", "-c", "import pickle, sys\nfor line in sys.stdin: print(repr(pickle.loads(bytes.fromhex(line))))")
	cmd.Stdin = &in
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python3: %v", err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(all) {
		t.Fatalf("python3 printed %d lines for %d values", len(lines), len(all))
	}
	for i, v := range all {
		if got, err := Format(v); err != nil || got != lines[i] {
			t.Errorf("got  %s (%v)\nwant %s", got, err, lines[i])
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`('API_CALL', 'f', (1, -2.5e3, b'\x00', "it's"), {'k': [None, {True}]})`)
	f.Add(`('SET_MODE', 'pickle4')`)
	f.Fuzz(func(t *testing.T, text string) {
		v, err := Parse(text)
		if err != nil {
			return
		}
		out, err := Format(v)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, "inf") { // 1e999
			return
		}
		back, err := Parse(out)
		if d := cmp.Diff(v, back, equal, cmpopts.EquateEmpty()); d != "" || err != nil {
			t.Fatalf("%s: %v (-want +got)\n%s", out, err, d)
		}
	})
}
