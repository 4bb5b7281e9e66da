// Package http is the web server of the platform, TCP 80: boot files for loaders that
// speak HTTP, the web API and the documentation (client-api 5, node-protocols 1.4).
// Boot files and nodes are answered from memory and mounted images, also while the
// daemon restarts; images and logs are asked from it.
//
// It refuses every method but GET and HEAD, and names that leave a boot directory.
// The enrolment of VPN nodes (/walt-vpn) is not part of it.
package http

import (
	"context"
	"fmt"
	"log"
	"net"

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
		Tree:  &bootfile.Tree{Network: conf.Server(), Static: *static, State: watcher},
		State: watcher,
		Doc:   *doc,
	})
	<-watcher.Done()
	return err
}
