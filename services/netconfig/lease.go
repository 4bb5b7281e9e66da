package netconfig

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// client keeps the address of one network whose ip is "dhcp": RFC 2131, section 4.4.
type client struct {
	network string // for messages
	link    string
	metric  int
	host    string // told to the server
	// resolvers is called with the name servers of each lease.
	resolvers func([]netip.Addr)

	// kick ends any wait: a cable was plugged.
	kick chan struct{}
	// leave ends run.
	leave context.CancelFunc

	last netip.Addr // asked for again
	end  time.Time  // of the lease in use; zero: none
}

// Waits between attempts to get an address.
const (
	firstWait   = time.Second
	longestWait = time.Minute
	leastRenew  = time.Second
	defaultLife = time.Hour // of a lease that does not say
)

// run holds a lease until ctx ends. The address is left in place then: a restart of
// this service cuts nobody off.
func (c *client) run(ctx context.Context) {
	wait, failed := firstWait, false
	for ctx.Err() == nil {
		lease, err := c.acquire(ctx)
		if err == nil {
			err = c.use(lease.ACK)
		}
		if err != nil {
			if ctx.Err() == nil && !failed {
				log.Printf("no address for %s yet: %v; still trying", c.network, err)
			}
			failed = true
			c.expire()
			c.sleep(ctx, wait)
			wait = min(2*wait, longestWait)
			continue
		}
		wait, failed = firstWait, false
		c.hold(ctx, lease)
	}
}

// sleep waits for a time, a cable, or the end of ctx; it tells whether it was a cable.
func (c *client) sleep(ctx context.Context, d time.Duration) (plugged bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.kick:
		return true
	case <-ctx.Done():
	}
	return false
}

func (c *client) modifiers() []dhcpv4.Modifier {
	return []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptHostName(c.host)),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionInterfaceMTU),
	}
}

// acquire asks for an address, the one of the last lease if possible.
func (c *client) acquire(ctx context.Context) (*nclient4.Lease, error) {
	dhcp, err := c.open()
	if err != nil {
		return nil, err
	}
	defer dhcp.Close()
	modifiers := c.modifiers()
	if c.last.IsValid() {
		modifiers = append(modifiers, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(c.last.AsSlice())))
	}
	offer, err := dhcp.DiscoverOffer(ctx, modifiers...)
	if err != nil {
		return nil, err
	}
	return dhcp.RequestFromOffer(ctx, offer, c.modifiers()...)
}

func (c *client) open() (*nclient4.Client, error) {
	link, err := netlink.LinkByName(c.link)
	if err != nil {
		return nil, fmt.Errorf("cannot look at %s: %w", c.link, err)
	}
	if link.Attrs().Flags&net.FlagRunning == 0 && link.Attrs().OperState == netlink.OperDown {
		return nil, fmt.Errorf("no cable is plugged in %s", c.link)
	}
	dhcp, err := nclient4.New(c.link, nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(3))
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", c.link, err)
	}
	return dhcp, nil
}

// hold renews a lease from half of its life on. It returns when the lease has ended or
// was refused, and when a cable was plugged: that may be another network.
func (c *client) hold(ctx context.Context, lease *nclient4.Lease) {
	for {
		if c.sleep(ctx, renewal(lease.ACK)) {
			return
		}
		for {
			if ctx.Err() != nil {
				return
			}
			next, err := c.renew(ctx, lease)
			if err == nil {
				if err = c.use(next.ACK); err == nil {
					lease = next
					break
				}
			}
			var refused *nclient4.ErrNak
			if errors.As(err, &refused) {
				log.Printf("%s may not keep its address", c.network)
				c.drop()
				return
			}
			if c.expire() || c.sleep(ctx, min(longestWait, max(time.Until(c.end), time.Second))) {
				return
			}
		}
	}
}

// renewal returns how long after its begin a lease is to be renewed: when the server
// says, but not after its end.
func renewal(ack *dhcpv4.DHCPv4) time.Duration {
	life := ack.IPAddressLeaseTime(defaultLife)
	return max(min(ack.IPAddressRenewalTime(life/2), life), leastRenew)
}

// expire drops the address if its lease has ended, and tells whether that is so.
func (c *client) expire() bool {
	if c.end.IsZero() || time.Now().Before(c.end) {
		return false
	}
	log.Printf("the lease of %s has ended", c.network)
	c.drop()
	return true
}

