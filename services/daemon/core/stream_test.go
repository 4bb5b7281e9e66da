package core

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/waltos/waltos/services/daemon/core/psql"
	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/remote"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
	"github.com/waltos/waltos/services/internal/quota"
	"github.com/waltos/waltos/services/wire/client"
	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/services/wire/rpc"
)

// listen serves TCP 12347 for a test, and returns its address.
func (p *platform) listen(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- p.ServeStreams(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func dial(t testing.TB, address string, request rpc.Request) *client.Stream {
	t.Helper()
	s, err := client.DialStream(context.Background(), address, request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// answer returns all that is received of a stream once the client has sent its all.
func answer(t testing.TB, s *client.Stream) string {
	t.Helper()
	s.Conn.(*net.TCPConn).CloseWrite()
	out, err := io.ReadAll(s.R)
	if err != nil {
		t.Errorf("the stream is broken: %v", err)
	}
	return string(out)
}

// served checks that the daemon still serves streams.
func served(t testing.TB, address string) {
	t.Helper()
	s := dial(t, address, rpc.FakeTFTPGet)
	s.Send(pickle.NewDict("path", "/x"))
	if got := answer(t, s); got != "READY\nNO MAC OR IP SPECIFIED\n" {
		t.Errorf("a later client is answered %q", got)
	}
}

// CN-07, and rows 2 and 3 of the defects of server and nodes: peers that say nothing, or
// half of it, keep nobody waiting.
func TestCN07DefectS2DefectN3SilentConnections(t *testing.T) {
	p := start(t, nil)
	address := p.listen(t)
	for i := range 100 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		switch i % 4 {
		case 1:
			io.WriteString(conn, "1")
		case 2:
			io.WriteString(conn, "2\n")
		case 3:
			io.WriteString(conn, "4\n\x80\x04}")
		}
	}
	served(t, address)
}

// hostile are things that clients send instead of their parameters.
func hostile(t testing.TB) map[string][]byte {
	pickled := func(v any) []byte {
		data, err := pickle.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	return map[string][]byte{
		"nothing":             nil,
		"a command":           []byte("\x80\x04cos\nsystem\n(S'true'\ntR."),
		"a class":             []byte("\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R."),
		"no pickle":           []byte(strings.Repeat("GET / HTTP/1.1\r\n", 100)),
		"an endless text":     append([]byte("\x80\x04\x8d\x00\x00\x00\x00\x10\x00\x00\x00"), bytes.Repeat([]byte("x"), 2<<20)...),
		"deep lists":          append([]byte("\x80\x04"), bytes.Repeat([]byte("]"), 1<<20)...),
		"a list":              pickled(pickle.NewList("node_ip")),
		"nothing known":       pickled(pickle.NewDict("x", 1)),
		"other types":         pickled(pickle.NewDict("node_ip", 5, "device_ip", pickle.NewList(), "cmdargs", "text", "tty_mode", true, "win_size", "x", "env", 7, "src_path", 1, "path", 2, "node_mac", 3, "user", 4, "node_port", "80")),
		"keys that are no":    pickled(&pickle.Dict{}),
		"unknown devices":     pickled(pickle.NewDict("node_ip", "8.8.8.8", "device_ip", "8.8.8.8", "node_port", 53, "src_path", "/", "dst_dir", "/", "dst_name", "x")),
		"options":             pickled(pickle.NewDict("node_ip", "-oProxyCommand=x", "device_ip", "-f", "user", "-l", "cmdargs", pickle.Tuple{"-x"})),
		"names that lead out": pickled(pickle.NewDict("node_ip", "192.168.152.10", "src_path", "x", "dst_dir", "x", "dst_name", "../x")),
		"NUL":                 pickled(pickle.NewDict("node_ip", "192.168.152.10", "cmdargs", pickle.Tuple{"a\x00b"}, "src_path", "a\x00", "dst_dir", "\x00", "dst_name", "\x00", "user", "\x00", "device_ip", "192.168.152.10\x00")),
	}
}

// CN-02 and CN-08, and row 4 of the defects of nodes: whatever a stream is opened with ends that stream only.
func TestCN02CN08DefectN4EachStreamAlone(t *testing.T) {
	var mu sync.Mutex
	var panics []string
	p := start(t, func(c *Config) {
		c.SSH = remote.SSH{Program: "/bin/false", KeyScan: "/bin/false"}
		c.SQL = psql.Prompt{Services: "/bin/false", Program: []string{"/bin/false"}}
		c.Print = func(format string, args ...any) {
			if strings.HasPrefix(format, "internal error") {
				mu.Lock()
				panics = append(panics, fmt.Sprintf(format, args...))
				mu.Unlock()
			}
		}
	})
	p.populate(t)
	address := p.listen(t)
	for id := rpc.NewIncomingLogs; id <= rpc.TarForImageBuild+2; id++ {
		for _, bytes := range hostile(t) {
			s := dial(t, address, id)
			s.Write(bytes)
			s.Conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, s.R) // what was not read may reset the connection
			s.Close()
		}
		// A peer that is gone before it is served.
		dial(t, address, id).Close()
	}
	served(t, address)
	mu.Lock()
	defer mu.Unlock()
	if len(panics) > 0 {
		t.Errorf("%d panics: %s", len(panics), panics[0])
	}
}

// What is not provided is told in the form that the client of that stream reads.
func TestImageStreamsAreRefusedInWords(t *testing.T) {
	p := start(t, nil)
	address := p.listen(t)
	const words = "this is not available on this server yet"
	build, _ := pickle.Marshal(pickle.Tuple{"stderr", []byte(words + "\n")})
	status, _ := pickle.Marshal(pickle.Tuple{"retcode", 1})
	for id, want := range map[rpc.Request]string{
		rpc.DockerPrompt:     words + "\r\n",
		rpc.TarFromImage:     "", // an archive could not say it (CN-18)
		rpc.TarToImage:       words + "\r\n",
		rpc.TarForImageBuild: string(build) + string(status),
	} {
		s := dial(t, address, id)
		s.Send(pickle.NewDict("image_fullname", "alice/x:latest", "container_name", "x"))
		if id != rpc.TarFromImage {
			io.WriteString(s, strings.Repeat("tar", 1<<20)) // it is read, lest the words are lost
		}
		if got := answer(t, s); got != "READY\n"+want {
			t.Errorf("request %v is answered %q, want %q", id, got, want)
		}
	}
}

// CN-17: what a command gets of a client's parameters is checked.
func TestCN17Parameters(t *testing.T) {
	home, change := withNode(t)
	p := start(t, change)
	p.populate(t)
	address := p.listen(t)
	command := func(parameters ...any) string {
		s := dial(t, address, rpc.NodeCmd)
		s.Send(pickle.NewDict(append([]any{"node_ip", "192.168.152.10", "ssh_tty", false, "tty_mode", false}, parameters...)...))
		return strings.TrimPrefix(answer(t, s), "READY\n")
	}
	if got := command("cmdargs", pickle.Tuple{"pwd"}); got != home+"\n" {
		t.Errorf("got %q", got)
	}
	for _, words := range []any{"pwd", pickle.Tuple{5}, pickle.Tuple{"a\x00b"}, 7} {
		if got := command("cmdargs", words); got != "parameter \"cmdargs\" is not a sequence of words\r\n" {
			t.Errorf("%v: %q", words, got)
		}
	}
	env := pickle.NewDict("TERM", "vt100", "LD_PRELOAD", "/evil.so", "PATH", "/evil", "LC_ALL", "x")
	show := pickle.Tuple{`echo "$TERM,$LD_PRELOAD,$LC_ALL"; case $PATH in /evil) echo evil;; esac; stty size`}
	terminal := func(env any, size any) string {
		s := dial(t, address, rpc.NodeCmd)
		s.Send(pickle.NewDict("node_ip", "192.168.152.10", "cmdargs", show, "tty_mode", true, "env", env, "win_size", size))
		out, err := io.ReadAll(s.R)
		if err != nil {
			t.Error(err)
		}
		return string(out)
	}
	if got := terminal(env, pickle.Int16s{30, 90, 0, 0}); got != "READY\nvt100,,\r\n30 90\r\n" {
		t.Errorf("got %q", got)
	}
	for _, name := range []any{"../../etc/passwd", "a b", "", "-x", 5, nil, strings.Repeat("x", 1000)} {
		if got := terminal(pickle.NewDict("TERM", name), nil); got != "READY\nxterm,,\r\n24 80\r\n" {
			t.Errorf("TERM=%v: %q", name, got)
		}
	}
	// An address that somebody has written into the database.
	p.registry.Put(db.Device{MAC: "02:00:00:00:00:77", IP: "-oProxyCommand=x", Name: "evil", Type: registry.Node, Model: "pc-x86-64"})
	for id, key := range map[rpc.Request]string{rpc.NodeCmd: "node_ip", rpc.DevicePing: "device_ip", rpc.DeviceShell: "device_ip"} {
		s := dial(t, address, id)
		s.Send(pickle.NewDict(key, "-oProxyCommand=x"))
		if got := answer(t, s); !strings.HasSuffix(got, " has address \"-oProxyCommand=x\"\r\n") {
			t.Errorf("request %v: %q", id, got)
		}
	}
}

// CN-18: what is received of a node is an archive, or what there is of one.
func TestCN18ArchivesOnly(t *testing.T) {
	home, change := withNode(t)
	if err := os.WriteFile(filepath.Join(home, "folder", "sub", "f"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("folder/sub", filepath.Join(home, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("none", filepath.Join(home, "folder", "sub", "dangling")); err != nil {
		t.Fatal(err)
	}
	p := start(t, change)
	p.populate(t)
	address := p.listen(t)
	receive := func(src, name string) string {
		s := dial(t, address, rpc.TarFromNode)
		s.Send(pickle.NewDict("node_ip", "192.168.152.10", "src_path", src, "dst_dir", "x", "dst_name", name))
		if line, err := s.Line(); line != "READY" {
			t.Errorf("got %q, %v", line, err)
		}
		var names []string
		for r := tar.NewReader(s.R); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				return strings.Join(names, " ")
			}
			if err != nil {
				return fmt.Sprint(names, " ", err)
			}
			names = append(names, h.Name)
		}
	}
	for _, test := range []struct{ src, name, want string }{
		{"./file", "new", "new"},
		{home + "/file", "it's new", "it's new"},
		{"./link", "new", "new/ new/dangling new/f"},
		{"./folder/sub", ".", "./ dangling f"},
		{"./it's here", "new", "new/"},
		{"./none", "new", ""},
		{"./folder/sub/dangling", "new", ""},
		{"-x", "new", ""},
		{"./file", "..", ""},
		{"./file", "a/b", ""},
		{"./file", "", ""},
	} {
		got := receive(test.src, test.name)
		if test.name == "new" && strings.HasPrefix(got, "new/ new/f") {
			got = "new/ new/dangling new/f" // in whatever order
		}
		if test.name == "." && strings.HasPrefix(got, "./ f") {
			got = test.want
		}
		if got != test.want {
			t.Errorf("%q as %q: %q, want %q", test.src, test.name, got, test.want)
		}
	}
}

// Errors of a transfer to a node are told once the client has sent all.
// TestAbandonedTransfer: a client that leaves ends the command of the node, also one that
// says nothing, and one that goes on when nobody reads.
func TestAbandonedTransfer(t *testing.T) {
	for name, then := range map[string]string{"silent node": "exec sleep 1000", "node that goes on": "while :; do cat \"$0\"; done 2>/dev/null"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			program, pid := filepath.Join(dir, "ssh"), filepath.Join(dir, "pid")
			var begun bytes.Buffer
			tar.NewWriter(&begun).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: 1 << 30, Mode: 0o644})
			script := fmt.Sprintf("#!/bin/sh\ntrap '' PIPE\necho $$ >%s\ncat %s\n%s\n", pid, pid+".tar", then)
			if err := errors.Join(os.WriteFile(program, []byte(script), 0o700), os.WriteFile(pid+".tar", begun.Bytes(), 0o600)); err != nil {
				t.Fatal(err)
			}
			p := start(t, func(c *Config) { c.SSH = remote.SSH{Program: program} })
			p.populate(t)
			s := dial(t, p.listen(t), rpc.TarFromNode)
			s.Send(pickle.NewDict("node_ip", "192.168.152.10", "src_path", "x", "dst_dir", "x", "dst_name", "f"))
			if line, err := s.Line(); line != "READY" {
				t.Fatalf("got %q, %v", line, err)
			}
			if _, err := io.ReadFull(s.R, make([]byte, 512)); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(pid)
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
			process := filepath.Join("/proc", strings.TrimSpace(string(text)))
			dbtest.Wait(t, "the end of the command", func(context.Context) error {
				if _, err := os.Stat(process); err == nil {
					return errors.New("it is there")
				}
				return nil
			})
		})
	}
}

func TestTarToNode(t *testing.T) {
	home, change := withNode(t)
	p := start(t, change)
	p.populate(t)
	address := p.listen(t)
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	long := strings.Repeat("long", 30)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: long, Size: 4 << 20, Mode: 0o644, Format: tar.FormatPAX, ModTime: time.Unix(1700000000, 5)})
	w.Write(make([]byte, 4<<20))
	w.Close()
	send := func(data []byte, dir, name string) string {
		s := dial(t, address, rpc.TarToNode)
		s.Send(pickle.NewDict("node_ip", "192.168.152.10", "src_path", "x", "dst_dir", dir, "dst_name", name))
		s.Write(data)
		return strings.TrimPrefix(answer(t, s), "READY\n")
	}
	if got := send(archive.Bytes(), "./it's here", long); got != "" {
		t.Errorf("got %q", got)
	}
	if stat, err := os.Stat(filepath.Join(home, "it's here", long)); err != nil || stat.Size() != 4<<20 {
		t.Errorf("%v, %v", stat, err)
	}
	if got := send(archive.Bytes(), "./none", long); !strings.Contains(got, "./none") {
		t.Errorf("a missing folder gives %q", got)
	}
	if got := send(archive.Bytes(), ".", "../x"); !strings.Contains(got, "no paths") {
		t.Errorf("a name that leads out gives %q", got)
	}
	if got := send([]byte(strings.Repeat("no tar ", 1<<16)), ".", "x"); !strings.Contains(got, "cannot read archive") {
		t.Errorf("nonsense gives %q", got)
	}
	if got := send(archive.Bytes()[:1<<20], ".", "cut"); !strings.Contains(got, "cannot copy cut: unexpected EOF") {
		t.Errorf("a cut archive gives %q", got)
	}
}

