package netconfig

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/atomicfile"
	"github.com/waltos/waltos/services/state"
)

// interfaceWait is how long a wired interface may be missing before it is reported: a
// driver may still be looking for it.
const interfaceWait = 10 * time.Second

// settle is the pause after a change of the interfaces: they come in bursts.
const settle = 200 * time.Millisecond

// lookTime is how often a missing interface is looked for: the kernel tells nobody of the further
// names that one gets while it is down.
const lookTime = time.Second

// Config says what to configure, and where.
type Config struct {
	Site *hcl.Site
	// MACFile keeps the address of the bridge.
	MACFile string
	// Resolvers is the resolv.conf to write.
	Resolvers string
	// Wait replaces interfaceWait in tests.
	Wait  time.Duration
	State interface {
		Current() *state.Snapshot
		Changed() <-chan struct{}
	}
}

// manager keeps the network of the server as the site file wants it.
type manager struct {
	cfg      Config
	links    *links
	firewall *firewall
	nat      []netip.Addr // what the firewall lets out

	clients sync.WaitGroup
	running map[string]*client // DHCP clients by network
	up      map[string]bool    // interfaces with a carrier

	mu        sync.Mutex
	resolvers map[string][]netip.Addr // by network, of DHCP
}

// Run configures the network, calls ready, and keeps it until ctx ends: interfaces
// that appear later, leases, and the devices that may leave the platform. Everything
// stays in place when it returns.
func Run(ctx context.Context, cfg Config, ready func() error) error {
	if cfg.Wait == 0 {
		cfg.Wait = interfaceWait
	}
	m := &manager{
		cfg:       cfg,
		links:     &links{site: cfg.Site, macFile: cfg.MACFile},
		firewall:  &firewall{subnet: cfg.Site.Server()},
		running:   map[string]*client{},
		up:        map[string]bool{},
		resolvers: map[string][]netip.Addr{},
	}
	ctx, cancel := context.WithCancel(ctx)
	defer m.clients.Wait()
	defer cancel()

	changes := make(chan netlink.LinkUpdate, 64)
	if err := netlink.LinkSubscribe(changes, ctx.Done()); err != nil {
		return fmt.Errorf("cannot watch the interfaces: %w", err)
	}
	missing, err := m.apply(ctx)
	if err != nil {
		return err
	}
	if len(missing) > 0 { // nothing waits for them: they join when they appear
		log.Printf("Interface %s not found, waiting for it to appear…", strings.Join(missing, ", "))
	}
	m.forward()
	if err := m.writeResolvers(); err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	return m.watch(ctx, changes, missing)
}

// consequence tells what a missing interface means.
func (m *manager) consequence(name string) string {
	if n := m.cfg.Site.Network(hcl.WaltNet); n.Interface == name {
		return ": the platform has virtual nodes only until it appears"
	}
	return ": its network is down until it appears"
}

// apply configures the links, and starts the DHCP clients of those that are there.
func (m *manager) apply(ctx context.Context) (missing []string, err error) {
	up, missing, err := m.links.apply()
	if up[hcl.WaltNet] == nil && err != nil {
		return missing, err // without its bridge the server is of no use
	}
	if err != nil {
		log.Print(err)
	}
	for i, n := range m.cfg.Site.Networks {
		link := up[n.Name]
		if n.IP != "dhcp" || link == nil {
			continue
		}
		if c := m.running[n.Name]; c != nil {
			if c.link == link.Attrs().Name {
				continue
			}
			c.leave() // the card was replaced by another
		}
		ctx, leave := context.WithCancel(ctx)
		c := &client{
			leave:   leave,
			network: n.Name, kick: make(chan struct{}, 1), link: link.Attrs().Name, metric: firstMetric + i, host: m.cfg.Site.HostName,
			resolvers: func(addrs []netip.Addr) {
				m.mu.Lock()
				m.resolvers[n.Name] = addrs
				m.mu.Unlock()
				if err := m.writeResolvers(); err != nil {
					log.Print(err)
				}
			},
		}
		m.running[n.Name] = c
		m.clients.Go(func() { c.run(ctx) })
	}
	return missing, nil
}

// forward installs the firewall, and only then lets packets through. A kernel without
// nftables leaves the platform without a way out, which the log says.
func (m *manager) forward() {
	m.nat = natDevices(m.cfg.State.Current(), m.firewall.subnet)
	if err := m.firewall.install(m.nat); err != nil {
		m.firewall.set = nil
		log.Printf("%v; nodes cannot reach other networks", err)
		return
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1\n"), 0); err != nil {
		log.Printf("cannot let packets through: %v; nodes cannot reach other networks", err)
	}
}

