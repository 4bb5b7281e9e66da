// Package dhcp is the DHCP server of the platform network: RFC 2131 with the options
// and the choice of boot files that firmware, boot loaders and images of WalT rely on
// (node-protocols 1.2). Known devices have a fixed address; others get a dynamic one,
// and server-main is told of them before they are acknowledged. Replies are made from
// memory: the state that the daemon pushes, and leases kept in a journal.
//
// It serves IPv4 over Ethernet on one interface. It refuses BOOTP clients, relays
// outside the subnet, and any request for an address of another network (NAK).
package dhcp

import (
	"context"
	"fmt"
	"log"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/internal/setup"
	"github.com/waltos/waltos/services/notify"
)

// Main runs the service until ctx ends.
func Main(ctx context.Context, args []string) error {
	flags := setup.New("dhcpd")
	conf, err := flags.Load(args)
	if err != nil {
		return err
	}
	watcher := flags.Watch(ctx)
	server, err := New(Config{
		Interface: hcl.WaltNet,
		Network:   conf.Server(),
		Journal:   flags.Path("leases"),
		State:     watcher,
	})
	if err != nil {
		return err
	}
	watcher.Measure(server.Measures())
	log.Printf("serving DHCP for %s on %s", conf.Server().Masked(), hcl.WaltNet)
	if err := notify.Ready(); err != nil {
		return fmt.Errorf("cannot say that DHCP is ready: %w", err)
	}
	go notify.KeepAlive(ctx, server.responds)
	err = server.Serve(ctx)
	<-watcher.Done()
	return err
}