// CN-41: in raw mode a command survives its client.
func TestCN41RawCommandsAreNotKilled(t *testing.T) {
	home, change := withNode(t)
	p := start(t, change)
	p.populate(t)
	address := p.listen(t)
	s := dial(t, address, rpc.NodeCmd)
	s.Send(pickle.NewDict("node_ip", "192.168.152.10", "cmdargs", pickle.Tuple{"echo started; cat >/dev/null; touch ended"}, "tty_mode", false))
	s.Line()
	if line, err := s.Line(); line != "started" {
		t.Fatalf("got %q, %v", line, err)
	}
	s.Close()
	eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(home, "ended"))
		return err == nil
	})
}

func TestCN41TerminalCommandsAreKilled(t *testing.T) {
	for what, leave := range map[string]func(s *client.Stream){
		"a client that leaves":      func(s *client.Stream) { s.Close() },
		"a client that half-closes": func(s *client.Stream) { s.Conn.(*net.TCPConn).CloseWrite() },
		"an event that is none":     func(s *client.Stream) { s.Send(pickle.NewDict("evt", "x")) },
		"an event of wrong type":    func(s *client.Stream) { s.Send(pickle.NewDict("evt", "input_data", "data", "text")) },
		"a size that is none":       func(s *client.Stream) { s.Send(pickle.NewDict("evt", "window_resize", "lines", -1, "columns", 1<<20)) },
		"bytes that are none":       func(s *client.Stream) { io.WriteString(s, "hello") },
		"input that nobody reads":   func(s *client.Stream) { flood(s); s.Close() },
		"output that the client lacks": func(s *client.Stream) {
			s.Send(pickle.NewDict("evt", "input_data", "data", []byte("flood\r")))
			s.Close()
		},
	} {
		t.Run(what, func(t *testing.T) {
			home, change := withNode(t)
			p := start(t, change)
			p.populate(t)
			s := dial(t, p.listen(t), rpc.NodeCmd)
			s.Send(pickle.NewDict("node_ip", "192.168.152.10", "tty_mode", true, "ssh_tty", true,
				"cmdargs", pickle.Tuple{"stty raw -echo; echo $$ >pid; echo started; exec sleep 1000"}))
			s.Line()
			if line, err := s.R.ReadString('\n'); !strings.HasPrefix(line, "started") {
				t.Fatalf("got %q, %v", line, err)
			}
			pid, err := os.ReadFile(filepath.Join(home, "pid"))
			if err != nil {
				t.Fatal(err)
			}
			leave(s)
			eventually(t, func() bool {
				_, err := os.Stat("/proc/" + strings.TrimSpace(string(pid)))
				return errors.Is(err, fs.ErrNotExist)
			})
		})
	}
}

