package core

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waltos/waltos/services/daemon/db/dbtest"
	"github.com/waltos/waltos/services/daemon/hub"
	"github.com/waltos/waltos/services/wire/client"
	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/services/wire/rpc"
)

// native is the daemon as it runs without appliance: PostgreSQL, server-db, server-main
// and server-hub, with real sockets.
type native struct {
	t       *testing.T
	sockets string
	site    string
	api     string // address of TCP 12345
	streams string // of TCP 12347
	stop    func() // ends server-main
}

func startNative(t *testing.T) *native {
	n := &native{t: t, sockets: dbtest.Start(t).Serve()}
	n.site = filepath.Join(t.TempDir(), "walt.hcl")
	// The loopback is walt-net, so that connections of the test come from a device.
	text := "network \"walt-net\" { ip = \"127.0.0.5/24\" }\n"
	if err := os.WriteFile(n.site, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n.streams = "127.0.0.1:0"
	n.startMain()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.api = ln.Addr().String()
	h := hub.New(hub.Config{MainSocket: filepath.Join(n.sockets, "main.sock"), Access: hub.Open})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- h.Serve(ctx, ln) }()
	t.Cleanup(func() { cancel(); <-ended; h.Close(); n.stop() })
	return n
}

func (n *native) startMain() {
	p, err := open(context.Background(), options{
		site: n.site, sockets: n.sockets, streams: n.streams, netconsole: "127.0.0.1:0", serverMAC: "02:00:00:00:00:05",
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.streams = p.streams.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- p.run(ctx) }()
	n.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			n.t.Errorf("server-main: %v", err)
		}
		n.stop = func() {}
	}
}

// session opens an API session; what it prints goes to said.
func (n *native) session(api string) (s *client.Session, said *strings.Builder) {
	said = &strings.Builder{}
	s, err := client.Dial(n.t.Context(), n.api, client.Options{API: api, Handler: (&client.User{Name: "alice", Out: said, Err: said}).Serve})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { s.Close() })
	return s, said
}

func TestNativeDaemon(t *testing.T) {
	n := startNative(t)
	tool, _ := n.session("SSAPI")
	if _, err := tool.Call(t.Context(), "register_device", "", "", "127.0.0.1", "02:00:00:00:00:10", "here"); err != nil {
		t.Fatal(err)
	}
	s, said := n.session("CSAPI")
	call := func(method string, args ...any) any {
		t.Helper()
		v, err := s.Call(t.Context(), method, args...)
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		return v
	}
	devices := call("device_show").(string)
	for _, want := range []string{
		"walt-server  127.0.0.5  02:00:00:00:00:05  server",
		"here  127.0.0.1  02:00:00:00:00:10  unknown  LAN     ",
	} {
		if !strings.Contains(devices, want) {
			t.Errorf("device_show lacks %q:\n%s", want, devices)
		}
	}
	if got := call("show_nodes", "alice", true); got != "No nodes detected!\nType `walt help show node-ownership` for help." {
		t.Errorf("show_nodes = %q", got)
	}
	if got := call("show_images", "alice", true, false, false); got != "No OS images found!" {
		t.Errorf("show_images = %q", got)
	}
	call("get_nodes_info", "all-nodes")
	if got := said.String(); got != "No matching devices found! (tip: walt help show node-ownership)\n" {
		t.Errorf("said %q", got)
	}
	said.Reset()
	call("add_checkpoint", "cp1")
	if got := said.String(); !strings.HasPrefix(got, "New checkpoint cp1 recorded at server time: 20") {
		t.Errorf("said %q", got)
	}
	if _, err := s.Call(t.Context(), "no_such_method"); err == nil {
		t.Error("an unknown method is answered with a result")
	}

	// Logs of a device, and of the server, are read back by a client.
	if err := client.SendLogs(t.Context(), n.streams, "hello", "one", "two"); err != nil {
		t.Fatal(err)
	}
	query := client.LogQuery{History: true, Streams: "hello|platform"}
	var lines []string
	err := client.DumpLogs(t.Context(), n.streams, query, func(r client.Record) error {
		lines = append(lines, fmt.Sprintf("%s.%s %s", r.Issuer, r.Stream, r.Line))
		return nil
	})
	want := "walt-server.platform.devices new device name=here type=unknown mac=02:00:00:00:00:10 ip=127.0.0.1\nhere.hello one\nhere.hello two"
	if got := strings.Join(lines, "\n"); err != nil || got != want {
		t.Errorf("logs:\n%s\nwant\n%s\n(%v)", got, want, err)
	}
	count, err := s.CallKeywords(t.Context(), "count_logs", nil, pickle.NewDict(
		"history", pickle.Tuple{nil, nil}, "issuers", &pickle.Set{Items: []any{"here"}}, "exclude_consoles", true))
	if count != int64(2) || err != nil {
		t.Errorf("count_logs = %v, %v", count, err)
	}

	// Everything is there again after a restart of server-main, in the same session.
	call("rename", "here", "there")
	n.stop()
	n.startMain()
	if got := call("develop_device_set", "all-devices"); got != "there,walt-server" {
		t.Errorf("after a restart: %v", got)
	}
	if got, ok := call("get_checkpoint_time", "cp1").(float64); !ok || got < 1e9 {
		t.Errorf("get_checkpoint_time = %v", got)
	}
}

