package dhcp

import (
	"net/netip"
	"time"
)

// mac is an Ethernet address; leases are keyed by it, not by client id: firmware,
// boot loader and system of one machine send different ids and must keep one address.
type mac [6]byte

// maxLeases bounds the table in memory and on disk, whatever the size of the network.
const maxLeases = 1 << 16

// lease is one dynamic address and who holds it.
type lease struct {
	addr  netip.Addr
	mac   mac
	until time.Time
	// bound means acknowledged, else only offered. Bound leases are on disk.
	bound bool
	// declined means a client found the address in use by a stranger: nobody gets it
	// before until.
	declined bool
	// probing means that the offer waits for its address to prove silent.
	probing bool
}

// table holds the dynamic leases. It is not safe for concurrent use.
type table struct {
	network netip.Prefix
	byAddr  map[netip.Addr]*lease
	byMAC   map[mac]*lease
	next    uint32 // host number where the search for a free address goes on
}

func newTable(network netip.Prefix) *table {
	return &table{network: network, byAddr: map[netip.Addr]*lease{}, byMAC: map[mac]*lease{}, next: 1}
}

// put records a lease in place of all that its address and its holder had.
func (t *table) put(l *lease) {
	if old := t.byAddr[l.addr]; old != nil {
		t.drop(old)
	}
	if old := t.byMAC[l.mac]; old != nil && !l.declined {
		t.drop(old)
	}
	t.byAddr[l.addr] = l
	if !l.declined {
		t.byMAC[l.mac] = l
	}
}

func (t *table) drop(l *lease) {
	if t.byAddr[l.addr] == l {
		delete(t.byAddr, l.addr)
	}
	if t.byMAC[l.mac] == l {
		delete(t.byMAC, l.mac)
	}
}

// host tells whether addr can be given to a machine of the network, the server's own
// address excluded.
func (t *table) host(addr netip.Addr) bool {
	return t.network.Contains(addr) && addr != t.network.Masked().Addr() &&
		addr != lastAddr(t.network) && addr != t.network.Addr()
}

// free finds an address for m: the one it had, else the wanted one, else one that
// nobody ever had, else one whose lease has ended. taken tells which addresses belong
// to devices, of which there are so many. The zero Addr means that none is left.
func (t *table) free(m mac, wanted netip.Addr, now time.Time, taken func(netip.Addr) bool, devices int) netip.Addr {
	usable := func(addr netip.Addr) bool { return t.host(addr) && !taken(addr) }
	if l := t.byMAC[m]; l != nil && usable(l.addr) {
		return l.addr
	}
	full := len(t.byAddr) >= maxLeases
	if wanted.IsValid() && usable(wanted) && !full {
		if l := t.byAddr[wanted]; l == nil || l.mac == m && !l.declined {
			return wanted
		}
	}
	hosts := ^mask(t.network) - 1 // number of host addresses
	first := number(t.network.Masked().Addr())
	// Among one address more than are in use, one is free.
	tries := min(uint64(hosts), uint64(len(t.byAddr)+devices+2))
	if full {
		tries = 0
	}
	for range tries {
		addr := address(first + t.next)
		if t.next++; t.next > hosts {
			t.next = 1
		}
		if t.byAddr[addr] == nil && usable(addr) {
			return addr
		}
	}
	var oldest *lease
	for _, l := range t.byAddr {
		if l.until.Before(now) && usable(l.addr) && (oldest == nil || l.until.Before(oldest.until) ||
			l.until.Equal(oldest.until) && l.addr.Less(oldest.addr)) {
			oldest = l
		}
	}
	if oldest == nil {
		return netip.Addr{}
	}
	return oldest.addr
}
