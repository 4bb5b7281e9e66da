package http

import (
	"context"
	"fmt"
	"io/fs"
	"log"
	"net"
	nethttp "net/http"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/internal/quota"
	"github.com/waltos/waltos/services/metrics"
	"github.com/waltos/waltos/services/state"
)

// Bounds of one server. A node may take its time to read a kernel, but a client must
// say quickly what it wants, and must go on reading what it is sent.
const (
	maxConnections = 2048
	maxPerAddress  = 256
	maxHeader      = 64 << 10
	headerTimeout  = 15 * time.Second
	idleTimeout    = 2 * time.Minute
	writeTimeout   = time.Hour
	stallTimeout   = 2 * time.Minute // without a byte taken by the client
	callTimeout    = 30 * time.Second
)

// Config describes a server.
type Config struct {
	Tree interface { // boot files; *bootfile.Tree
		Open(client netip.Addr, name string) (*os.File, fs.FileInfo, error)
	}
	State interface { // *state.Watcher
		Current() *state.Snapshot
		Call(ctx context.Context, method string, arg, reply any) error
		Connections() uint64
		Stream(ctx context.Context, method string, arg any, take func(decode func(any) error) error) error
	}
	Server  netip.Prefix   // address of the server in the platform network
	Clients []netip.Prefix // networks of users, who may read /metrics
	Name    string         // host name of the server
	Doc     string         // directory of the documentation; need not exist
	Now     func() time.Time
}

// Serve answers on ln until ctx ends; requests under way are then given a moment.
func Serve(ctx context.Context, ln net.Listener, cfg Config) error {
	server := &nethttp.Server{
		Handler:           NewHandler(cfg),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		WriteTimeout:      writeTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := server.Shutdown(grace); err != nil {
			server.Close()
		}
	})
	err := server.Serve(quota.New(maxConnections, maxPerAddress).Listener(impatient{ln}))
	if stop() {
		return fmt.Errorf("cannot serve HTTP: %w", err)
	}
	<-done
	return nil
}

// impatient is a listener whose connections end when the other side takes nothing of what
// it is sent for some time, as tcp(7) says of TCP_USER_TIMEOUT.
type impatient struct{ net.Listener }

func (l impatient) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
		if err := setStallTimeout(tcp); err != nil {
			log.Printf("%v", err)
		}
	}
	return conn, err
}

func setStallTimeout(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(stallTimeout.Milliseconds()))
	})
	if err == nil {
		err = set
	}
	if err != nil {
		return fmt.Errorf("cannot bound the patience of a connection: %w", err)
	}
	return nil
}

// handler answers requests. The standard multiplexer is not used: it redirects names
// that it wants to clean, which boot loaders do not follow.
type handler struct {
	cfg       Config
	set       *metrics.Set
	requests  *metrics.By[metrics.Counter]   // by route and status
	took      *metrics.By[metrics.Durations] // by route
	histories chan struct{}                  // holds a value for each history of logs being sent
}

// NewHandler returns what answers the requests.
func NewHandler(cfg Config) nethttp.Handler {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	h := &handler{cfg: cfg, set: metrics.New("httpd"), histories: make(chan struct{}, maxHistories)}
	h.measure()
	return h
}
