package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"

	"github.com/waltos/waltos/services/internal/pattern"
)

// Lease is what the DHCP server of the platform tells a node (node-protocols 6.6). While
// it is held this machine has the node's addresses, on an interface of its own.
type Lease struct {
	Hostname, IP, Server, Netmask string
	Gateway                       string // "": none

	end netlink.Link
}

// Release takes the addresses of the node from this machine.
func (l *Lease) Release() error { return netlink.LinkDel(l.end) }

const (
	bridgePeriod = time.Second // between two looks for the bridge of the platform
	answerTime   = 2 * time.Second
	attempts     = 4
)

// Ask plugs an interface with the MAC of a node into the platform, as soon as that is
// there, and asks for a lease. It needs CAP_NET_RAW besides.
func Ask(ctx context.Context, mac, class string) (*Lease, error) {
	address, err := net.ParseMAC(mac)
	if err != nil {
		return nil, err
	}
	bridge, err := awaitBridge(ctx)
	if err != nil {
		return nil, err
	}
	end, err := pair(bridge, address)
	if err != nil {
		return nil, fmt.Errorf("cannot ask for an address: %w", err)
	}
	l := &Lease{end: end}
	if err := l.request(ctx, class); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot ask for an address: %w", err), l.Release())
	}
	return l, nil
}

func awaitBridge(ctx context.Context) (netlink.Link, error) {
	ticker := time.NewTicker(bridgePeriod)
	defer ticker.Stop()
	for {
		link, err := netlink.LinkByName(Platform)
		var missing netlink.LinkNotFoundError
		if err == nil {
			return link, nil
		} else if !errors.As(err, &missing) {
			return nil, fmt.Errorf("cannot look for %s: %w", Platform, err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("cannot wait for %s: %w", Platform, context.Cause(ctx))
		}
	}
}

// pair makes two joined interfaces, one of them in the bridge, and returns the other.
// Those that a killed process left are replaced.
func pair(bridge netlink.Link, mac net.HardwareAddr) (netlink.Link, error) {
	suffix := strings.ReplaceAll(mac[3:].String(), ":", "")
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "vnode-b-" + suffix}
	veth.Name, veth.HardwareAddr = "vnode-a-"+suffix, mac
	if old, err := netlink.LinkByName(veth.Name); err == nil {
		if err := netlink.LinkDel(old); err != nil {
			return nil, fmt.Errorf("cannot remove %s: %w", veth.Name, err)
		}
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("cannot make %s: %w", veth.Name, err)
	}
	peer, err := netlink.LinkByName(veth.PeerName)
	if err == nil {
		err = errors.Join(netlink.LinkSetMaster(peer, bridge), netlink.LinkSetUp(peer), netlink.LinkSetUp(veth))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot plug %s into %s: %w", veth.Name, Platform, err), netlink.LinkDel(veth))
	}
	return veth, nil
}

// hostForm is what a name of a node may look like.
var hostForm = pattern.Lazy(`^[A-Za-z0-9][A-Za-z0-9-]{0,62}$`)

func (l *Lease) request(ctx context.Context, class string) error {
	dhcp, err := nclient4.New(l.end.Attrs().Name, nclient4.WithTimeout(answerTime), nclient4.WithRetry(attempts))
	if err != nil {
		return err
	}
	defer dhcp.Close()
	lease, err := dhcp.Request(ctx, dhcpv4.WithOption(dhcpv4.OptClassIdentifier(class)),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionHostName, dhcpv4.OptionRouter, dhcpv4.OptionSubnetMask))
	if err != nil {
		return err
	}
	return l.use(lease.ACK)
}

// use takes what the server said, and the address.
func (l *Lease) use(ack *dhcpv4.DHCPv4) error {
	address, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	mask := ack.SubnetMask()
	bits, size := mask.Size()
	if !ok || size != 32 || bits == 0 {
		return errors.New("the server gives no address with a mask")
	}
	server := ack.ServerIdentifier()
	if server == nil {
		return errors.New("the server does not tell its address")
	}
	l.Hostname = ack.HostName()
	if !hostForm().MatchString(l.Hostname) {
		return fmt.Errorf("the server does not tell a name of the node yet, but %.100q", l.Hostname)
	}
	l.IP, l.Server, l.Netmask = address.String(), server.String(), net.IP(mask).String()
	if routers := ack.Router(); len(routers) > 0 {
		l.Gateway = routers[0].String()
	}
	if err := netlink.AddrReplace(l.end, &netlink.Addr{IPNet: &net.IPNet{IP: ack.YourIPAddr.To4(), Mask: mask}}); err != nil {
		return fmt.Errorf("cannot take address %s: %w", l.IP, err)
	}
	return nil
}
