package trackexec_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/waltos/waltos/services/daemon/blocking"
	"github.com/waltos/waltos/services/daemon/core"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
	"github.com/waltos/waltos/services/daemon/hub"
	"github.com/waltos/waltos/services/daemon/trackexec/format"
	"github.com/waltos/waltos/services/daemon/trackexec/timeline"
	"github.com/waltos/waltos/services/wire/client"
)

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// TestDaemon traces a daemon at work, from its start to its end.
func TestDaemon(t *testing.T) {
	postgres := dbtest.Start(t)
	sockets, traces, site := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "walt.hcl")
	if err := os.WriteFile(site, []byte("network \"walt-net\" { ip = \"127.0.0.5/24\" }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	api, streams := freePort(t), freePort(t)
	var stop []func()
	end := func() {
		for _, f := range slices.Backward(stop) {
			f()
		}
		stop = nil
	}
	t.Cleanup(end)
	start := func(main func(context.Context, []string) error, args ...string) {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- main(ctx, append(args, "-socket-dir", sockets, "-trackexec", traces)) }()
		stop = append(stop, func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	start(db.Main, "-dsn", postgres.DSN, "-site", site)
	start(blocking.Main, "-cache", "")
	start(core.Main, "-site", site, "-listen-streams", streams, "-listen-netconsole", "127.0.0.1:0", "-server-mac", "02:00:00:00:00:05", "-images=false")
	start(hub.Main, "-listen", api)
	register := func(ctx context.Context) error {
		s, err := client.Dial(ctx, api, client.Options{API: "SSAPI"})
		if err != nil {
			return err
		}
		defer s.Close()
		_, err = s.Call(ctx, "register_device", "", "", "127.0.0.1", "02:00:00:00:00:10", "here")
		return err
	}
	dbtest.Wait(t, "the daemon", register)
	s, err := client.Dial(t.Context(), api, client.Options{API: "CSAPI", Handler: (&client.User{Name: "alice"}).Serve})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Call(t.Context(), "no_such_method"); err == nil {
		t.Error("a method that does not exist was served")
	}
	if err := client.SendLogs(t.Context(), streams, "app", "first", "second"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Call(t.Context(), "count_logs"); err != nil { // stores them
		t.Fatal(err)
	}
	s.Close()
	end()

	line, err := timeline.Open(filepath.Join(traces, "latest"), t.Errorf)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := line.Processes(), []string{"server-blocking", "server-db", "server-hub", "server-main"}; !slices.Equal(got, want) {
		t.Errorf("traces of %q, want %q", got, want)
	}
	byID, byName := map[string]timeline.Event{}, map[string]timeline.Event{}
	line.Each(func(e timeline.Event) {
		byID[fmt.Sprint(e.Process, e.ID)] = e
		byName[fmt.Sprint(e.Process, " ", e.Kind, " ", e.Name)] = e
	})
	const copying = "COPY logs (stream_id, timestamp, line) FROM STDIN (FORMAT binary)"
	for _, test := range []struct {
		event, parent string
		state         format.State
	}{
		{"server-hub request register_device", "", format.Done},
		{"server-main request register_device", "", format.Done},
		{"server-main task saveDevice", "server-main request register_device", format.Done},
		{"server-db request saveDevice", "", format.Done},
		{"server-hub request no_such_method", "", format.Failed},
		{"server-main request no_such_method", "", format.Failed},
		{"server-main stream REQ_NEW_INCOMING_LOGS", "", format.Done},
		{"server-main task insertLines", "server-main task store log lines", format.Done},
		{"server-db sql " + copying, "server-db request insertLines", format.Done},
	} {
		e, ok := byName[test.event]
		if !ok {
			t.Errorf("%s is not recorded", test.event)
			continue
		}
		p := byID[fmt.Sprint(e.Process, e.Parent)]
		if e.State != test.state || test.parent != "" && fmt.Sprint(p.Process, " ", p.Kind, " ", p.Name) != test.parent {
			t.Errorf("%s: %+v within %+v", test.event, e, p)
		}
	}
	statements := 0
	save := byName["server-db request saveDevice"]
	for _, e := range byID {
		if e.Process == "server-db" && e.Kind == format.SQL && e.Parent == save.ID {
			statements++
		}
	}
	if statements < 3 { // begin, one at least, commit
		t.Errorf("saveDevice had %d statements", statements)
	}
}
