// Package native runs the daemon without appliance: its processes on this machine, with
// the PostgreSQL of the lock, and the real walt client beside them. It needs no root and
// touches nothing of the machine: all is in namespaces of its own (see Run), where the
// paths, ports and addresses are those of the appliance.
package native

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/qemu/client"
	"github.com/waltos/waltos/services/daemon/daemontest"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
	wire "github.com/waltos/waltos/services/wire/client"
)

// Addresses of the daemon, and of the server in walt-net.
const (
	API       = "127.0.0.1:12345"
	Streams   = "127.0.0.1:12347"
	ServerIP  = "192.168.152.1"
	ServerMAC = "02:00:00:00:00:01"
	// DefaultImage is the only image that the platform ships.
	DefaultImage = "waltplatform/pc-x86-64-default:latest"
)

// site is the site file.
const site = `network "walt-net" { ip = "192.168.152.1/24" }
virtual_nodes { emulation = true }
`

// Daemon is the daemon of one platform.
type Daemon struct {
	*daemontest.Processes
	Postgres *dbtest.Postgres
	t        testing.TB
	folder   string // of users
}

// arguments returns those of a service.
func arguments(service string) []string {
	switch service {
	case "server-main":
		return []string{"-server-mac", ServerMAC, "-psql", supplies.Psql, "-sql-account", "", "-vnode-account", ""}
	case "server-hub":
		return []string{"-site", "/run/walt/site.hcl"}
	}
	return nil
}

// Start starts the daemon of a platform with the given devices, and waits until it
// serves. It ends with the test.
func Start(t testing.TB, devices ...db.Device) *Daemon {
	t.Helper()
	return StartSite(t, "", devices...)
}

// StartSite is Start with more in the site file.
func StartSite(t testing.TB, more string, devices ...db.Device) *Daemon {
	t.Helper()
	if refused != "" {
		t.Skipf("skipped: the daemon needs namespaces: %s", refused)
	}
	d := &Daemon{t: t, folder: t.TempDir(), Postgres: dbtest.Start(t)}
	for _, step := range []func() error{func() error { return d.furnish(more) }, storeImages} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	d.Processes = daemontest.New(t, API, supplies.Services, arguments)
	d.Up("server-db")
	database := db.Dial(db.Socket)
	defer database.Close()
	dbtest.Wait(t, "the database", func(ctx context.Context) error { return database.SaveImage(ctx, DefaultImage) })
	for _, device := range devices {
		if err := database.SaveDevice(t.Context(), device); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(d.endMachines)
	d.Up("vnodes", "server-blocking", "server-main", "server-hub", "httpd")
	d.Await()
	return d
}

// endMachines ends the machines of virtual nodes, which outlive their service.
func (d *Daemon) endMachines() {
	if out, err := exec.Command(supplies.Services, "vnodes", "-end").CombinedOutput(); err != nil {
		d.t.Errorf("cannot end the machines: %v\n%s", err, out)
	}
}

// written are the folders that a platform writes to: each has its own.
var written = []string{"/run/walt", "/var/lib/walt", "/var/lib/containers"}

// furnish makes the folders and files that the supervisor of an appliance would.
func (d *Daemon) furnish(more string) error {
	for _, dir := range written {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("cannot mount %s: %w", dir, err)
		}
		d.t.Cleanup(func() {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				d.t.Errorf("cannot unmount %s: %v", dir, err)
			}
		})
	}
	for _, dir := range []string{"/run/walt/daemon", "/var/lib/walt/services/httpd", "/var/lib/containers/storage"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile("/run/walt/site.hcl", []byte(site+more), 0o644); err != nil {
		return err
	}
	os.Remove("/run/postgresql")
	return os.Symlink(d.Postgres.Folder(), "/run/postgresql")
}

// callLimit bounds a call: none may hang.
const callLimit = 20 * time.Second

// Call makes one call of a user.
func (d *Daemon) Call(user, method string, args ...any) (any, error) {
	ctx, cancel := context.WithTimeout(d.t.Context(), callLimit)
	defer cancel()
	s, err := wire.Dial(ctx, API, wire.Options{Handler: (&wire.User{Name: user}).Serve})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Call(ctx, method, args...)
}

// Folder is the working folder of a user.
func (d *Daemon) Folder(user string) string {
	d.t.Helper()
	dir := filepath.Join(d.folder, "home-"+user)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		d.t.Fatal(err)
	}
	return dir
}

// User returns the real client of a user, whose home folder is empty but for the
// configuration.
func (d *Daemon) User(name string) client.Client {
	return client.Client{Program: supplies.Walt, Home: d.Folder(name), Server: "127.0.0.1", User: name}
}
