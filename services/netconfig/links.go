package netconfig

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/atomicfile"
)

const (
	// ownAlias marks the interfaces made here, so that "down" and a change of
	// configuration remove these and no others.
	ownAlias  = "made by walt netconfig"
	dummyName = hcl.WaltNet + "-dummy"
	// firstMetric is the one of the default route of the first network; the order of
	// the site file is the order of preference.
	firstMetric = 100
)

// links brings the interfaces of a site up. All its methods may be called again and
// again: they change only what is not as it must be.
type links struct {
	site    *hcl.Site
	macFile string
	mac     net.HardwareAddr // of the bridge, once it is known
}

// apply configures every network, and returns the interface of each that is up, by
// name of the network, and the interfaces that are missing.
func (l *links) apply() (up map[string]netlink.Link, missing []string, err error) {
	if lo, err := netlink.LinkByName("lo"); err == nil && lo.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(lo); err != nil {
			return nil, nil, fmt.Errorf("cannot bring lo up: %w", err)
		}
	}
	up = map[string]netlink.Link{}
	wanted := map[string]bool{}
	var failures []error
	for i, n := range l.site.Networks {
		link, absent, err := l.network(n, wanted)
		if absent {
			missing = append(missing, n.Interface)
		}
		if err == nil && link != nil {
			err = l.address(n, link, firstMetric+i)
		}
		switch {
		case err != nil:
			failures = append(failures, fmt.Errorf("cannot bring network %q up: %w", n.Name, err))
		case link != nil:
			up[n.Name] = link
		}
	}
	failures = append(failures, removeOwn(func(name string) bool { return wanted[name] }))
	return up, missing, errors.Join(failures...)
}

// network makes the interface that carries a network. A platform network whose wired
// interface is absent has a dummy one instead: the platform is virtual-only then.
func (l *links) network(n *hcl.Network, wanted map[string]bool) (link netlink.Link, absent bool, err error) {
	base, absent, err := l.base(n, wanted)
	if err != nil {
		return nil, absent, err
	}
	if n.Name != hcl.WaltNet {
		if absent {
			return nil, true, nil
		}
		if base.Attrs().Name != n.Name {
			if err := netlink.LinkAddAltName(base, n.Name); err != nil && !errors.Is(err, unix.EEXIST) {
				return nil, false, fmt.Errorf("cannot name %s: %w", base.Attrs().Name, err)
			}
		}
		return base, false, nil
	}
	if absent || n.Interface == "" {
		wanted[dummyName] = true
		base, err = ensure(&netlink.Dummy{LinkAttrs: attrs(dummyName)})
		// The dummy only gives the bridge a carrier before the first virtual node.
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return nil, absent, err
		}
	}
	bridge, err := l.bridge(wanted)
	if err != nil {
		return nil, absent, err
	}
	if base == nil {
		return bridge, absent, nil
	}
	if base.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := netlink.LinkSetMaster(base, bridge); err != nil {
			return nil, absent, fmt.Errorf("cannot put %s in the bridge %s: %w", base.Attrs().Name, hcl.WaltNet, err)
		}
	}
	return bridge, absent, nil
}

// base returns the wired interface of a network, or the VLAN on it, brought up.
func (l *links) base(n *hcl.Network, wanted map[string]bool) (link netlink.Link, absent bool, err error) {
	if n.Interface == "" {
		return nil, false, nil
	}
	raw, err := netlink.LinkByName(n.Interface)
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("cannot look at %s: %w", n.Interface, err)
	}
	if err := setUp(raw); err != nil || n.VLAN == 0 {
		return raw, false, err
	}
	name := fmt.Sprintf("%s.%d", n.Interface, n.VLAN)
	if len(name) >= unix.IFNAMSIZ {
		name = fmt.Sprintf("vlan%d.%d", raw.Attrs().Index, n.VLAN)
	}
	wanted[name] = true
	a := attrs(name)
	a.ParentIndex = raw.Attrs().Index
	vlan, err := ensure(&netlink.Vlan{LinkAttrs: a, VlanId: n.VLAN, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q})
	return vlan, false, err
}

