package core

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/waltos/waltos/services/confine"
	"github.com/waltos/waltos/services/daemon/blocking"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
	"github.com/waltos/waltos/services/daemon/hub"
	"github.com/waltos/waltos/services/daemon/session"
	"github.com/waltos/waltos/services/metrics"
	"github.com/waltos/waltos/services/notify/notifytest"
	"github.com/waltos/waltos/services/wire/pickle"
)

// services are what this program is, when the name of one is its first argument.
var services = map[string]func(ctx context.Context, args []string) error{
	confine.Role: confine.Main, "server-blocking": blocking.Main, "server-db": db.Main, "server-hub": hub.Main, "server-main": Main,
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && services[os.Args[1]] != nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		err := services[os.Args[1]](ctx, os.Args[2:])
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestKillRebootsNoNode: a node stays booted, and connected, while server-main is killed
// and started again (design §6).
func TestKillRebootsNoNode(t *testing.T) {
	store, postgres := dbtest.Client(t)
	if err := errors.Join(
		store.SaveImage(t.Context(), "alice/x:latest"),
		store.SaveDevice(t.Context(), db.Device{MAC: "02:00:00:00:00:10", IP: "127.0.0.1", Name: "here", Type: "node", Model: "pc-x86-64", Image: "alice/x:latest"}),
	); err != nil {
		t.Fatal(err)
	}
	sockets := postgres.Serve()
	site := filepath.Join(t.TempDir(), "walt.hcl")
	if err := os.WriteFile(site, []byte("network \"walt-net\" { ip = \"127.0.0.5/24\" }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	streams, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	k := notifytest.Start(t, map[string]*os.File{"streams": streams}, "server-main", "-socket-dir", sockets, "-site", site, "-listen-netconsole", "127.0.0.1:0", "-server-mac", "02:00:00:00:00:05", "-images=false")
	link := session.Dial(filepath.Join(sockets, "main.sock"), nil, metrics.New("test"))
	defer link.Close()
	call := func(method string, args pickle.Tuple, kwargs *pickle.Dict) (value any) {
		dbtest.Wait(t, "server-main", func(ctx context.Context) error {
			message, err := link.Call(ctx, &session.Call{Session: 1, API: "CSAPI", ID: 1, Method: method, Args: args, Kwargs: kwargs})
			if err != nil {
				return err
			}
			answer, err := pickle.Unmarshal(message, pickle.Limits{})
			if err == nil {
				value = answer.(pickle.Tuple)[1]
			}
			return err
		})
		return value
	}
	booted := func() any {
		value, _ := call("get_device_info", pickle.Tuple{"here"}, nil).(*pickle.Dict).Get("booted")
		return value
	}
	until := func(want bool) {
		t.Helper()
		dbtest.Wait(t, "the node", func(context.Context) error {
			if booted() != want {
				return fmt.Errorf("booted is not %v", want)
			}
			return nil
		})
	}
	node, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	io.WriteString(node, "REQ_NOTIFY_BOOTUP_STATUS\n")
	if line, err := bufio.NewReader(node).ReadString('\n'); line != "OK\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	io.WriteString(node, "\n")
	until(true)
	count := func(pattern string) any {
		return call("count_logs", nil, pickle.NewDict("streams_regexp", "platform.nodes", "logline_regexp", pattern))
	}
	count("") // lines just received may be lost by a kill; counting stores them
	for range 2 {
		k.Kill()
		if _, err := io.WriteString(node, "\n"); err != nil {
			t.Errorf("the node has lost its connection: %v", err)
		}
		k.Start()
		if booted() != true {
			t.Error("the node is not booted after a restart")
		}
	}
	if booted, down := count("is booted"), count("is down"); booted != int64(1) || down != int64(0) {
		t.Errorf("logged %v boots and %v ends", booted, down)
	}
	node.Close()
	until(false)
	dbtest.Wait(t, "the line of the end", func(context.Context) error {
		if down := count("node here is down \\(cause: unknown, note: server-detected disconnection\\)"); down != int64(1) {
			return fmt.Errorf("logged %v ends", down)
		}
		return nil
	})
	if kept := k.Kept(); len(kept) != 1 {
		t.Errorf("still kept: %v", kept)
	}
}
