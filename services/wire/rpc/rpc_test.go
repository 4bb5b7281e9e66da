package rpc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/waltos/waltos/services/wire/pickle"
)

var equal = cmp.Transformer("Entries", func(d *pickle.Dict) []pickle.Entry { return append([]pickle.Entry{}, d.Entries()...) })

func TestParseRequest(t *testing.T) {
	for line, want := range map[string]Request{
		"10": APISession, "REQ_API_SESSION": APISession, " 0 \r": NewIncomingLogs, "16": TarForImageBuild,
		"REQ_NEW_INCOMING_LOGS": NewIncomingLogs, "REQ_NOTIFY_BOOTUP_STATUS": NotifyBootupStatus, "REQ_TAR_FOR_IMAGE_BUILD": TarForImageBuild,
	} {
		if got, err := ParseRequest(line); err != nil || got != want {
			t.Errorf("%q: got %v, %v", line, got, err)
		}
	}
	for _, line := range []string{"", "17", "-1", "REQ_", "API_SESSION", "req_api_session", "GET / HTTP/1.1", "1.0", "99999999999999999999"} {
		if got, err := ParseRequest(line); !errors.Is(err, ErrUnknownRequest) {
			t.Errorf("%q: got %v, %v", line, got, err)
		}
	}
	for r := NewIncomingLogs; r <= TarForImageBuild; r++ {
		if got, err := ParseRequest(r.String()); err != nil || got != r {
			t.Errorf("%v: got %v, %v", r, got, err)
		}
	}
}

func TestReadLine(t *testing.T) {
	tests := []struct{ in, line, err string }{
		{"abc\nrest", "abc", ""}, {"\n", "", ""}, {"abcdefgh\n", "abcdefgh", ""}, {"abcdefghi\n", "", "longer"},
		{"", "", "EOF"}, {"abc", "", "unexpected EOF"}, {strings.Repeat("x", 10000), "", "longer"},
	}
	for _, test := range tests {
		r := bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(test.in)), 16)
		line, err := ReadLine(r, 8)
		if line != test.line || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%.20q: got %q, %v", test.in, line, err)
		}
	}
	long := strings.Repeat("y", 100000)
	if line, err := ReadLine(bufio.NewReader(strings.NewReader(long+"\n")), len(long)); err != nil || line != long {
		t.Errorf("a long line: %v", err)
	}
}

func TestReadRequest(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	go client.Write([]byte("REQ_DUMP_LOGS\nmore"))
	request, r, err := ReadRequest(t.Context(), server)
	if err != nil || request != DumpLogs {
		t.Fatalf("got %v, %v", request, err)
	}
	rest := make([]byte, 4)
	if _, err := io.ReadFull(r, rest); err != nil || string(rest) != "more" {
		t.Errorf("got %q, %v", rest, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := ReadRequest(ctx, server); err == nil {
		t.Error("a silent peer holds up a context that has ended")
	}
}

// messages are given in both forms.
var messages = []struct {
	line string
	m    Message
}{
	{"('SET_MODE', 'pickle4')\n", Message{Kind: SetMode, Name: "pickle4"}},
	{"('API_CALL', 'sync_clock', (), {})\n", Message{Kind: APICall, Name: "sync_clock", Args: pickle.Tuple{}, Kwargs: &pickle.Dict{}}},
	{"('API_CALL', 'f', (1, 'a'), {'k': None})\n", Message{Kind: APICall, Name: "f", Args: pickle.Tuple{int64(1), "a"}, Kwargs: pickle.NewDict("k", nil)}},
	{"('RESULT', 1718000000)\n", Message{Kind: Result, Value: int64(1718000000)}},
	{"('EXCEPTION', \"it's\")\n", Message{Kind: Exception, Name: "it's"}},
	{"('CLOSE',)\n", Message{Kind: Close}},
}

func TestMessages(t *testing.T) {
	for _, test := range messages {
		got, err := NewCodec(bufio.NewReader(strings.NewReader(test.line)), nil, pickle.Limits{}).Read()
		if d := cmp.Diff(test.m, got, equal); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", test.line, err, d)
		}
		var out bytes.Buffer
		if err := NewCodec(nil, &out, pickle.Limits{}).Write(Lines, test.m); err != nil || out.String() != test.line {
			t.Errorf("got %q, %v; want %q", out.String(), err, test.line)
		}
		data, err := Append(nil, Pickle, test.m)
		if err != nil {
			t.Fatal(err)
		}
		c := NewCodec(bufio.NewReader(bytes.NewReader(data)), nil, pickle.Limits{})
		if err := c.SetMode(Pickle); err != nil {
			t.Fatal(err)
		}
		got, err = c.Read()
		if d := cmp.Diff(test.m, got, equal); d != "" || err != nil {
			t.Errorf("pickled %s: %v\n%s", test.line, err, d)
		}
		if line, err := Transcode(Lines, data); err != nil || string(line) != test.line {
			t.Errorf("got %q, %v; want %q", line, err, test.line)
		}
	}
	if err := NewCodec(nil, nil, pickle.Limits{}).SetMode("eval"); err == nil {
		t.Error("an unknown mode is accepted")
	}
}

func TestUnusualMessages(t *testing.T) {
	for line, want := range map[string]Kind{
		"('CLOSE')": Close, "('WHAT', 1)": Close, "()": Close, "1": Close, "(1, 2)": Close, "None": Close,
		"( 'API_CALL', 'report_lldp_neighbor', ( 'aa:bb:cc:dd:ee:ff', 'g1',), {})": APICall,
		"('API_CALL', 'f', [], {})": APICall,
	} {
		m, err := NewCodec(bufio.NewReader(strings.NewReader(line+"\n")), nil, pickle.Limits{}).Read()
		if err != nil || m.Kind != want {
			t.Errorf("%s: got %v, %v", line, m, err)
		}
	}
	for _, line := range []string{
		"('API_CALL', 'f', ())", "('API_CALL', 'f', (), {}, 1)", "('API_CALL', 1, (), {})", "('API_CALL', 'f', 'x', {})", "('API_CALL', 'f', (), ())",
		"('API_CALL', 'f', (), {1: 2})", "('RESULT',)", "('RESULT', 1, 2)", "('SET_MODE',)", "('SET_MODE', 4)", "__import__('os')", "",
		"(" + strings.Repeat("0,", 1<<20) + ")",
	} {
		if m, err := NewCodec(bufio.NewReader(strings.NewReader(line+"\n")), nil, pickle.Limits{}).Read(); err == nil {
			t.Errorf("%.60s: accepted as %v", line, m)
		}
	}
}

func TestOneLine(t *testing.T) {
	if got := OneLine("a\nb\r\n\nc"); got != "a b c" {
		t.Errorf("got %q", got)
	}
	if got := OneLine(strings.Repeat("é", 5000)); len(got) > 1010 {
		t.Errorf("got %d bytes", len(got))
	}
}

func FuzzRead(f *testing.F) {
	for _, test := range messages {
		data, _ := Append(nil, Pickle, test.m)
		f.Add([]byte(test.line), false)
		f.Add(data, true)
	}
	f.Fuzz(func(t *testing.T, data []byte, pickled bool) {
		c := NewCodec(bufio.NewReader(bytes.NewReader(data)), nil, pickle.Limits{Size: 1 << 16})
		if pickled {
			c.SetMode(Pickle)
		}
		for {
			m, err := c.Read()
			if err != nil {
				return
			}
			if _, err := Append(nil, Pickle, m); err != nil {
				t.Fatal(err)
			}
			if _, err := Append(nil, Lines, m); err != nil {
				t.Fatal(err)
			}
		}
	})
}
