package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
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

// opened reads what opens a stream, and returns the parameters; ready is the answer to the
// request line.
func opened(t *testing.T, conn net.Conn, r *bufio.Reader, request rpc.Request, ready string) *pickle.Dict {
	line, err := rpc.ReadLine(r, 10)
	if got, _ := rpc.ParseRequest(line); got != request || err != nil {
		t.Errorf("got request %q, %v", line, err)
	}
	io.WriteString(conn, ready)
	v, err := pickle.NewDecoder(r, pickle.Limits{}).Decode()
	if err != nil {
		t.Errorf("parameters: %v", err)
	}
	d, _ := v.(*pickle.Dict)
	return d
}

func value(d *pickle.Dict, key string) any {
	v, _ := d.Get(key)
	return v
}

func TestPromptWithoutTerminal(t *testing.T) {
	address := serve(t, func(conn net.Conn, r *bufio.Reader) {
		d := opened(t, conn, r, rpc.NodeCmd, "READY\n")
		if d := cmp.Diff([]any{"10.0.0.7", pickle.Tuple{"wc", "-l"}, false, false},
			[]any{value(d, "node_ip"), value(d, "cmdargs"), value(d, "ssh_tty"), value(d, "tty_mode")}); d != "" {
			t.Error(d)
		}
		input, _ := io.ReadAll(r)
		fmt.Fprintf(conn, "%d\n", bytes.Count(input, []byte("\n")))
	})
	out, err := NodeCommand("10.0.0.7", false, "wc", "-l").Run(t.Context(), address, strings.NewReader("a\nb\n"))
	if string(out) != "2\n" || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestPromptOnTerminal(t *testing.T) {
	address := serve(t, func(conn net.Conn, r *bufio.Reader) {
		d := opened(t, conn, r, rpc.DeviceShell, "READY\n")
		if d := cmp.Diff([]any{"10.0.0.7", nil, true, pickle.Int16s{24, 80, 0, 0}},
			[]any{value(d, "device_ip"), value(d, "user"), value(d, "tty_mode"), value(d, "win_size")}); d != "" {
			t.Error(d)
		}
		events := pickle.NewDecoder(r, pickle.Limits{})
		for range 2 {
			v, err := events.Decode()
			if err != nil {
				t.Error(err)
				return
			}
			d := v.(*pickle.Dict)
			fmt.Fprintf(conn, "%v %q %v %v;", value(d, "evt"), value(d, "data"), value(d, "lines"), value(d, "columns"))
		}
	})
	shell := DeviceShell("10.0.0.7", "")
	shell.Window = &Window{24, 80}
	terminal, err := shell.Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	io.WriteString(terminal, "ls\r")
	if err := terminal.Resize(Window{50, 132}); err != nil {
		t.Error(err)
	}
	out, err := io.ReadAll(terminal)
	if want := `input_data "ls\r" <nil> <nil>;window_resize %!q(<nil>) 50 132;`; err != nil || string(out) != want {
		t.Errorf("got %q, %v; want %q", out, err, want)
	}
}

func TestPromptEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	address := serve(t, func(conn net.Conn, r *bufio.Reader) {
		opened(t, conn, r, rpc.DevicePing, "READY\n")
		cancel()
		io.Copy(io.Discard, r)
	})
	ping := Ping("10.0.0.7")
	ping.Window = &Window{24, 80}
	if _, err := ping.Run(ctx, address, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestTransfers(t *testing.T) {
	parameters := pickle.NewDict("src_path", "/x")
	archive := strings.Repeat("archive", 10_000)
	address := serve(t, func(conn net.Conn, r *bufio.Reader) {
		opened(t, conn, r, rpc.TarFromNode, "READY\n")
		io.WriteString(conn, archive)
	})
	var got strings.Builder
	if err := (Transfer{rpc.TarFromNode, parameters}).Fetch(t.Context(), address, &got); err != nil || got.String() != archive {
		t.Errorf("got %d bytes, %v", got.Len(), err)
	}
	for _, complaint := range []string{"", "tar: no room\n"} {
		address = serve(t, func(conn net.Conn, r *bufio.Reader) {
			opened(t, conn, r, rpc.TarToNode, "READY\n")
			if text, err := io.ReadAll(r); string(text) != archive || err != nil {
				t.Errorf("got %d bytes, %v", len(text), err)
			}
			io.WriteString(conn, complaint)
		})
		err := Transfer{rpc.TarToNode, parameters}.Send(t.Context(), address, strings.NewReader(archive))
		if (err == nil) != (complaint == "") || err != nil && !strings.Contains(err.Error(), "no room") {
			t.Errorf("complaint %q: %v", complaint, err)
		}
	}
}

func TestDialNode(t *testing.T) {
	answers := map[string]string{"OK\n": "", "Could not connect to 10.0.0.7:80!\n": "Could not connect", "": "EOF"}
	for answer, want := range answers {
		address := serve(t, func(conn net.Conn, r *bufio.Reader) {
			d := opened(t, conn, r, rpc.TCPToNode, "")
			if value(d, "node_ip") != "10.0.0.7" || value(d, "node_port") != int64(80) {
				t.Errorf("got %v", d.Entries())
			}
			io.WriteString(conn, answer)
			if answer == "OK\n" {
				io.WriteString(conn, "hello")
			}
		})
		conn, err := DialNode(t.Context(), address, "10.0.0.7", 80)
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v", answer, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(conn); string(text) != "hello" || err != nil {
			t.Errorf("got %q, %v", text, err)
		}
		conn.Close()
	}
}

func TestBootFile(t *testing.T) {
	for answer, want := range map[string]string{
		"OK\n4\nfile": "", "OK\n5\nfile": "EOF", "OK\n-1\n": "its length is", "OK\n99999999999999\n": "its length is",
		"NO SUCH FILE\n": "no such boot file", "NO MAC OR IP SPECIFIED\n": "the server says", "": "EOF",
	} {
		address := serve(t, func(conn net.Conn, r *bufio.Reader) {
			opened(t, conn, r, rpc.FakeTFTPGet, "READY\n")
			io.WriteString(conn, answer)
		})
		var file strings.Builder
		err := BootFile(t.Context(), address, "02:00:00:00:00:10", "/start.ipxe", &file)
		if want == "" && (err != nil || file.String() != "file") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %q, %v", answer, file.String(), err)
		}
	}
}

func TestNotifyBoot(t *testing.T) {
	end := make(chan bool)
	address := serve(t, func(conn net.Conn, r *bufio.Reader) {
		io.WriteString(conn, "OK\n")
		if line, err := r.ReadString('\n'); line != "14\n" || err != nil {
			t.Errorf("got %q, %v", line, err)
		}
		if sign, err := r.ReadByte(); sign != '\n' || err != nil {
			t.Errorf("got %q, %v", sign, err)
		}
		<-end
	})
	boot, err := NotifyBoot(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer boot.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := boot.Keep(ctx); err != nil {
		t.Errorf("a context that ended: %v", err)
	}
	boot.stream.SetReadDeadline(time.Time{})
	close(end)
	if err := boot.Keep(t.Context()); err == nil {
		t.Error("a connection that ended is no error")
	}
}

func TestStampedLogs(t *testing.T) {
	address, got := serveLogs(t)
	l, err := OpenLogs(t.Context(), address, "s", true)
	if err != nil {
		t.Fatal(err)
	}
	l.Line(time.UnixMicro(1_700_000_000_250_000), "text")
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if text := <-got; text != "0\ns\nTIMESTAMPS_INSIDE\n1700000000.250000 text\nCLOSE\n" {
		t.Errorf("got %q", text)
	}
}
