// Package named is the name server of the platform: the zone walt, with the name of
// every device, and the reverse zones of the platform network, both made from the
// state that the daemon pushes, so that a new name is live at once; other names are
// asked from the resolvers of the site (node-protocols 1.9).
//
// It serves IPv4 only, forwards for the machines of the platform only, keeps no cache,
// and refuses zone transfers and updates.
package named

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/notify"
	"github.com/waltos/waltos/services/state"
)

// Main runs the service until ctx ends.
func Main(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("named", flag.ContinueOnError)
	site := flags.String("site", "/run/walt/site.hcl", "site configuration `file`")
	dir := flags.String("dir", "/var/lib/walt/services/named", "`directory` of the last known state")
	resolvers := flags.String("resolv", "/run/walt/resolv.conf", "resolv.conf `file` with the resolvers of the site")
	socket := flags.String("state", state.Socket, "`socket` of server-main")
	if err := flags.Parse(args); err != nil {
		return err
	}
	conf, err := hcl.LoadSite(*site)
	if err != nil {
		return err
	}
	cfg := Config{Network: conf.Server(), Resolvers: *resolvers}
	for _, text := range conf.DNS.Forwarders {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("cannot read dns forwarders: %w", err)
		}
		cfg.Forwarders = append(cfg.Forwarders, addr)
	}
	address := netip.AddrPortFrom(cfg.Network.Addr(), 53)
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(address))
	if err != nil {
		return fmt.Errorf("cannot serve DNS: %w", err)
	}
	tcp, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(address))
	if err != nil {
		udp.Close()
		return fmt.Errorf("cannot serve DNS: %w", err)
	}
	watcher := state.Watch(ctx, *socket, filepath.Join(*dir, "state.json"))
	cfg.State = watcher
	log.Printf("serving DNS on %s", address)
	if err := notify.Ready(); err != nil {
		return fmt.Errorf("cannot say that DNS is ready: %w", err)
	}
	err = New(cfg).Serve(ctx, udp, tcp)
	<-watcher.Done()
	return err
}
