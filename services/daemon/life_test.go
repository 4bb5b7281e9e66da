// Package daemon holds the processes of the daemon in its folders; here are the tests of
// all of them together.
package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/waltos/waltos/services/daemon/blocking"
	"github.com/waltos/waltos/services/daemon/core"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
	"github.com/waltos/waltos/services/daemon/hub"
	"github.com/waltos/waltos/services/notify/notifytest"
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
	units := map[string]*notifytest.Keeper{}
	socket := func(name string) *os.File {
		f, _ := listener(t, "unix", filepath.Join(dir, name+".sock"))
		return f
	}
	units["server-db"] = notifytest.Start(t, map[string]*os.File{"db": socket("db")}, "server-db", "-dsn", postgres.DSN)
	store := db.Dial(filepath.Join(dir, "db.sock"))
	defer store.Close()
	dbtest.Wait(t, "the database", func(ctx context.Context) error {
		return errors.Join(store.SaveImage(ctx, "alice/x:latest"), store.SaveDevice(ctx,
			db.Device{MAC: "02:00:00:00:00:10", IP: "127.0.0.1", Name: "here", Type: "node", Model: "pc-x86-64", Image: "alice/x:latest"}))
	})
	units["server-blocking"] = notifytest.Start(t, map[string]*os.File{"blocking": socket("blocking")}, "server-blocking")
	streamsFile, streams := listener(t, "tcp4", "127.0.0.1:0")
	units["server-main"] = notifytest.Start(t,
		map[string]*os.File{"main": socket("main"), "state": socket("state"), "streams": streamsFile},
		"server-main", "-socket-dir", dir, "-site", site, "-listen-netconsole", "127.0.0.1:0", "-server-mac", "02:00:00:00:00:05", "-images=false")
	apiFile, api := listener(t, "tcp4", "127.0.0.1:0")
	units["server-hub"] = notifytest.Start(t, map[string]*os.File{"api": apiFile}, "server-hub", "-socket-dir", dir)

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
		kept := units["server-main"].Kept()
		if slices.ContainsFunc(kept, func(name string) bool { return strings.HasPrefix(name, "log:") }) {
			return nil
		}
		return fmt.Errorf("it keeps %v", kept)
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
			u.Kill()
			if _, err := io.WriteString(node, "\n"); err != nil {
				t.Errorf("the node has lost its connection: %v", err)
			}
			send(t)
			u.Start()
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
		if kept := units["server-main"].Kept(); len(kept) != 3 {
			return fmt.Errorf("it keeps %v", kept)
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
