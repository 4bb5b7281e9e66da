// Package netconfig configures the network of the server as the site file says: the
// bridge walt-net of the platform over a wired interface, a VLAN or, for virtual nodes
// only, a dummy; other networks under their names, with a static address or one of
// DHCP; forwarding and address translation for the nodes that may leave the platform
// (server-setup 5, node-protocols 4.7).
//
// It touches only interfaces of the site file, interfaces that carry its mark, and its
// own nftables table. IPv6 is left to the kernel.
package netconfig

import (
	"context"
	"errors"
	"log"
	"os"

	"github.com/waltos/waltos/services/internal/setup"
	"github.com/waltos/waltos/services/notify"
)

// Main runs "up" (the default) until ctx ends, or "down".
func Main(ctx context.Context, args []string) error {
	flags := setup.New("netconfig")
	mac := flags.String("mac", "/var/lib/walt/.walt-net.mac", "`file` that keeps the address of the bridge")
	resolvers := flags.String("resolv", "/run/walt/resolv.conf", "resolv.conf `file` to write")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch verb := flags.Arg(0); verb {
	case "", "up":
	case "down":
		return Down()
	default:
		return errors.New(`1st argument must be "up" or "down"`)
	}
	conf, err := flags.Site()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(flags.Path(""), 0o755); err != nil {
		log.Print(err) // a full disk keeps no network down
	}
	watcher := flags.Watch(ctx)
	err = Run(ctx, Config{
		Site:      conf,
		MACFile:   *mac,
		Resolvers: *resolvers,
		State:     watcher,
	}, notify.Ready)
	if ctx.Err() != nil {
		<-watcher.Done()
	}
	return err
}
