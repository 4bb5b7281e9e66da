// Package http is the web server of the platform, TCP 80: boot files for loaders that
// speak HTTP, the web API and the documentation (client-api 5, node-protocols 1.4).
// Boot files and nodes are answered from memory and mounted images, also while the
// daemon restarts; images and logs are asked from it.
//
// It refuses names that leave a boot directory, and a node's question for the boot files
// of another. The routes of the VPN answer as those of a server that has none. What
// takes memory, places or time is bounded for each client and for all: connections,
// headers, histories of logs, the patience with clients that read nothing.
package http

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/bootfile"
	"github.com/waltos/waltos/services/internal/setup"
	"github.com/waltos/waltos/services/notify"
)

// Main runs the service until ctx ends.
func Main(ctx context.Context, args []string) error {
	flags := setup.New("httpd")
	doc := flags.String("doc", "/usr/lib/walt/doc", "`directory` of the documentation")
	static := flags.String("static", "/var/lib/walt/tftp-static", "`directory` of boot files for clients without image")
	address := flags.String("listen-http", ":80", "`address` to listen on without a supervisor")
	conf, err := flags.Load(args)
	if err != nil {
		return err
	}
	ln, err := notify.ListenerOr("http", func() (net.Listener, error) { return net.Listen("tcp", *address) })
	if err != nil {
		return err
	}
	watcher := flags.Watch(ctx)
	log.Printf("serving HTTP on %s", ln.Addr())
	if err := notify.Ready(); err != nil {
		return fmt.Errorf("cannot say that HTTP is ready: %w", err)
	}
	err = Serve(ctx, ln, Config{
		Tree:    &bootfile.Tree{Network: conf.Server(), Static: *static, State: watcher},
		State:   watcher,
		Server:  conf.Server(),
		Clients: clients(conf),
		Name:    conf.HostName,
		Doc:     *doc,
	})
	<-watcher.Done()
	return err
}

// clients returns the networks of users.
func clients(conf *hcl.Site) (networks []netip.Prefix) {
	for _, text := range conf.Access.Clients {
		networks = append(networks, netip.MustParsePrefix(text).Masked()) // checked with the site
	}
	return networks
}