// bridge makes the bridge of the platform, with the address that nodes have known
// since the first boot.
func (l *links) bridge(wanted map[string]bool) (netlink.Link, error) {
	wanted[hcl.WaltNet] = true
	if l.mac == nil {
		var err error
		if l.mac, err = bridgeMAC(l.macFile); err != nil {
			return nil, err
		}
	}
	mac := l.mac
	a := attrs(hcl.WaltNet)
	a.HardwareAddr = mac
	bridge, err := ensure(&netlink.Bridge{LinkAttrs: a})
	if err != nil {
		return nil, err
	}
	if bridge.Attrs().HardwareAddr.String() != mac.String() {
		if err := netlink.LinkSetHardwareAddr(bridge, mac); err != nil {
			return nil, fmt.Errorf("cannot set the address of %s: %w", hcl.WaltNet, err)
		}
	}
	return bridge, nil
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// ensure returns the interface of that name and kind, made if it does not exist, marked
// as ours and up.
func ensure(want netlink.Link) (netlink.Link, error) {
	name := want.Attrs().Name
	link, err := netlink.LinkByName(name)
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) {
		if err := netlink.LinkAdd(want); err != nil {
			return nil, fmt.Errorf("cannot make %s (a %s): %w", name, want.Type(), err)
		}
		if err := netlink.LinkSetAlias(want, ownAlias); err != nil {
			return nil, fmt.Errorf("cannot mark %s: %w", name, err)
		}
		link, err = netlink.LinkByName(name)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot look at %s: %w", name, err)
	}
	if link.Type() != want.Type() {
		return nil, fmt.Errorf("cannot make %s (a %s): there is already a %s of that name", name, want.Type(), link.Type())
	}
	return link, setUp(link)
}

// exists tells whether there is an interface of that name, which may be a further one.
func exists(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

func setUp(link netlink.Link) error {
	if link.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("cannot bring %s up: %w", link.Attrs().Name, err)
	}
	return nil
}

// removeOwn removes the interfaces made here, but those to keep.
func removeOwn(keep func(name string) bool) error {
	all, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("cannot list interfaces: %w", err)
	}
	var failures []error
	for _, link := range all {
		a := link.Attrs()
		if a.Alias != ownAlias || keep(a.Name) {
			continue
		}
		log.Printf("removing %s", a.Name)
		var notFound netlink.LinkNotFoundError
		if err := netlink.LinkDel(link); err != nil && !errors.As(err, &notFound) && !errors.Is(err, unix.ENODEV) {
			failures = append(failures, fmt.Errorf("cannot remove %s: %w", a.Name, err))
		}
	}
	return errors.Join(failures...)
}

// address gives a network its static address and default route; one of DHCP is left
// to its client.
func (l *links) address(n *hcl.Network, link netlink.Link, metric int) error {
	if n.IP == "dhcp" {
		return nil
	}
	var prefix netip.Prefix
	if n.IP != "" {
		var err error
		if prefix, err = netip.ParsePrefix(n.IP); err != nil {
			return fmt.Errorf("cannot read ip: %w", err)
		}
	}
	if err := setAddress(link, prefix); err != nil || n.Gateway == "" {
		return err
	}
	gateway, err := netip.ParseAddr(n.Gateway)
	if err != nil {
		return fmt.Errorf("cannot read gateway: %w", err)
	}
	return setRoute(link, netip.Prefix{}, gateway, metric)
}

// setAddress makes prefix the only IPv4 address of an interface; none if it is zero.
func setAddress(link netlink.Link, prefix netip.Prefix) error {
	name := link.Attrs().Name
	have, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("cannot list the addresses of %s: %w", name, err)
	}
	found := false
	for _, a := range have {
		if prefix.IsValid() && a.IPNet.String() == prefix.String() {
			found = true
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("cannot remove %s from %s: %w", a.IPNet, name, err)
		}
	}
	if found || !prefix.IsValid() {
		return nil
	}
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(prefix)}); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("cannot give %s to %s: %w", prefix, name, err)
	}
	return nil
}

// setRoute sets a route; the zero destination is the default one.
func setRoute(link netlink.Link, dst netip.Prefix, gateway netip.Addr, metric int) error {
	if !dst.IsValid() {
		dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(dst), Priority: metric, Protocol: unix.RTPROT_STATIC}
	if gateway.IsValid() && !gateway.IsUnspecified() {
		route.Gw = gateway.AsSlice()
		route.Flags = int(netlink.FLAG_ONLINK) // also one outside the subnet, as of some hosters
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("cannot route %s by %s on %s: %w", dst, gateway, link.Attrs().Name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// bridgeMAC reads the address of the bridge, drawn at the first boot: 52:54:00, then
// a byte up to 7f, as upstream.
func bridgeMAC(file string) (net.HardwareAddr, error) {
	text, err := os.ReadFile(file)
	if err == nil {
		mac, err := net.ParseMAC(strings.TrimSpace(string(text)))
		if err == nil && len(mac) == 6 && mac[0]&1 == 0 {
			return mac, nil
		}
		log.Printf("%s holds no MAC address: a new one is drawn", file)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the address of %s: %w", hcl.WaltNet, err)
	}
	mac := net.HardwareAddr{0x52, 0x54, 0x00, 0, 0, 0}
	rand.Read(mac[3:])
	mac[3] &= 0x7f
	if err := atomicfile.Write(file, []byte(mac.String()+"\n"), 0o644); err != nil {
		// A full disk keeps no network down.
		log.Printf("cannot keep the address of %s: %v; it will be another one after a restart", hcl.WaltNet, err)
	}
	return mac, nil
}
