// Package daemon holds the processes of the daemon in its folders; here are the tests of
// all of them together.
package daemon

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/daemon/blocking"
	"github.com/waltos/waltos/services/daemon/core"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
	"github.com/waltos/waltos/services/daemon/hub"
	"github.com/waltos/waltos/services/notify"
	"github.com/waltos/waltos/services/wire/client"
	"github.com/waltos/waltos/services/wire/pickle"
)

// services are the processes of the daemon. This program is each of them when its name is
// the first argument.
var services = map[string]func(ctx context.Context, args []string) error{
	"server-blocking": blocking.Main, "server-db": db.Main, "server-hub": hub.Main, "server-main": core.Main,
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && services[os.Args[1]] != nil {
		if err := services[os.Args[1]](context.Background(), os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// unit is what a supervisor does for one process: it keeps the sockets that it listens on
// and what it leaves, starts it again with them, and hears that it is ready.
type unit struct {
	t    *testing.T
	name string
	args []string

	socket *net.UnixConn // of notifications
	ready  chan bool
	cmd    *exec.Cmd
	mu     sync.Mutex
	files  map[string]*os.File

	printed bytes.Buffer // by the process that runs, or ran
}

// newUnit starts a process that listens on sockets, given by name.
func newUnit(t *testing.T, dir, name string, sockets map[string]*os.File, args ...string) *unit {
	t.Helper()
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	u := &unit{t: t, name: name, args: args, socket: socket, ready: make(chan bool, 1), files: sockets}
	go u.receive()
	t.Cleanup(func() { u.kill(); socket.Close() })
	u.start()
	return u
}

func (u *unit) receive() {
	text, rights := make([]byte, 4096), make([]byte, 4096)
	for {
		n, n2, _, _, err := u.socket.ReadMsgUnix(text, rights)
		if err != nil {
			return
		}
		var fds []int
		if messages, err := unix.ParseSocketControlMessage(rights[:n2]); err == nil && len(messages) > 0 {
			fds, _ = unix.ParseUnixRights(&messages[0])
		}
		message := string(text[:n])
		_, name, _ := strings.Cut(message, "FDNAME=")
		name = notify.UnescapeName(name)
		u.mu.Lock()
		switch {
		case message == "READY=1":
			u.ready <- true
		case strings.HasPrefix(message, "FDSTORE=1") && len(fds) == 1:
			u.files[name] = os.NewFile(uintptr(fds[0]), name)
		case strings.HasPrefix(message, "FDSTOREREMOVE=1") && u.files[name] != nil:
			u.files[name].Close()
			delete(u.files, name)
		}
		u.mu.Unlock()
	}
}

// start starts the process and waits until it is ready.
func (u *unit) start() {
	u.t.Helper()
	program, err := os.Executable()
	if err != nil {
		u.t.Fatal(err)
	}
	// The process must find its own number in the environment.
	u.cmd = exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh", program, u.name}, u.args...)...)
	u.cmd.Stderr = &u.printed
	var names []string
	u.mu.Lock()
	for name, f := range u.files {
		names = append(names, notify.EscapeName(name))
		u.cmd.ExtraFiles = append(u.cmd.ExtraFiles, f)
	}
	u.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+u.socket.LocalAddr().String(),
		fmt.Sprint("LISTEN_FDS=", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	err = u.cmd.Start() // with mu held: the descriptors must not be closed meanwhile
	u.mu.Unlock()
	if err != nil {
		u.t.Fatal(err)
	}
	select {
	case <-u.ready:
	case <-u.t.Context().Done():
	}
}

func (u *unit) kill() {
	if u.cmd == nil {
		return
	}
	u.cmd.Process.Kill()
	u.cmd.Wait()
	u.cmd = nil
	if u.t.Failed() {
		text := u.printed.Bytes()
		u.t.Logf("%s printed:\n%s", u.name, text[max(0, len(text)-2048):])
	}
	u.printed.Reset()
}

func listener(t *testing.T, network, address string) (*os.File, string) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	if local, ok := ln.(*net.UnixListener); ok {
		local.SetUnlinkOnClose(false)
	}
	return f, ln.Addr().String()
}

// TestKillCutsNothing kills each process of the daemon under load, with the signal that
// nothing survives, and starts it again as the supervisor does (design §6, "Two planes"):
// the node stays booted, its log stream goes on, no line is lost, and clients are told
// at once what became of their calls.
func TestKillCutsNothing(t *testing.T) {
	postgres := dbtest.Start(t)
	dir, err := os.MkdirTemp("", "walt-daemon") // not in t.TempDir, whose path may be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	site := filepath.Join(dir, "walt.hcl")
	if err := os.WriteFile(site, []byte("network \"walt-net\" { ip = \"127.0.0.5/24\" }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	units := map[string]*unit{}
	socket := func(name string) *os.File {
		f, _ := listener(t, "unix", filepath.Join(dir, name+".sock"))
		return f
	}
	units["server-db"] = newUnit(t, dir, "server-db", map[string]*os.File{"db": socket("db")}, "-dsn", postgres.DSN)
	store := db.Dial(filepath.Join(dir, "db.sock"))
	defer store.Close()
	dbtest.Wait(t, "the database", func(ctx context.Context) error {
		return errors.Join(store.SaveImage(ctx, "alice/x:latest"), store.SaveDevice(ctx,
			db.Device{MAC: "02:00:00:00:00:10", IP: "127.0.0.1", Name: "here", Type: "node", Model: "pc-x86-64", Image: "alice/x:latest"}))
	})
	units["server-blocking"] = newUnit(t, dir, "server-blocking", map[string]*os.File{"blocking": socket("blocking")})
	streamsFile, streams := listener(t, "tcp4", "127.0.0.1:0")
	units["server-main"] = newUnit(t, dir, "server-main",
		map[string]*os.File{"main": socket("main"), "state": socket("state"), "streams": streamsFile},
		"-socket-dir", dir, "-site", site, "-listen-netconsole", "127.0.0.1:0", "-server-mac", "02:00:00:00:00:05", "-images=false")
	apiFile, api := listener(t, "tcp4", "127.0.0.1:0")
	units["server-hub"] = newUnit(t, dir, "server-hub", map[string]*os.File{"api": apiFile}, "-socket-dir", dir)

	// call waits until the whole chain answers again.
	call := func(method string, kwargs *pickle.Dict, args ...any) (value any) {
		t.Helper()
		dbtest.Wait(t, method, func(ctx context.Context) error {
			s, err := client.Dial(ctx, api, client.Options{})
			if err != nil {
				return err
			}
			defer s.Close()
			value, err = s.CallKeywords(ctx, method, args, kwargs)
			return err
		})
		return value
	}
	count := func(stream, lines string) any {
		return call("count_logs", pickle.NewDict("streams_regexp", stream, "logline_regexp", lines))
	}

	node, err := net.Dial("tcp", streams)
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	io.WriteString(node, "14\n")
	if line, err := bufio.NewReader(node).ReadString('\n'); line != "OK\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	io.WriteString(node, "booted\n")
	dbtest.Wait(t, "the boot", func(context.Context) error {
		if n := count("platform.nodes", "node here is booted"); n != int64(1) {
			return fmt.Errorf("%v boots are logged", n)
		}
		return nil
	})
	logs, err := net.Dial("tcp", streams)
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	io.WriteString(logs, "0\nmeasures\nNO_TIMESTAMPS\n")
	dbtest.Wait(t, "the supervisor to keep the log stream", func(context.Context) error {
		u := units["server-main"]
		u.mu.Lock()
		defer u.mu.Unlock()
		for name := range u.files {
			if strings.HasPrefix(name, "log:") {
				return nil
			}
		}
		return fmt.Errorf("it keeps %v", u.files)
	})
	sent := 0
	send := func(t *testing.T) {
		t.Helper()
		var text strings.Builder
		for range 1000 {
			fmt.Fprintf(&text, "line %d\n", sent)
			sent++
		}
		if _, err := io.WriteString(logs, text.String()); err != nil {
			t.Fatalf("the log stream is cut: %v", err)
		}
	}
	stored := func(t *testing.T) {
		t.Helper()
		dbtest.Wait(t, "log lines", func(context.Context) error {
			if n := count("^measures$", ""); n != int64(sent) {
				return fmt.Errorf("%v of %d lines are stored", n, sent)
			}
			return nil
		})
	}

	for _, name := range []string{"server-hub", "server-main", "server-db", "server-blocking"} {
		t.Run(name, func(t *testing.T) {
			u := units[name]
			send(t)
			stored(t) // lines of the last two seconds may be lost by a kill
			asleep, err := client.Dial(t.Context(), api, client.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer asleep.Close()
			// Clients that call all the time, each with a connection that it makes again.
			load, stop := context.WithCancel(t.Context())
			defer stop()
			var clients errgroup.Group
			for range 4 {
				clients.Go(func() error { return callOn(load, api) })
			}
			call("get_time", nil)
			u.kill()
			if _, err := io.WriteString(node, "\n"); err != nil {
				t.Errorf("the node has lost its connection: %v", err)
			}
			send(t)
			u.start()
			send(t)
			if name != "server-hub" { // which holds the connections of clients
				dbtest.Wait(t, "a session that was there before", func(ctx context.Context) error {
					_, err := asleep.Call(ctx, "get_time")
					return err
				})
			}
			stored(t)
			if shown := call("show_nodes", nil, "alice", true).(string); !strings.Contains(shown, "yes") {
				t.Errorf("the node is not booted any more:\n%s", shown)
			}
			stop()
			if err := clients.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	if booted, down := count("platform.nodes", "here is booted"), count("platform.nodes", "here is down"); booted != int64(1) || down != int64(0) {
		t.Errorf("logged %v boots and %v ends", booted, down)
	}
	logs.Close()
	node.Close()
	dbtest.Wait(t, "the supervisor to keep sockets only", func(context.Context) error {
		u := units["server-main"]
		u.mu.Lock()
		defer u.mu.Unlock()
		if len(u.files) != 3 {
			return fmt.Errorf("it keeps %v", u.files)
		}
		return nil
	})
}

// callOn calls until ctx ends. That a call fails is no error, but its session must go on
// unless its connection ended.
func callOn(ctx context.Context, api string) error {
	for ctx.Err() == nil {
		s, err := client.Dial(ctx, api, client.Options{})
		if err != nil {
			continue // server-hub is not there
		}
		for err == nil {
			_, err = s.Call(ctx, "show_nodes", "alice", true)
			var exception *client.Exception
			if errors.As(err, &exception) {
				if !strings.Contains(exception.Text, "restarted") && !strings.Contains(exception.Text, "database") {
					return fmt.Errorf("a client is told %q", exception.Text)
				}
				err = nil
			}
		}
		s.Close()
	}
	return nil
}
