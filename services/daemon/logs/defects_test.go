package logs_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
	"github.com/waltos/waltos/services/daemon/logs"
	"github.com/waltos/waltos/services/wire/literal"
	"github.com/waltos/waltos/services/wire/pickle"
)

// These tests show that defects of WalT 10.0 are absent: TestDefectS… those of
// server-state §8, TestDefectN… those of node-protocols §9.1, TestCN… those of client-api
// §7. Others, of the hub alone, are in hub_test.go.

// sendPieces sends a log stream as the node of the platform does, piece by piece.
func sendPieces(t *testing.T, h *logs.Hub, pieces ...string) {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.ServeIncoming(context.Background(), server, bufio.NewReader(server))
	}()
	for _, p := range pieces {
		if _, err := io.WriteString(client, p); err != nil {
			t.Fatal(err)
		}
	}
	client.Close()
	<-done
}

// history returns the lines of a history, without their issuer.
func history(t *testing.T, h *logs.Hub, params ...any) []string {
	t.Helper()
	return open(t, h, append([]any{"history", all, "realtime", false}, params...)...).rest(t)
}

func TestDefectS4NULInLine(t *testing.T) {
	h := platform(t)
	sendPieces(t, h, "app\nNO_TIMESTAMPS\n", "before\nnul \x00 here\nafter\n", "CLOSE\n")
	h.Emit("platform.nodes", "another\x00one") // in the same batch
	want := []string{"rpi.app before", "rpi.app nul \uFFFD here", "rpi.app after", "walt-server.platform.nodes another\uFFFDone"}
	if diff := cmp.Diff(want, history(t, h)); diff != "" {
		t.Error(diff)
	}
}

func TestDefectS4CharacterSplitBetweenReads(t *testing.T) {
	h := platform(t)
	pieces := []string{"app\nNO_TIMESTAMPS\n"}
	for _, b := range []byte("été 東京 🙂\nsuite\nCLOSE\n") {
		pieces = append(pieces, string([]byte{b}))
	}
	sendPieces(t, h, pieces...)
	if diff := cmp.Diff([]string{"rpi.app été 東京 🙂", "rpi.app suite"}, history(t, h)); diff != "" {
		t.Error(diff)
	}
}

func TestDefectN4InvalidUTF8(t *testing.T) {
	h := platform(t)
	sendPieces(t, h, "\xff\xfename\nNO_TIMESTAMPS\n", "\xc3\x28 line\nCLOSE\n")
	sendPieces(t, h, "next\nNO_TIMESTAMPS\n", "line\nCLOSE\n")
	if diff := cmp.Diff([]string{"rpi.\uFFFDname \uFFFD( line", "rpi.next line"}, history(t, h)); diff != "" {
		t.Error(diff)
	}
}

// The stamps of a block that are no numbers cost nothing but themselves.
func TestDefectS4StampThatIsNoNumber(t *testing.T) {
	h := platform(t)
	at := float64(time.Now().Add(-time.Hour).UnixMicro()) / 1e6
	sendPieces(t, h, "app\nTIMESTAMPS_INSIDE\n", fmt.Sprintf("%.6f first\nno stamp\n%.6f last\nCLOSE\n", at, at+1))
	if diff := cmp.Diff([]string{"rpi.app first", "rpi.app last", "rpi.app no stamp"}, history(t, h)); diff != "" {
		t.Error(diff)
	}
}

