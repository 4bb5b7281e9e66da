package daemontest

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
)

// Image is the image of nodes that every Daemon knows. It is not there: a Daemon keeps no
// images.
const Image = "waltplatform/pc-x86-64-default:latest"

// Config says how a daemon runs.
type Config struct {
	Program   string              // see New
	Arguments map[string][]string // of services, beside those that every Daemon gives
	Site      string              // blocks of the site file, beside that of walt-net
	// Devices are there before the daemon: all of 127/8 is walt-net, so that connections
	// of the test can come from them.
	Devices []db.Device
}

// Daemon is the four processes of a daemon, on the loopback.
type Daemon struct {
	*Processes
	Postgres *dbtest.Postgres
	Streams  string // address
	Sockets  string // folder
}

// Start starts a daemon, and waits until it serves what needs the database.
func Start(t testing.TB, c Config) *Daemon {
	t.Helper()
	// Not in t.TempDir, whose path may be longer than a socket's name can be.
	sockets, err := os.MkdirTemp("", "walt-daemon")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	d := &Daemon{Postgres: dbtest.Start(t), Streams: FreePort(t), Sockets: sockets}
	site, api := filepath.Join(sockets, "walt.hcl"), FreePort(t)
	if err := os.WriteFile(site, []byte("network \"walt-net\" { ip = \"127.0.0.5/8\" }\n"+c.Site), 0o600); err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{
		"server-db": {"-dsn", d.Postgres.DSN, "-site", site},
		"server-main": {"-site", site, "-listen-streams", d.Streams, "-listen-netconsole", "127.0.0.1:0",
			"-server-mac", "02:00:00:00:00:05", "-images=false"},
		"server-hub":      {"-listen", api},
		"server-blocking": {"-cache", ""},
	}
	d.Processes = New(t, api, c.Program, func(service string) []string {
		return append(append(all[service], "-socket-dir", sockets), c.Arguments[service]...)
	})
	d.Up("server-blocking", "server-db")
	database := db.Dial(filepath.Join(sockets, filepath.Base(db.Socket)))
	defer database.Close()
	dbtest.Wait(t, "the database", func(ctx context.Context) error { return database.SaveImage(ctx, Image) })
	for _, device := range c.Devices {
		if err := database.SaveDevice(t.Context(), device); err != nil {
			t.Fatal(err)
		}
	}
	d.Up("server-main", "server-hub")
	d.Await()
	return d
}
