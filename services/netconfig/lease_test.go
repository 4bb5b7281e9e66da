package netconfig

import (
	"net"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func ack(t testing.TB, options ...dhcpv4.Option) *dhcpv4.DHCPv4 {
	t.Helper()
	modifiers := []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(10, 1, 2, 3))}
	for _, o := range options {
		modifiers = append(modifiers, dhcpv4.WithOption(o))
	}
	p, err := dhcpv4.New(modifiers...)
	must(t, err)
	return p
}

func TestLeaseTimes(t *testing.T) {
	const hour = time.Hour
	for name, c := range map[string]struct {
		ack  *dhcpv4.DHCPv4
		want time.Duration
	}{
		"nothing said":       {ack(t), defaultLife / 2},
		"half of its life":   {ack(t, dhcpv4.OptIPAddressLeaseTime(hour)), hour / 2},
		"said":               {ack(t, dhcpv4.OptIPAddressLeaseTime(hour), dhcpv4.OptRenewTimeValue(hour/4)), hour / 4},
		"after its own end":  {ack(t, dhcpv4.OptIPAddressLeaseTime(hour), dhcpv4.OptRenewTimeValue(100000*hour)), hour},
		"no life, no pause":  {ack(t, dhcpv4.OptIPAddressLeaseTime(0)), leastRenew},
		"renewed all a time": {ack(t, dhcpv4.OptRenewTimeValue(0)), leastRenew},
	} {
		if got := renewal(c.ack); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// FuzzLease checks that no answer of a DHCP server outside makes an address or a route
// that cannot be, or keeps an address for longer than its lease.
func FuzzLease(f *testing.F) {
	f.Add(ack(f).ToBytes())
	f.Add(ack(f, dhcpv4.OptSubnetMask(net.IPv4Mask(255, 0, 255, 0)), dhcpv4.OptRouter(net.IPv4(10, 1, 2, 1))).ToBytes())
	f.Add(ack(f, dhcpv4.OptGeneric(dhcpv4.OptionClasslessStaticRoute, []byte{33, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10})).ToBytes())
	odd := ack(f)
	odd.YourIPAddr = net.IPv4(240, 0, 0, 1) // of no class that has a mask
	f.Add(odd.ToBytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := dhcpv4.FromBytes(data)
		if err != nil {
			return
		}
		if prefix, err := leasePrefix(p); err == nil {
			if a := prefix.Addr(); !a.Is4() || prefix.Bits() < 1 || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() {
				t.Errorf("address %v", prefix)
			}
		}
		for _, r := range routes(p) {
			if !r.dst.IsValid() || !r.gateway.Is4() {
				t.Errorf("route %v", r)
			}
		}
		if again := renewal(p); again < leastRenew || again > max(p.IPAddressLeaseTime(defaultLife), leastRenew) {
			t.Errorf("renewed after %v", again)
		}
	})
}
