// Package dbtest gives tests a real PostgreSQL: a cluster of their own in a temporary
// folder, served on a unix socket by an ordinary process, and ended with the test.
package dbtest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/inputs"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/image/toolbox"
	"github.com/waltos/waltos/services/daemon/db"
)

// nobody runs PostgreSQL in place of root, which it refuses.
const nobody = 65534

// Postgres is a PostgreSQL of one test.
type Postgres struct {
	DSN  string // of database walt as role root, neither of which exists at first
	t    testing.TB
	dir  string
	bin  string
	port string // on 127.0.0.1, of an external server; else empty
	cmd  *exec.Cmd
	out  *output
	done chan struct{} // closed when the process has ended
}

// output is what PostgreSQL prints, for the message of a failure.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// box holds the programs of the appliance, from the lock.
var box = sync.OnceValues(func() (*toolbox.Toolbox, error) {
	description, err := findUp(filepath.Join("image", "appliance.hcl"))
	if err != nil {
		return nil, err
	}
	in, err := inputs.Open(inputs.Options{Appliance: description, Override: true, Progress: fetch.NewProgress(os.Stderr)})
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	if err := in.Ensure(ctx, lock.Root); err != nil {
		return nil, err
	}
	return in.Toolbox(ctx, lock.Root)
})

// programs returns the folder of PostgreSQL's programs: that of WALT_POSTGRES_BIN, or
// that of the appliance, from the lock.
var programs = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("WALT_POSTGRES_BIN"); dir != "" {
		return dir, nil
	}
	b, err := box()
	if err != nil {
		return "", err
	}
	return b.Wrappers(context.Background(), "usr/lib/postgresql/17/bin")
})

// PsqlCommand returns the command that starts psql without any script: itself, or the
// loader that starts it.
func PsqlCommand(t testing.TB) []string {
	t.Helper()
	if dir := os.Getenv("WALT_POSTGRES_BIN"); dir != "" {
		return []string{filepath.Join(dir, "psql")}
	}
	b, err := box()
	if err != nil {
		t.Fatalf("cannot get psql: %v", err)
	}
	cmd := b.Command(context.Background(), "usr/lib/postgresql/17/bin/psql")
	if cmd.Err != nil {
		t.Fatalf("cannot get psql: %v", cmd.Err)
	}
	return append([]string{cmd.Path}, cmd.Args[1:]...)
}

// findUp finds a file of the repository from a folder in it: tests run in the folder
// of their package.
func findUp(name string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("cannot find %s above the folder of the test", name)
		}
		dir = filepath.Dir(dir)
	}
}

// disguise has a program of root run as another user: in a user namespace where root
// is someone else, and so still reads all its files; or, if the machine allows none,
// as nobody.
var disguise = sync.OnceValue(func() *syscall.SysProcAttr {
	if os.Getuid() != 0 {
		return nil
	}
	mapping := []syscall.SysProcIDMap{{ContainerID: nobody, HostID: 0, Size: 1}}
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: mapping, GidMappings: mapping}
	try := exec.Command("/bin/sh", "-c", ":")
	try.SysProcAttr = attr
	if try.Run() == nil {
		return attr
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
})

// Start makes a cluster and starts it. A test without PostgreSQL fails: it has
// nothing to say about a database.
func Start(t testing.TB) *Postgres {
	t.Helper()
	p := newPostgres(t)
	initdb := p.Command("initdb", "--pgdata="+p.data(), "--username=postgres", "--auth=trust",
		"--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("cannot make a cluster: %v\n%s", err, out)
	}
	p.Up()
	return p
}

// newPostgres returns one that has no cluster yet.
func newPostgres(t testing.TB) *Postgres {
	t.Helper()
	bin, err := programs()
	if err != nil {
		t.Fatalf("cannot get PostgreSQL: %v", err)
	}
	// Not t.TempDir, whose parents another user cannot enter, and whose path may be
	// longer than a socket's name can be.
	dir, err := os.MkdirTemp("", "walt-pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if attr := disguise(); attr != nil && attr.Credential != nil {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	p := &Postgres{DSN: "host=" + dir + " dbname=walt user=root", t: t, dir: dir, bin: bin, cmd: &exec.Cmd{}}
	t.Cleanup(p.Kill)
	return p
}

// StartExternal starts a PostgreSQL as a site may have one: reached by TCP, with a
// database "platform" of role "owner", who has a password and may make roles.
func StartExternal(t testing.TB, password string) *Postgres {
	t.Helper()
	p := Start(t)
	conn := p.Connect("postgres")
	for _, statement := range []string{`CREATE ROLE owner LOGIN CREATEROLE PASSWORD '` + password + `'`, `CREATE DATABASE platform OWNER owner`} {
		if _, err := conn.Exec(context.Background(), statement); err != nil {
			t.Fatal(err)
		}
	}
	hba := "local all all trust\nlocal replication all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
	if err := os.WriteFile(filepath.Join(p.data(), "pg_hba.conf"), []byte(hba), 0o644); err != nil {
		t.Fatal(err)
	}
	p.Down()
	p.listen()
	p.Up()
	return p
}

// listen chooses a port.
func (p *Postgres) listen() {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	defer ln.Close()
	_, p.port, _ = net.SplitHostPort(ln.Addr().String())
}

// Standby starts a second server that follows this one, an external one.
func (p *Postgres) Standby() *Postgres {
	p.t.Helper()
	s := newPostgres(p.t)
	backup := s.Command("pg_basebackup", "-D", s.data(), "-d", p.admin("postgres"), "-c", "fast", "-R", "--no-sync")
	if out, err := backup.CombinedOutput(); err != nil {
		p.t.Fatalf("cannot copy a cluster: %v\n%s", err, out)
	}
	s.listen()
	s.Up()
	return s
}

// Address is the address of an external server.
func (p *Postgres) Address() string { return "127.0.0.1:" + p.port }

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

// Command is a program of PostgreSQL, to be run as its owner.
func (p *Postgres) Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir = p.dir
	cmd.Env = []string{"LC_ALL=C.UTF-8", "PATH=/usr/bin:/bin", "TZ=" + os.Getenv("TZ")}
	cmd.SysProcAttr = disguise()
	return cmd
}