func (c *client) renew(ctx context.Context, lease *nclient4.Lease) (*nclient4.Lease, error) {
	dhcp, err := c.open()
	if err != nil {
		return nil, err
	}
	defer dhcp.Close()
	return dhcp.Renew(ctx, lease, c.modifiers()...)
}

// use gives the interface what a lease says.
func (c *client) use(ack *dhcpv4.DHCPv4) error {
	link, err := netlink.LinkByName(c.link)
	if err != nil {
		return fmt.Errorf("cannot look at %s: %w", c.link, err)
	}
	prefix, err := leasePrefix(ack)
	if err != nil {
		return fmt.Errorf("cannot use what %s was given: %w", c.network, err)
	}
	if err := setAddress(link, prefix); err != nil {
		return err
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options); err == nil && mtu >= 576 && int(mtu) < link.Attrs().MTU {
		if err := netlink.LinkSetMTU(link, int(mtu)); err != nil {
			log.Printf("cannot set the MTU of %s to %d: %v", c.link, mtu, err)
		}
	}
	wanted := routes(ack)
	for _, r := range wanted {
		if err := setRoute(link, r.dst, r.gateway, c.metric); err != nil {
			log.Print(err)
		}
	}
	c.removeOldRoutes(link, wanted)
	var resolvers []netip.Addr
	for _, ip := range ack.DNS() {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok && !a.IsUnspecified() {
			resolvers = append(resolvers, a)
		}
	}
	c.resolvers(resolvers)
	c.end = time.Now().Add(ack.IPAddressLeaseTime(defaultLife))
	if addr := prefix.Addr(); c.last != addr {
		log.Printf("%s has %s", c.network, prefix)
		c.last = addr
	}
	return nil
}

// leasePrefix returns the address of a lease, with its subnet.
func leasePrefix(ack *dhcpv4.DHCPv4) (netip.Prefix, error) {
	addr, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	bits, _ := ack.SubnetMask().Size()
	if bits == 0 {
		bits, _ = ack.YourIPAddr.DefaultMask().Size()
	}
	if !ok || bits == 0 || addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast() {
		return netip.Prefix{}, fmt.Errorf("%s is no address of a machine", ack.YourIPAddr)
	}
	return netip.PrefixFrom(addr, bits), nil
}

type route struct {
	dst     netip.Prefix
	gateway netip.Addr
}

// routes returns those of option 121, which replace the router of option 3 (RFC 3442).
func routes(ack *dhcpv4.DHCPv4) []route {
	var routes []route
	for _, r := range ack.ClasslessStaticRoute() {
		if r.Dest == nil {
			continue
		}
		ones, _ := r.Dest.Mask.Size()
		dst, ok1 := netip.AddrFromSlice(r.Dest.IP.To4())
		gateway, ok2 := netip.AddrFromSlice(r.Router.To4())
		if ok1 && ok2 {
			routes = append(routes, route{netip.PrefixFrom(dst, ones).Masked(), gateway})
		}
	}
	if routers := ack.Router(); len(routes) == 0 && len(routers) > 0 {
		if gateway, ok := netip.AddrFromSlice(routers[0].To4()); ok {
			routes = []route{{netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway}}
		}
	}
	return routes
}

// removeOldRoutes removes the routes of an earlier lease.
func (c *client) removeOldRoutes(link netlink.Link, keep []route) {
	have, err := netlink.RouteListFiltered(netlink.FAMILY_V4,
		&netlink.Route{LinkIndex: link.Attrs().Index, Protocol: unix.RTPROT_STATIC},
		netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		log.Printf("cannot list the routes of %s: %v", c.link, err)
		return
	}
	for _, r := range have {
		dst := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if r.Dst != nil {
			ones, _ := r.Dst.Mask.Size()
			if a, ok := netip.AddrFromSlice(r.Dst.IP.To4()); ok {
				dst = netip.PrefixFrom(a, ones)
			}
		}
		wanted := false
		for _, k := range keep {
			wanted = wanted || k.dst == dst && k.gateway.String() == r.Gw.String()
		}
		if !wanted {
			if err := netlink.RouteDel(&r); err != nil {
				log.Printf("cannot remove a route of %s: %v", c.link, err)
			}
		}
	}
}

// drop takes the address away that this machine may not use any more.
func (c *client) drop() {
	link, err := netlink.LinkByName(c.link)
	if err == nil {
		err = setAddress(link, netip.Prefix{})
	}
	if err != nil {
		log.Print(err)
	}
	c.resolvers(nil)
	c.end = time.Time{}
}
