package dhcp

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/mdlayher/packet"
)

// A new address is probed probeCount times, probePause apart.
const (
	probeCount = 3
	probePause = 130 * time.Millisecond
)

// prober finds out whether somebody already uses an address. ARP is asked rather than
// ICMP: no host of the same network can hide from it.
type prober struct {
	conn *packet.Conn
	src  mac

	mu      sync.Mutex
	waiting map[netip.Addr]chan mac // who answered, at most one
}

func newProber(ifi *net.Interface) (*prober, error) {
	conn, err := packet.Listen(ifi, packet.Raw, ethARP, nil)
	if err != nil {
		return nil, err
	}
	return &prober{conn: conn, src: mac(ifi.HardwareAddr), waiting: map[netip.Addr]chan mac{}}, nil
}

// run reads answers until the socket is closed.
func (p *prober) run() error {
	buffer := make([]byte, 128)
	for {
		n, _, err := p.conn.ReadFrom(buffer)
		if err != nil {
			return err
		}
		who, addr, ok := arpSender(buffer[:n])
		if !ok || who == p.src {
			continue
		}
		p.mu.Lock()
		if answer := p.waiting[addr]; answer != nil {
			select {
			case answer <- who:
			default:
			}
		}
		p.mu.Unlock()
	}
}

// used tells whether a machine other than client uses addr.
func (p *prober) used(ctx context.Context, addr netip.Addr, client mac) bool {
	answer := make(chan mac, 1)
	p.mu.Lock()
	p.waiting[addr] = answer
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.waiting, addr)
		p.mu.Unlock()
	}()
	tick := time.NewTicker(probePause)
	defer tick.Stop()
	for range probeCount {
		// A frame that cannot be sent leaves the question open, as a silent host does.
		_, _ = p.conn.WriteTo(arpProbe(p.src, addr), &packet.Addr{HardwareAddr: broadcast})
		select {
		case who := <-answer:
			if who != client {
				return true
			}
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return false
}

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
