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
	"fmt"
	"log"
	"net"
	"net/netip"

	"github.com/miekg/dns"
	"github.com/waltos/waltos/services/internal/setup"
	"github.com/waltos/waltos/services/notify"
)

// Main runs the service until ctx ends.
func Main(ctx context.Context, args []string) error {
	flags := setup.New("named")
	resolvers := flags.String("resolv", "/run/walt/resolv.conf", "resolv.conf `file` with the resolvers of the site")
	conf, err := flags.Load(args)
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
	watcher := flags.Watch(ctx)
	cfg.State = watcher
	log.Printf("serving DNS on %s", address)
	if err := notify.Ready(); err != nil {
		return fmt.Errorf("cannot say that DNS is ready: %w", err)
	}
	s := New(cfg)
	watcher.Measure(s.Measures())
	go notify.KeepAlive(ctx, func(ctx context.Context) error { return answers(ctx, address) })
	err = s.Serve(ctx, udp, tcp)
	<-watcher.Done()
	return err
}

// answers asks the server itself for what it knows without others: any answer will do.
func answers(ctx context.Context, server netip.AddrPort) error {
	question := new(dns.Msg).SetQuestion("walt-server.walt.", dns.TypeA)
	_, _, err := new(dns.Client).ExchangeContext(ctx, question, server.String())
	if err != nil {
		return fmt.Errorf("cannot get an answer from this DNS server: %w", err)
	}
	return nil
}