// expressions are those on which the C library and PostgreSQL disagree (server-state
// 4.5), and others.
var expressions = []string{
	`\wb`, `\bfoo`, `\<foo\>`, `a**b`, `^a{,2}$`, `(?i)x`, `\d`, `a|b`, `(a|b)*c`, `^$`, `[[:digit:]]+`, `[^a-z]`, `.`, `\.`, `a.c`,
	`é`, `^.$`, `[é-ü]`, `x{2,3}`, `(ab){2}`, `\\`, `[]a]`, `a]`, `{`, `a{`, `a{1`, `^*`, `()`, `(a`, `a)`, `[a`, `a{2,1}`, `*a`, `+`, `a|*b`, `\`, `[[:nothing:]]`, `\1`,
}

func TestDefectS4RegexpsSameInBothModes(t *testing.T) {
	h := platform(t)
	lines := []string{"", "a", "aa", "aaa", "ab", "ac", "abab", "aab", "b", "foo", "a foo b", "food", "(?i)x", "x", "X", "xx", "d", "5", "é", "ü", "E", `a\b`, ".", "a.c", "abc", "]", "a]", "{", "a{", "a{1", "*", "^*", "a b", "tab\there"}
	live := map[string]*dump{}
	for _, expr := range expressions {
		live[expr] = open(t, h, "history", nil, "realtime", true, "logline_regexp", "^end$|"+expr, "streams_regexp", "^app$")
	}
	h.Emit("probe", "any")
	// A refused expression ends its dump; all others wait for lines.
	refused := map[string]bool{}
	for _, expr := range expressions {
		if isRefused(t, h, expr) {
			refused[expr] = true
			if _, err := live[expr].record(); err == nil {
				t.Errorf("%q is refused for a history only", expr)
			}
		}
	}
	dbtest.Wait(t, "those who watch", func(context.Context) error {
		if n, want := h.Stats().Watchers, len(expressions)-len(refused); n != want {
			return fmt.Errorf("%d of %d", n, want)
		}
		return nil
	})
	for _, line := range lines {
		h.Emit("app", line)
	}
	h.Emit("app", "end")
	for _, expr := range expressions {
		if refused[expr] {
			continue
		}
		var got []string
		for {
			r, err := live[expr].record()
			if err != nil {
				t.Fatalf("%q: %v", expr, err)
			}
			line := strings.TrimPrefix(r, "walt-server.app ")
			got = append(got, line)
			if line == "end" {
				break
			}
		}
		var stored []string
		for _, r := range history(t, h, "logline_regexp", "^end$|"+expr, "streams_regexp", "^app$") {
			stored = append(stored, strings.TrimPrefix(r, "walt-server.app "))
		}
		slices.Sort(got)
		slices.Sort(stored)
		if diff := cmp.Diff(stored, got); diff != "" {
			t.Errorf("%q (-history +realtime):\n%s", expr, diff)
		}
	}
	if len(refused) < 5 || len(refused) > len(expressions)/2 {
		t.Errorf("%d of %d expressions are refused: %v", len(refused), len(expressions), refused)
	}
}

// isRefused tells whether a history refuses an expression: it is then closed at once,
// and the daemon goes on.
func isRefused(t *testing.T, h *logs.Hub, expr string) bool {
	t.Helper()
	return len(history(t, h, "streams_regexp", "^probe$|"+expr)) == 0
}

// TestCN08StreamErrorsAreIsolated: whatever goes wrong in one stream, the others live.
func TestCN08StreamErrorsAreIsolated(t *testing.T) {
	h := platform(t)
	h.Emit("app", "line")
	waiting := open(t, h, "history", all, "realtime", true)
	if r, err := waiting.record(); err != nil || r != "walt-server.app line" {
		t.Fatal(r, err)
	}
	for _, start := range []string{"", "x", "\x80\x04", "\x80\x04N.", "\x80\x04}."} { // closed after the id, or no parameters
		client, server := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			h.ServeDump(context.Background(), server, bufio.NewReader(server))
		}()
		io.WriteString(client, start)
		client.Close()
		<-done
	}
	for _, params := range [][]any{{"streams_regexp", "("}, {"logline_regexp", "[a"}, {"issuers", int64(5)}, {"history", "x"}} {
		for _, mode := range [][]any{{"history", all, "realtime", false}, {"history", nil, "realtime", true}} {
			if got := open(t, h, append(mode, params...)...).rest(t); len(got) > 0 {
				t.Errorf("%v: %q", params, got)
			}
		}
	}
	h.Emit("app", "after")
	if r, err := waiting.record(); err != nil || r != "walt-server.app after" {
		t.Errorf("a stream opened before: %q, %v", r, err)
	}
	if got := history(t, h); len(got) != 2 {
		t.Errorf("a stream opened after: %q", got)
	}
}

// TestCN16IssuersAreBound: names in a request are names, not SQL nor patterns.
func TestCN16IssuersAreBound(t *testing.T) {
	h := platform(t)
	h.Emit("app", "line")
	for _, name := range []string{"x') OR ('a'='a", "walt-server' --", "%", "walt_server", "walt-server'; DROP TABLE logs; --", "", "\x00"} {
		if got := history(t, h, "issuers", pickle.Tuple{name}); len(got) > 0 {
			t.Errorf("issuer %q: %q", name, got)
		}
		if n, err := h.Count(t.Context(), db.LogFilter{Issuers: []string{name}}); name != "\x00" && (err != nil || n != 0) {
			t.Errorf("issuer %q: %d, %v", name, n, err)
		}
	}
	for _, mode := range []string{"line' OR 'a'='a", "lines"} {
		if n, err := h.Count(t.Context(), db.LogFilter{Mode: mode}); err == nil {
			t.Errorf("mode %q: %d lines", mode, n)
		}
	}
	if got := history(t, h, "issuers", pickle.Tuple{"walt-server"}); len(got) != 1 {
		t.Errorf("afterwards: %q", got)
	}
}

// TestCN31ConsoleLiterals: what a console printed comes to clients as Python would
// write it.
func TestCN31ConsoleLiterals(t *testing.T) {
	h := platform(t)
	var every []byte
	for b := range 256 {
		every = append(every, byte(b))
	}
	want := map[string]string{
		"login: ": `b'login: '`, "it's": `b"it's"`, `say "a"`: `b'say "a"'`, `'"`: `b'\'"'`, "a\\b\t\r\n\x1b[0m\xe9": `b'a\\b\t\r\n\x1b[0m\xe9'`, "": `b''`,
		string(every): literal.FormatBytes(every),
	}
	if python, err := exec.LookPath("python3"); err == nil {
		for data := range want {
			cmd := exec.Command(python, "-c", "import sys; sys.stdout.write(repr(sys.stdin.buffer.read()))")
			cmd.Stdin = strings.NewReader(data)
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if string(out) != want[data] {
				t.Errorf("Python writes %s, not %s", out, want[data])
			}
		}
	} else {
		t.Log("no python3 on this machine: its forms are those of the reference only")
	}
	for data, form := range want {
		name := fmt.Sprintf("console%d", len(data))
		h.EmitChunk(t.Context(), nodeMAC, name, time.Now(), []byte(data))
		got := history(t, h, "streams_regexp", "^"+name+"$", "logline_regexp", ".")
		if !slices.Contains(got, "rpi."+name+" "+form) {
			quoted, _ := json.Marshal(data)
			t.Errorf("%s came as %q", quoted, got)
		}
	}
	if n, err := h.Count(t.Context(), db.LogFilter{Mode: "chunk"}); err != nil || n != len(want) {
		t.Errorf("%d chunks of %d, %v", n, len(want), err)
	}
}

// TestGuarantee5Order: lines of one stream keep the order in which they came
// (server-state 5.5), also in a history, although one read gives them one time.
func TestGuarantee5Order(t *testing.T) {
	h := platform(t)
	const n = 20_000
	var text strings.Builder
	for i := range n {
		fmt.Fprintln(&text, i)
	}
	sendPieces(t, h, "app\nNO_TIMESTAMPS\n", text.String(), "CLOSE\n")
	got := history(t, h)
	if len(got) != n {
		t.Fatalf("%d lines", len(got))
	}
	for i, line := range got {
		if line != fmt.Sprint("rpi.app ", i) {
			t.Fatalf("line %d is %q", i, line)
		}
	}
}