func TestNativeStreams(t *testing.T) {
	n := startNative(t)
	tool, _ := n.session("SSAPI")
	if _, err := tool.Call(t.Context(), "register_device", "", "", "127.0.0.1", "02:00:00:00:00:10", "here"); err != nil {
		t.Fatal(err)
	}
	open := func(request rpc.Request) *client.Stream {
		t.Helper()
		s, err := client.DialStream(t.Context(), n.streams, request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	expect := func(s *client.Stream, want string) {
		t.Helper()
		if got, err := io.ReadAll(s.R); string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	t.Run("boot notification", func(t *testing.T) {
		s := open(rpc.NotifyBootupStatus)
		if line, err := s.Line(); line != "OK" {
			t.Errorf("got %q, %v", line, err)
		}
	})
	t.Run("request of the other port", func(t *testing.T) { expect(open(rpc.APISession), "") })
	t.Run("relay to a device", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go func() {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(conn).ReadString('\n')
			io.WriteString(conn, "echo "+line)
			conn.Close()
		}()
		s := open(rpc.TCPToNode)
		s.Send(pickle.NewDict("node_ip", "127.0.0.1", "node_port", ln.Addr().(*net.TCPAddr).Port))
		io.WriteString(s, "hello\n")
		expect(s, "OK\necho hello\n")
		s = open(rpc.TCPToNode)
		s.Send(pickle.NewDict("node_ip", "127.0.0.9", "node_port", 80))
		expect(s, "Could not connect to 127.0.0.9:80!\n")
	})
	t.Run("boot file without node", func(t *testing.T) {
		s := open(rpc.FakeTFTPGet)
		s.Send(pickle.NewDict("path", "/start.ipxe"))
		expect(s, "READY\nNO MAC OR IP SPECIFIED\n")
		s = open(rpc.FakeTFTPGet)
		s.Send(pickle.NewDict("node_mac", "02:00:00:00:00:10", "path", "/../../etc/passwd"))
		expect(s, "READY\nNO SUCH FILE\n")
	})
	t.Run("prompt that is not provided", func(t *testing.T) {
		s := open(rpc.SQLPrompt)
		s.Send(pickle.NewDict("tty_mode", false))
		expect(s, "READY\nThis is not available on this server yet.\r\n")
	})
	t.Run("hostile parameters", func(t *testing.T) {
		s := open(rpc.NodeCmd)
		io.WriteString(s, "\x80\x04cos\nsystem\n(S'true'\ntR.")
		expect(s, "READY\n")
		s = open(rpc.NodeCmd)
		s.Send(pickle.NewDict("node_ip", "-oProxyCommand=true", "cmdargs", pickle.Tuple{"x"}))
		expect(s, "READY\n")
	})
}