// The end of a command is the end of its stream, whatever it has left behind in its
// terminal, and all that it has printed is shown.
func TestEndOfTerminalCommand(t *testing.T) {
	home, change := withNode(t)
	p := start(t, change)
	p.populate(t)
	s := dial(t, p.listen(t), rpc.NodeCmd)
	s.Send(pickle.NewDict("node_ip", "192.168.152.10", "tty_mode", true, "ssh_tty", true,
		"cmdargs", pickle.Tuple{"(trap '' HUP; exec sleep 1000) & echo $! >pid; head -c 100000 /dev/zero | tr '\\0' x; echo; echo bye"}))
	out, err := io.ReadAll(s.R)
	if err != nil || len(out) != len("READY\n")+100000+len("\r\nbye\r\n") || !strings.HasSuffix(string(out), "xxx\r\nbye\r\n") {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	text, err := os.ReadFile(filepath.Join(home, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("what was left behind is gone: %v", err)
	}
}

// Commands are processes: one address cannot start any number of them.
func TestCommandsAreBounded(t *testing.T) {
	_, change := withNode(t)
	p := start(t, change)
	p.populate(t)
	p.commands = quota.New(10, 2)
	command := func(peer, words string) *client.Stream {
		s := p.from(t, peer, rpc.NodeCmd)
		s.Send(pickle.NewDict("node_ip", "192.168.152.10", "cmdargs", pickle.Tuple{words}, "tty_mode", false))
		if line, err := s.Line(); line != "READY" {
			t.Errorf("got %q, %v", line, err)
		}
		return s
	}
	var held []*client.Stream
	for range 2 {
		s := command("127.0.0.1", "echo started; cat")
		s.Line()
		held = append(held, s)
	}
	if got := answer(t, command("127.0.0.1", "echo third")); got != "too many commands are running, try again later\r\n" {
		t.Errorf("a third one: %q", got)
	}
	if got := answer(t, command("127.0.0.2", "echo other")); got != "other\n" {
		t.Errorf("of another address: %q", got)
	}
	for _, s := range held {
		answer(t, s)
		s.Close()
	}
	eventually(t, func() bool { own, _ := p.commands.Held(netip.MustParseAddr("127.0.0.1")); return own == 0 })
	if got := answer(t, command("127.0.0.1", "echo again")); got != "again\n" {
		t.Errorf("later: %q", got)
	}
}

func TestDevicePing(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "ping"), []byte("#!/bin/sh\necho \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	p := start(t, nil)
	p.populate(t)
	for ip, want := range map[string]string{
		"192.168.152.12": "-c 10 -w 11 -- 192.168.152.12\n",
		"8.8.8.8":        "no device has address \"8.8.8.8\"\r\n",
	} {
		s := dial(t, p.listen(t), rpc.DevicePing)
		s.Send(pickle.NewDict("device_ip", ip, "tty_mode", false))
		if got := answer(t, s); got != "READY\n"+want {
			t.Errorf("%s: %q", ip, got)
		}
	}
}

// flood types more than a terminal holds.
func flood(s *client.Stream) {
	for range 16 {
		s.Send(pickle.NewDict("evt", "input_data", "data", bytes.Repeat([]byte("x"), 4096)))
	}
}

func eventually(t testing.TB, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
		time.Sleep(time.Millisecond)
	}
}

// A client that does not read holds its command, not the memory of the server.
func TestClientThatDoesNotRead(t *testing.T) {
	_, change := withNode(t)
	p := start(t, change)
	p.populate(t)
	address := p.listen(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, terminal := range []bool{false, true} {
		s := dial(t, address, rpc.NodeCmd)
		s.Send(pickle.NewDict("node_ip", "192.168.152.10", "tty_mode", terminal, "cmdargs", pickle.Tuple{"head -c 1000000000 /dev/zero"}))
		// Nothing is kept of what goes through, however much the command has.
		if _, err := io.CopyN(io.Discard, s.R, 16<<20); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if after.HeapAlloc > before.HeapAlloc+(8<<20) {
		t.Errorf("%d bytes are held", after.HeapAlloc-before.HeapAlloc)
	}
}

// mounted is a shelf whose images are folders.
type mounted struct {
	*shelf
	root string
}

func (m mounted) Root(string) string            { return m.root }
func (m mounted) BootDir(string, string) string { return filepath.Join(m.root, "boot/pc-x86-64") }

// Rows 3 of server and 5 of nodes: request 12 reads boot files only, and of the node that
// asks.
func TestDefectS3DefectN5BootFiles(t *testing.T) {
	top := t.TempDir()
	root := filepath.Join(top, "fs")
	for name, text := range map[string]string{"secret": "secret", "fs/boot/pc-x86-64/start.ipxe": "#!ipxe", "fs/vmlinuz": "linux"} {
		path := filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	boot := filepath.Join(root, "boot/pc-x86-64")
	for name, target := range map[string]string{"kernel": "/vmlinuz", "out": filepath.Join(top, "secret"), "up": "../../../secret"} {
		if err := os.Symlink(target, filepath.Join(boot, name)); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, func(c *Config) { c.Images = mounted{c.Images.(*shelf), root} })
	p.populate(t)
	const pc = "192.168.152.10"
	own := pickle.NewDict("node_mac", "02:00:00:00:00:10")
	for _, test := range []struct {
		peer string
		who  *pickle.Dict
		path any
		want string
	}{
		{pc, own, "/start.ipxe", "OK\n6\n#!ipxe"},
		{pc, own, "start.ipxe", "OK\n6\n#!ipxe"},
		{pc, own, "/kernel", "OK\n5\nlinux"},
		{pc, pickle.NewDict("node_mac", "02:00:00:00:00:10", "node_ip", "x"), "/start.ipxe", "OK\n6\n#!ipxe"},
		{pc, pickle.NewDict("node_ip", pc), "/start.ipxe", "OK\n6\n#!ipxe"},
		{"127.0.0.1", own, "/start.ipxe", "OK\n6\n#!ipxe"},
		{pc, own, "/none", "NO SUCH FILE\n"},
		{pc, own, "/../../../secret", "NO SUCH FILE\n"},
		{pc, own, "/../../vmlinuz", "NO SUCH FILE\n"},
		{pc, own, "/out", "NO SUCH FILE\n"},
		{pc, own, "/up", "NO SUCH FILE\n"},
		{pc, own, "/", "NO SUCH FILE\n"},
		{pc, own, "/a\x00b", "NO SUCH FILE\n"},
		{pc, own, 5, "NO SUCH FILE\n"},
		{"192.168.152.11", own, "/start.ipxe", "NO SUCH FILE\n"},
		{"192.168.152.99", own, "/start.ipxe", "NO SUCH FILE\n"},
		{pc, pickle.NewDict("node_mac", "02:00:00:00:00:99"), "/start.ipxe", "NO SUCH FILE\n"},
		{pc, pickle.NewDict(), "/start.ipxe", "NO MAC OR IP SPECIFIED\n"},
		{pc, pickle.NewDict("node_mac", 5), "/start.ipxe", "NO MAC OR IP SPECIFIED\n"},
	} {
		s := p.from(t, test.peer, rpc.FakeTFTPGet)
		parameters := pickle.NewDict("path", test.path)
		for _, e := range test.who.Entries() {
			parameters.Set(e.Key, e.Value)
		}
		s.Send(parameters)
		if got := answer(t, s); got != "READY\n"+test.want {
			t.Errorf("%s asks for %v of %s: %q, want %q", test.peer, test.path, show(test.who), got, test.want)
		}
	}
}

func TestVPNNodeImageIsRefused(t *testing.T) {
	p := start(t, nil)
	address := p.listen(t)
	for _, test := range []struct {
		parameters *pickle.Dict
		want       string
	}{
		{pickle.NewDict("model", "rpi-3-b-plus"), "Invalid request!"},
		{pickle.NewDict("model", "rpi-5-b", "entrypoint", "x"), "Only rpi-3-b-plus boards can be used as a WalT node."},
		{pickle.NewDict("model", "rpi-3-b-plus", "entrypoint", "$(id)"), "This server makes no images of VPN nodes."},
	} {
		s := dial(t, address, rpc.VPNNodeImage)
		s.Send(test.parameters)
		if got := answer(t, s); got != "READY\nERR "+test.want+"\n" {
			t.Errorf("%v: %q", show(test.parameters), got)
		}
	}
}

// from opens a stream as a peer of another address.
func (p *platform) from(t testing.TB, peer string, request rpc.Request) *client.Stream {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s := dial(t, ln.Addr().String(), request)
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	go p.serveStream(context.Background(), conn, netip.MustParseAddr(peer))
	return s
}

// FuzzStream: no opening of a stream makes the daemon fail, or leaves the stream open when
// the peer has gone.
func FuzzStream(f *testing.F) {
	for id := rpc.NewIncomingLogs; id <= rpc.TarForImageBuild; id++ {
		for _, bytes := range hostile(f) {
			if len(bytes) < 1<<16 {
				f.Add(append(fmt.Appendf(nil, "%d\n", id), bytes...))
			}
		}
	}
	f.Add([]byte("REQ_SQL_PROMPT\r\n"))
	var failed error
	var mu sync.Mutex
	p := start(f, func(c *Config) {
		c.SSH = remote.SSH{Program: "/bin/false", KeyScan: "/bin/false"}
		c.SQL = psql.Prompt{Services: "/bin/false", Program: []string{"/bin/false"}}
		c.Images = mounted{c.Images.(*shelf), f.TempDir()}
		c.Print = func(format string, args ...any) {
			if strings.HasPrefix(format, "internal error") {
				mu.Lock()
				failed = fmt.Errorf(format, args...)
				mu.Unlock()
			}
		}
	})
	p.populate(f)
	address := p.listen(f)
	f.Fuzz(func(t *testing.T, opening []byte) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write(opening)
		conn.(*net.TCPConn).CloseWrite()
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the stream is not ended")
		}
		mu.Lock()
		defer mu.Unlock()
		if failed != nil {
			t.Fatal(failed)
		}
	})
}
