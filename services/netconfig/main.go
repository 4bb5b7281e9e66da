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
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/notify"
	"github.com/waltos/waltos/services/state"
)

// Main runs "up" (the default) until ctx ends, or "down".
func Main(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("netconfig", flag.ContinueOnError)
	site := flags.String("site", "/run/walt/site.hcl", "site configuration `file`")
	dir := flags.String("dir", "/var/lib/walt", "`directory` of persistent files")
	resolvers := flags.String("resolv", "/run/walt/resolv.conf", "resolv.conf `file` to write")
	socket := flags.String("state", state.Socket, "`socket` of server-main")
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
	conf, err := hcl.LoadSite(*site)
	if err != nil {
		return err
	}
	cache := filepath.Join(*dir, "services/netconfig")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return fmt.Errorf("cannot keep the state: %w", err)
	}
	watcher := state.Watch(ctx, *socket, filepath.Join(cache, "state.json"))
	err = Run(ctx, Config{
		Site:      conf,
		MACFile:   filepath.Join(*dir, ".walt-net.mac"),
		Resolvers: *resolvers,
		State:     watcher,
	}, notify.Ready)
	if ctx.Err() != nil {
		<-watcher.Done()
	}
	return err
}
