package client

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/services/wire/rpc"
)

// serve runs a server of one connection and returns its address.
func serve(t *testing.T, f func(conn net.Conn, r *bufio.Reader)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan bool)
	go func() {
		defer close(over)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		f(conn, bufio.NewReader(conn))
	}()
	t.Cleanup(func() { ln.Close(); <-over })
	return ln.Addr().String()
}

func TestDumpLogs(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	address := serve(t, func(conn net.Conn, r *bufio.Reader) {
		if line, err := rpc.ReadLine(r, 10); line != "1" || err != nil {
			t.Errorf("got %q, %v", line, err)
		}
		v, err := pickle.NewDecoder(r, pickle.Limits{}).Decode()
		if err != nil {
			t.Error(err)
		}
		issuers, _ := v.(*pickle.Dict).Get("issuers")
		if d := cmp.Diff(any(pickle.Tuple{"n1"}), issuers); d != "" {
			t.Error(d)
		}
		for i := range 2 {
			data, _ := pickle.Marshal(pickle.NewDict("timestamp", at, "line", fmt.Sprint("line ", i), "issuer", "n1", "stream", "s"))
			conn.Write(data)
		}
	})
	var got []Record
	err := DumpLogs(t.Context(), address, LogQuery{History: true, Issuers: []string{"n1"}}, func(r Record) error {
		got = append(got, r)
		return nil
	})
	if d := cmp.Diff([]Record{{at, "line 0", "n1", "s"}, {at, "line 1", "n1", "s"}}, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
}

// serveLogs is a server that takes one log stream, and gives what it received.
func serveLogs(t *testing.T) (address string, got chan string) {
	got = make(chan string, 1)
	return serve(t, func(conn net.Conn, r *bufio.Reader) {
		var text strings.Builder
		for !strings.HasSuffix(text.String(), "\nCLOSE\n") {
			line, err := r.ReadString('\n')
			if err != nil {
				break
			}
			text.WriteString(line)
		}
		got <- text.String()
	}), got
}

func TestSendLogs(t *testing.T) {
	address, got := serveLogs(t)
	if err := SendLogs(t.Context(), address, "walt-init", "a", "b"); err != nil {
		t.Fatal(err)
	}
	if text := <-got; text != "0\nwalt-init\nNO_TIMESTAMPS\na\nb\nCLOSE\n" {
		t.Errorf("got %q", text)
	}
}

func TestDumpLogsEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	address := serve(t, func(conn net.Conn, r *bufio.Reader) {
		r.ReadByte()
		cancel()
		io.Copy(io.Discard, r)
	})
	if err := DumpLogs(ctx, address, LogQuery{Realtime: true}, nil); err != nil {
		t.Error(err)
	}
}

func TestWrongServers(t *testing.T) {
	for _, answer := range []string{"", "10.0", strings.Repeat("x", 1000)} {
		address := serve(t, func(conn net.Conn, r *bufio.Reader) { io.WriteString(conn, answer) })
		if _, err := Dial(t.Context(), address, Options{}); err == nil {
			t.Errorf("%.20q is accepted as a version", answer)
		}
	}
	for _, answer := range []string{"", "HTTP/1.1 400 Bad Request\r\n\r\n", "\x80\x04\x8c\x02os\x8c\x06system\x93.", "\x80\x04\x8c\x03FOO\x85."} {
		address := serve(t, func(conn net.Conn, r *bufio.Reader) {
			io.WriteString(conn, "10.0\n")
			rpc.ReadLine(r, 100)
			rpc.ReadLine(r, 100)
			rpc.ReadLine(r, 100)
			r.ReadByte()
			io.WriteString(conn, answer)
		})
		s, err := Dial(t.Context(), address, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if v, err := s.Call(t.Context(), "get_time"); err == nil {
			t.Errorf("%q is accepted as %v", answer, v)
		}
		s.Close()
	}
}
