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
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/qemu/client"
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
	Postgres *dbtest.Postgres
	t        testing.TB
	folder   string // of what the processes print
	running  map[string]*process
}

type process struct {
	cmd   *exec.Cmd
	ended chan error
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
	d := &Daemon{t: t, folder: t.TempDir(), Postgres: dbtest.Start(t), running: map[string]*process{}}
	for _, step := range []func() error{func() error { return d.furnish(more) }, storeImages} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(d.report)
	d.Up("server-db")
	database := db.Dial(db.Socket)
	defer database.Close()
	dbtest.Wait(t, "the database", func(ctx context.Context) error { return database.SaveImage(ctx, DefaultImage) })
	for _, device := range devices {
		if err := database.SaveDevice(t.Context(), device); err != nil {
			t.Fatal(err)
		}
	}
	for _, service := range []string{"vnodes", "server-blocking", "server-main", "server-hub", "httpd"} {
		d.Up(service)
	}
	d.Await()
	return d
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

// Launch starts a command that ends with this program at the latest: the kernel sends a
// signal at the end of the thread that started it, which therefore does nothing else. How
// the command has ended comes from the channel.
func Launch(cmd *exec.Cmd) (ended chan error, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	ended = make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	return ended, <-started
}

// Up starts one of the daemon's processes.
func (d *Daemon) Up(service string) {
	d.t.Helper()
	printed, err := os.OpenFile(filepath.Join(d.folder, service), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		d.t.Fatal(err)
	}
	defer printed.Close()
	p := &process{cmd: exec.Command(supplies.Services, append([]string{service}, arguments(service)...)...)}
	p.cmd.Stdout, p.cmd.Stderr = printed, printed
	if p.ended, err = Launch(p.cmd); err != nil {
		d.t.Fatal(err)
	}
	d.running[service] = p
	d.t.Cleanup(func() {
		if d.running[service] == p {
			if err := d.end(service, syscall.SIGTERM); err != nil {
				d.t.Errorf("%s: %v", service, err)
			}
		}
	})
}

// PID returns the number of one of the processes.
func (d *Daemon) PID(service string) int { return d.running[service].cmd.Process.Pid }

// Kill ends one of the processes without any care.
func (d *Daemon) Kill(service string) { _ = d.end(service, syscall.SIGKILL) }

func (d *Daemon) end(service string, s syscall.Signal) error {
	p := d.running[service]
	delete(d.running, service)
	p.cmd.Process.Signal(s)
	return <-p.ended
}

// Await waits until a client is served, also what needs the database.
func (d *Daemon) Await() {
	d.t.Helper()
	dbtest.Wait(d.t, "the daemon", func(ctx context.Context) error {
		for service, p := range d.running {
			select {
			case err := <-p.ended:
				p.ended <- err
				d.t.Fatalf("%s has ended: %v", service, err)
			default:
			}
		}
		s, err := wire.Dial(ctx, API, wire.Options{})
		if err != nil {
			return err
		}
		defer s.Close()
		_, err = s.Call(ctx, "device_show")
		return err
	})
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

// report shows what the processes printed, when the test has failed.
func (d *Daemon) report() {
	if !d.t.Failed() {
		return
	}
	files, _ := filepath.Glob(filepath.Join(d.folder, "*"))
	for _, file := range files {
		const enough = 4096
		if text, err := os.ReadFile(file); err == nil && len(text) > 0 {
			d.t.Logf("%s printed:\n%s", filepath.Base(file), text[max(0, len(text)-enough):])
		}
	}
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
