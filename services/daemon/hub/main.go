// Package hub is the process server-hub: it listens on TCP 12345, speaks the API link
// with clients, nodes and tools (client-api 1, node-protocols 3.1), and has their calls
// served by server-main (package session).
//
// It is the process that reads what strangers send, so it has no file, no database
// and no privilege, and bounds everything: connections in all and by address, the
// time a peer may take to say what it wants, lengths, depth, numbers. What is not
// the protocol closes its connection and concerns no other. Each call that the
// protocol lets through is answered, with an EXCEPTION at least; server-main going
// away is no exception to this. Which API a peer may call depends on where it calls
// from.
package hub

import (
	"context"
	"flag"
	"net"
	"path/filepath"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/daemon/trackexec"
	"github.com/waltos/waltos/services/internal/processors"
	"github.com/waltos/waltos/services/internal/selfcheck"
	"github.com/waltos/waltos/services/notify"
)

// Version is what the server announces to its clients: the release of WalT whose
// protocols it speaks.
const Version = "10.0"

// Main runs server-hub until ctx ends.
func Main(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("server-hub", flag.ContinueOnError)
	listen := flags.String("listen", ":12345", "`address` to listen on, when the supervisor passes no socket \"api\"")
	sockets := flags.String("socket-dir", "/run/walt/daemon", "`folder` of the sockets of the daemon")
	sitePath := flags.String("site", "", "site `file` with the access rules; none: every API is open to everybody")
	tracing := flags.String("trackexec", trackexec.Root, trackexec.Usage)
	if err := flags.Parse(args); err != nil {
		return err
	}
	processors.Share()
	access := Open
	if *sitePath != "" {
		site, err := hcl.LoadSite(*sitePath)
		if err != nil {
			return err
		}
		access = SiteAccess(site)
	}
	ln, err := notify.ListenerOr("api", func() (net.Listener, error) { return net.Listen("tcp", *listen) })
	if err != nil {
		return err
	}
	trace := trackexec.OpenFlag(*tracing, "server-hub")
	defer trace.Close()
	h := New(Config{MainSocket: filepath.Join(*sockets, "main.sock"), Access: access, Trace: trace})
	defer h.Close()
	if err := notify.Ready(); err != nil {
		return err
	}
	own := selfcheck.New(ln)
	go notify.KeepAlive(ctx, func(ctx context.Context) error { return h.responds(ctx, own) })
	return h.Serve(ctx, own)
}
