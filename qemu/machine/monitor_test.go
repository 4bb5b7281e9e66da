package machine

import (
	"bytes"
	"context"
	"net"
	"regexp"
	"strings"
	"testing"
)

// TestMonitorBounds feeds a monitor what no QEMU sends.
func TestMonitorBounds(t *testing.T) {
	for name, bytes := range map[string]string{
		"nothing":         "",
		"no JSON":         "hello\n",
		"an endless line": strings.Repeat("x", maxMessage+1),
		"a wrong type":    `{"id": "text", "return": {}}` + "\n",
		"a stray answer":  `{"id": 99, "return": {}}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			go func() {
				buffer := make([]byte, 1000)
				far.Read(buffer) // the negotiation
				far.Write([]byte(bytes))
				far.Close()
			}()
			if _, err := NewMonitor(context.Background(), near, func(string) {}); err == nil {
				t.Error("the monitor was accepted")
			}
		})
	}
}

func TestConsoleText(t *testing.T) {
	var log bytes.Buffer
	c := newConsole("test", nil, &log)
	c.take([]byte("\x1b[2J\x1b[01;01HBdsDxe\x1b[0m: loading\r\n\x1bcab\bc\tx\xff\r\nprompt> "))
	want := []string{"BdsDxe: loading", "ac\tx?", "prompt> "}
	if got := c.Lines(10); strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("lines are %q, want %q", got, want)
	}
	if got := c.Lines(1); len(got) != 1 || got[0] != "prompt> " {
		t.Errorf("the last line is %q", got)
	}
	c.Allow(regexp.MustCompile("dm-verity device corrupted"))
	c.take([]byte("\nKernel panic - not syncing: dm-verity device corrupted\n"))
	if c.Failure() != nil {
		t.Error("an allowed line is a failure")
	}
	c.take([]byte("walt: fatal: cannot mount\nOops: 0000\n"))
	if f := c.Failure(); f == nil || f.Line != "walt: fatal: cannot mount" {
		t.Errorf("the failure is %v", f)
	}
}

func TestConsoleForgets(t *testing.T) {
	c := newConsole("test", nil, nil)
	for range maxLines + 10 {
		c.take([]byte("line\n"))
	}
	c.take([]byte("last\n" + strings.Repeat("x", 3*maxLine)))
	if len(c.lines) > maxLines {
		t.Errorf("%d lines are kept", len(c.lines))
	}
	line, next, err := c.Wait(context.Background(), 0, regexp.MustCompile("last"))
	if err != nil || line != "last" || next != maxLines+11 {
		t.Errorf("found %q before %d: %v", line, next, err)
	}
	if c.Position() != maxLines+11+3 {
		t.Errorf("the position is %d", c.Position())
	}
}