// natDevices returns the addresses that may leave the platform.
func natDevices(s *state.Snapshot, subnet netip.Prefix) []netip.Addr {
	var addrs []netip.Addr
	for _, d := range s.Devices {
		if a, err := netip.ParseAddr(d.IP); err == nil && d.NAT && subnet.Contains(a) {
			addrs = append(addrs, a)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// watch follows what changes.
func (m *manager) watch(ctx context.Context, changes <-chan netlink.LinkUpdate, missing []string) error {
	pending := time.NewTimer(0)
	if !pending.Stop() {
		<-pending.C
	}
	defer pending.Stop()
	deadline := time.NewTimer(m.cfg.Wait)
	defer deadline.Stop()
	ticker := time.NewTicker(lookTime)
	defer ticker.Stop()
	for {
		var look <-chan time.Time
		if len(missing) > 0 {
			look = ticker.C
		}
		select {
		case <-ctx.Done():
			return nil
		case change, ok := <-changes:
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return errors.New("cannot watch the interfaces any more")
			}
			a := change.Attrs()
			if m.concerns(a.Name) || slices.ContainsFunc(a.AltNames, m.concerns) {
				pending.Reset(settle)
			}
			m.carrier(change)
		case <-look:
			if slices.ContainsFunc(missing, exists) {
				pending.Reset(0)
			}
		case <-pending.C:
			before := missing
			var err error
			if missing, err = m.apply(ctx); err != nil {
				log.Print(err)
			}
			for _, name := range before {
				if !slices.Contains(missing, name) {
					log.Printf("Interface %s has appeared", name)
				}
			}
			for _, name := range missing {
				if !slices.Contains(before, name) {
					log.Printf("Interface %s has gone%s", name, m.consequence(name))
				}
			}
		case <-deadline.C:
			for _, name := range missing {
				log.Printf("Interface %s does not exist%s", name, m.consequence(name))
			}
		case <-m.cfg.State.Changed():
			m.follow()
		}
	}
}

// carrier has the DHCP client of an interface try at once when a cable is plugged, or
// the interface has come back: it may be another network.
func (m *manager) carrier(change netlink.LinkUpdate) {
	name := change.Attrs().Name
	up := change.Header.Type == unix.RTM_NEWLINK && change.Attrs().OperState == netlink.OperUp
	if was := m.up[name]; was == up {
		return
	}
	m.up[name] = up
	for _, c := range m.running {
		if up && c.link == name {
			select {
			case c.kick <- struct{}{}:
			default:
			}
		}
	}
}

// concerns tells whether an interface is one of the site, or made here.
func (m *manager) concerns(name string) bool {
	return name == hcl.WaltNet || name == dummyName || slices.ContainsFunc(m.cfg.Site.Networks, func(n *hcl.Network) bool {
		return n.Interface != "" && (name == n.Interface || strings.HasPrefix(name, n.Interface+"."))
	})
}

// follow brings the firewall to the state of the devices.
func (m *manager) follow() {
	if m.firewall.set == nil {
		m.forward()
		return
	}
	now := natDevices(m.cfg.State.Current(), m.firewall.subnet)
	if slices.Equal(now, m.nat) {
		return
	}
	if err := m.firewall.update(now); err != nil {
		log.Print(err)
		m.forward() // somebody removed the table: make it again
		return
	}
	m.nat = now
}

// writeResolvers writes the resolv.conf of the server: the resolvers of the site file,
// else those of DHCP.
func (m *manager) writeResolvers() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var text strings.Builder
	text.WriteString("# written by walt netconfig\n")
	seen := map[string]bool{}
	write := func(addr string) {
		if !seen[addr] {
			seen[addr] = true
			fmt.Fprintf(&text, "nameserver %s\n", addr)
		}
	}
	for _, addr := range m.cfg.Site.DNS.Forwarders {
		write(addr)
	}
	if len(seen) == 0 {
		for _, n := range m.cfg.Site.Networks {
			for _, addr := range m.resolvers[n.Name] {
				write(addr.String())
			}
		}
	}
	if err := os.MkdirAll(filepath.Dir(m.cfg.Resolvers), 0o755); err != nil {
		return fmt.Errorf("cannot write the name servers: %w", err)
	}
	if err := atomicfile.Write(m.cfg.Resolvers, []byte(text.String()), 0o644); err != nil {
		return fmt.Errorf("cannot write the name servers: %w", err)
	}
	return nil
}

// Down removes the firewall and all interfaces made here.
func Down() error {
	return errors.Join(removeFirewall(), removeOwn(func(string) bool { return false }))
}