// Folder is that of its socket.
func (p *Postgres) Folder() string { return p.dir }

// Up starts the server and waits until it answers.
func (p *Postgres) Up() {
	p.t.Helper()
	p.out = &output{}
	address := "listen_addresses="
	if p.port != "" {
		address += "127.0.0.1"
	}
	p.cmd = p.Command("postgres", "-D", p.data(), "-k", p.dir, "-p", cmp.Or(p.port, "5432"), "-c", address, "-c", "fsync=off",
		"-c", "shared_buffers=32MB", "-c", "max_wal_size=256MB")
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	// If the test binary dies, so does PostgreSQL: the kernel sends this signal at the
	// end of the thread that started it, which therefore does nothing else.
	attr := syscall.SysProcAttr{}
	if d := disguise(); d != nil {
		attr = *d
	}
	attr.Pdeathsig = syscall.SIGQUIT
	p.cmd.SysProcAttr = &attr
	p.done = make(chan struct{})
	started := make(chan error)
	go func(cmd *exec.Cmd, done chan struct{}) {
		runtime.LockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}(p.cmd, p.done)
	if err := <-started; err != nil {
		p.t.Fatalf("cannot start PostgreSQL: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, p.admin("postgres"))
		if err == nil {
			conn.Close(ctx)
			return
		}
		select {
		case <-p.done:
			p.t.Fatalf("PostgreSQL has ended:\n%s", p.out)
		case <-ctx.Done():
			p.t.Fatalf("PostgreSQL does not answer: %v\n%s", err, p.out)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Down stops the server as a restart does: sessions are cut.
func (p *Postgres) Down() { p.end(syscall.SIGINT) }

// Kill ends the server without any care, as a crash does.
func (p *Postgres) Kill() { p.end(syscall.SIGQUIT) }

func (p *Postgres) end(sig os.Signal) {
	if p.cmd.Process == nil {
		return
	}
	p.cmd.Process.Signal(sig)
	<-p.done
}

func (p *Postgres) admin(database string) string {
	return fmt.Sprintf("host=%s port=%s dbname=%s user=postgres", p.dir, cmp.Or(p.port, "5432"), database)
}

// Psql returns what psql prints of a command.
func (p *Postgres) Psql(command string) string {
	p.t.Helper()
	out, err := p.Command("psql", "-X", p.DSN, "-c", command).CombinedOutput()
	if err != nil {
		p.t.Fatalf("psql: %v\n%s", err, out)
	}
	return string(out)
}

// Connect opens a session of role postgres, to look at what was done.
func (p *Postgres) Connect(database string) *pgx.Conn {
	p.t.Helper()
	conn, err := pgx.Connect(context.Background(), p.admin(database))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// Serve runs server-db on this PostgreSQL until the end of the test, and returns the
// folder of its socket.
func (p *Postgres) Serve() string {
	p.t.Helper()
	return Serve(p.t, "-dsn", p.DSN)
}

// Serve runs server-db with some arguments until the end of the test, and returns the
// folder of its socket.
func Serve(t testing.TB, args ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "walt-db")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- db.Main(ctx, append(args, "-socket-dir", dir)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("server-db: %v", err)
		}
		os.RemoveAll(dir)
	})
	return dir
}

// Client starts PostgreSQL and server-db, and returns a client of it once the schema
// is in place.
func Client(t testing.TB) (*db.Client, *Postgres) {
	t.Helper()
	p := Start(t)
	c := db.Dial(filepath.Join(p.Serve(), filepath.Base(db.Socket)))
	t.Cleanup(c.Close)
	Wait(t, "the database", func(ctx context.Context) error { return c.Ping(ctx) })
	return c, p
}

// Wait calls f until it succeeds; it fails the test after a minute.
func Wait(t testing.TB, what string, f func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v", what, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
