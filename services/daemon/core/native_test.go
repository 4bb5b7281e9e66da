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
	"time"

	"github.com/waltos/waltos/services/daemon/daemontest"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
	"github.com/waltos/waltos/services/wire/client"
	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/services/wire/rpc"
)

// native is the daemon as it runs without appliance, with real processes and sockets.
type native struct {
	*daemontest.Daemon
	t      *testing.T
	wheels string // folder of those for clients
}

// startNative starts a daemon with blocks in its site file, and devices.
func startNative(t *testing.T, site string, devices ...db.Device) *native {
	n := &native{t: t, wheels: t.TempDir()}
	// What ssh would do on the node is done here: its last argument is run by a shell.
	programs := t.TempDir()
	script := "#!/bin/sh\nfor last; do :; done\nexec sh -c \"$last\"\n"
	if err := os.WriteFile(filepath.Join(programs, "ssh"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", programs+":"+os.Getenv("PATH"))
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n.Daemon = daemontest.Start(t, daemontest.Config{
		Program: exe,
		Arguments: map[string][]string{
			"server-main": {"-wheels", n.wheels, "-psql", strings.Join(dbtest.PsqlCommand(t), " "), "-sql-account", ""},
		},
		Site: site, Devices: devices,
	})
	return n
}

// session opens an API session; what it prints goes to said.
func (n *native) session(api string) (s *client.Session, said *strings.Builder) {
	said = &strings.Builder{}
	s, err := client.Dial(n.t.Context(), n.API, client.Options{API: api, Handler: (&client.User{Name: "alice", Out: said, Err: said}).Serve})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { s.Close() })
	return s, said
}

func TestNativeDaemon(t *testing.T) {
	n := startNative(t, "")
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
	if got := call("show_images", "alice", false, true, false); got != "" {
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
	if err := client.SendLogs(t.Context(), n.Streams, "hello", "one", "two"); err != nil {
		t.Fatal(err)
	}
	query := client.LogQuery{History: true, Streams: "hello|platform"}
	var lines []string
	err := client.DumpLogs(t.Context(), n.Streams, query, func(r client.Record) error {
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
	n.Down("server-main")
	n.Up("server-main")
	// A call that was sent to the process that ended fails, the next ones are served.
	dbtest.Wait(t, "server-main", func(ctx context.Context) error {
		_, err := s.Call(ctx, "get_time")
		return err
	})
	if got := call("develop_device_set", "all-devices"); got != "there,walt-server" {
		t.Errorf("after a restart: %v", got)
	}
	if got, ok := call("get_checkpoint_time", "cp1").(float64); !ok || got < 1e9 {
		t.Errorf("get_checkpoint_time = %v", got)
	}
}

func TestNativeStreams(t *testing.T) {
	n := startNative(t, "", db.Device{MAC: "02:00:00:00:00:10", IP: "127.0.0.1", Name: "here", Type: "node", Model: "pc-x86-64", Image: daemontest.Image})
	open := func(request rpc.Request) *client.Stream {
		t.Helper()
		s, err := client.DialStream(t.Context(), n.Streams, request)
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
		io.WriteString(s, "\n")
		user, _ := n.session("CSAPI")
		if v, err := user.Call(t.Context(), "wait_for_nodes", "here"); err != nil {
			t.Errorf("wait_for_nodes = %v, %v", v, err)
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
	t.Run("boot file that is not there", func(t *testing.T) {
		s := open(rpc.FakeTFTPGet)
		s.Send(pickle.NewDict("path", "/start.ipxe"))
		expect(s, "READY\nNO MAC OR IP SPECIFIED\n")
		s = open(rpc.FakeTFTPGet)
		s.Send(pickle.NewDict("node_mac", "02:00:00:00:00:10", "path", "/../../etc/passwd"))
		expect(s, "READY\nNO SUCH FILE\n")
	})
	t.Run("prompt that is not provided", func(t *testing.T) {
		s := open(rpc.DockerPrompt)
		s.Send(pickle.NewDict("tty_mode", false))
		expect(s, "READY\nthis is not available on this server yet\r\n")
	})
	t.Run("SQL prompt", func(t *testing.T) {
		s := open(rpc.SQLPrompt)
		s.Send(pickle.NewDict("tty_mode", false))
		io.WriteString(s, "\\dt\nupdate devices set name = 'there' where name = 'here';\n")
		s.Conn.(*net.TCPConn).CloseWrite()
		out, err := io.ReadAll(s.R)
		if err != nil || strings.Count(string(out), "logstreams") != 1 || !strings.HasSuffix(string(out), "UPDATE 1\n") {
			t.Errorf("got %s, %v", out, err)
		}
		// The registry follows.
		user, _ := n.session("CSAPI")
		dbtest.Wait(t, "the new name", func(ctx context.Context) error {
			v, err := user.Call(ctx, "develop_device_set", "all-devices")
			if v != "there,walt-server" {
				return fmt.Errorf("%v, %v", v, err)
			}
			return nil
		})
	})
	t.Run("command without terminal", func(t *testing.T) {
		s := open(rpc.NodeCmd)
		s.Send(pickle.NewDict("node_ip", "127.0.0.1", "cmdargs", pickle.Tuple{"cat;", "echo", "after"}, "ssh_tty", false, "tty_mode", false))
		io.WriteString(s, "input\n")
		s.Conn.(*net.TCPConn).CloseWrite()
		expect(s, "READY\ninput\nafter\n")
	})
	t.Run("command in a terminal", func(t *testing.T) {
		s := open(rpc.NodeCmd)
		s.Send(pickle.NewDict("node_ip", "127.0.0.1", "cmdargs", pickle.Tuple{`stty -echo; echo size $(stty size) $TERM; read x; echo size $(stty size) "$x"`},
			"ssh_tty", true, "tty_mode", true, "win_size", pickle.Int16s{24, 81, 0, 0}, "env", pickle.NewDict("TERM", "vt100", "LD_PRELOAD", "x")))
		line := func() string {
			line, err := s.R.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimSpace(line)
		}
		if got := line(); got != "READY" {
			t.Errorf("got %q", got)
		}
		if got := line(); got != "size 24 81 vt100" {
			t.Errorf("got %q", got)
		}
		s.Send(pickle.NewDict("evt", "window_resize", "lines", 50, "columns", 132))
		s.Send(pickle.NewDict("evt", "input_data", "data", []byte("typed\r")))
		if got := line(); got != "size 50 132 typed" {
			t.Errorf("got %q", got)
		}
		expect(s, "")
	})
	t.Run("client that leaves its terminal", func(t *testing.T) {
		pid := filepath.Join(t.TempDir(), "pid")
		s := open(rpc.NodeCmd)
		s.Send(pickle.NewDict("node_ip", "127.0.0.1", "cmdargs", pickle.Tuple{"echo $$ >" + pid + "; echo started; exec sleep 1000"},
			"ssh_tty", true, "tty_mode", true, "win_size", pickle.Int16s{24, 80, 0, 0}))
		s.Line()
		if line, err := s.R.ReadString('\n'); !strings.HasPrefix(line, "started") {
			t.Fatalf("got %q, %v", line, err)
		}
		s.Close()
		text, err := os.ReadFile(pid)
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := os.Stat("/proc/" + strings.TrimSpace(string(text))); err != nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
	})
	t.Run("files from and to a node", func(t *testing.T) {
		from, to := t.TempDir(), t.TempDir()
		if err := os.WriteFile(filepath.Join(from, "it's"), []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
		get := open(rpc.TarFromNode)
		get.Send(pickle.NewDict("node_ip", "127.0.0.1", "src_path", filepath.Join(from, "it's"), "dst_dir", "x", "dst_name", "new name"))
		get.Line()
		put := open(rpc.TarToNode)
		put.Send(pickle.NewDict("node_ip", "127.0.0.1", "src_path", "x", "dst_dir", to, "dst_name", "new name"))
		if _, err := io.Copy(put, get.R); err != nil {
			t.Error(err)
		}
		put.Conn.(*net.TCPConn).CloseWrite()
		expect(put, "READY\n")
		if text, err := os.ReadFile(filepath.Join(to, "new name")); string(text) != "content" {
			t.Errorf("received %q, %v", text, err)
		}
		put = open(rpc.TarToNode)
		put.Send(pickle.NewDict("node_ip", "127.0.0.1", "src_path", "x", "dst_dir", to+"/none", "dst_name", "x"))
		put.Line()
		io.WriteString(put, strings.Repeat("tar", 100000))
		put.Conn.(*net.TCPConn).CloseWrite()
		if said, err := io.ReadAll(put.R); err != nil || !strings.Contains(string(said), to+"/none") {
			t.Errorf("a missing folder gives %q, %v", said, err)
		}
	})
	t.Run("hostile parameters", func(t *testing.T) {
		s := open(rpc.NodeCmd)
		io.WriteString(s, "\x80\x04cos\nsystem\n(S'true'\ntR.")
		expect(s, "READY\n")
		s = open(rpc.NodeCmd)
		s.Send(pickle.NewDict("node_ip", "-oProxyCommand=true", "cmdargs", pickle.Tuple{"x"}))
		expect(s, "READY\nno node has address \"-oProxyCommand=true\"\r\n")
	})
}
