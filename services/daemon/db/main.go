package db

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/daemon/trackexec"
	"github.com/waltos/waltos/services/internal/selfcheck"
	"github.com/waltos/waltos/services/notify"
)

// DefaultDSN reaches the appliance's own PostgreSQL, whose peer map lets user
// walt-db act as role root.
const DefaultDSN = "host=/run/postgresql dbname=walt user=root"

const (
	// connectTimeout bounds the search for one server of a cluster.
	connectTimeout = 5 * time.Second

	// callTimeout bounds calls that read or change a few rows. It is reached only when
	// somebody at a SQL prompt holds locks, or the server of an external database has
	// gone without a word.
	callTimeout = 30 * time.Second
)

// limitUnanswered has the kernel give up a connection over TCP whose other end does not
// acknowledge what it is sent.
func limitUnanswered(network, _ string, c syscall.RawConn) (err error) {
	if strings.HasPrefix(network, "tcp") {
		_ = c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(callTimeout.Milliseconds()))
		})
	}
	return err
}

// Main is the process server-db.
func Main(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("server-db", flag.ContinueOnError)
	dsn := flags.String("dsn", "", "database, as a libpq connection string or URL (default: that of the site file, else the appliance's own)")
	site := flags.String("site", "/run/walt/site.hcl", "site file")
	disk := flags.String("disk", "/var/lib/postgresql", "folder on the disk of the appliance's own database, which log lines must not fill")
	dir := flags.String("socket-dir", filepath.Dir(Socket), "folder of the socket, if the supervisor passes none")
	tracing := flags.String("trackexec", trackexec.Root, trackexec.Usage)
	if err := flags.Parse(args); err != nil {
		return err
	}
	o, err := siteOptions(*site)
	if err != nil {
		return err
	}
	if *dsn != "" {
		o.dsn = *dsn
	}
	o.disk = *disk
	ln, err := notify.UnixListener("db", *dir)
	if err != nil {
		return err
	}
	defer ln.Close()
	trace := trackexec.OpenFlag(*tracing, "server-db")
	defer trace.Close()
	return serve(ctx, ln, o, trace)
}

// siteOptions returns what a site file says, or the defaults if there is none.
func siteOptions(path string) (options, error) {
	o := options{dsn: DefaultDSN, zone: "UTC", now: time.Now}
	site, err := hcl.LoadSite(path)
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil
	}
	if err != nil {
		return o, err
	}
	url, err := site.Database.SecretURL()
	if err != nil {
		return o, fmt.Errorf("cannot find the database: %w", err)
	}
	if url != "" {
		o.dsn = url
	}
	o.zone = site.Time.Zone
	o.retention = retention{site.Logs.Age(), site.Logs.Size()}
	return o, nil
}

// serve answers calls until ctx ends, from the start: while the database is away
// they get an error that says so.
func serve(ctx context.Context, ln net.Listener, o options, trace *trackexec.Recorder) error {
	config, err := pgxpool.ParseConfig(o.dsn)
	if err != nil {
		return fmt.Errorf("cannot use the database: %w", err)
	}
	config.MaxConns = maxConnections
	config.MaxConnIdleTime = time.Minute
	config.ConnConfig.ConnectTimeout = connectTimeout
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}, Control: limitUnanswered}
	config.ConnConfig.DialFunc = dialer.DialContext
	config.ConnConfig.RuntimeParams["application_name"] = "walt-server-db"
	config.ConnConfig.RuntimeParams["client_encoding"] = "UTF8"
	config.ConnConfig.RuntimeParams["timezone"] = "UTC"
	if trace != nil {
		config.ConnConfig.Tracer = tracer{trace}
	}
	s, err := newStore(config, o)
	if err != nil {
		return fmt.Errorf("cannot use the database: %w", err)
	}
	defer s.pool.Close()
	defer s.closeHistories()
	prepared := make(chan struct{})
	defer func() { <-prepared }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(prepared)
		s.prepare(trace.Context(ctx), func(status string, err error) {
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			// A supervisor that cannot be told is no reason to stop.
			_ = notify.Status(status)
		})
		s.tend(ctx)
	}()
	if err := notify.Ready(); err != nil {
		return err
	}
	own := selfcheck.New(ln)
	go notify.KeepAlive(ctx, own.Answers) // also while the database is away
	return connector.Listen(ctx, own, s.measured(trace.Handler(trackexec.Request, s.handle)))
}
