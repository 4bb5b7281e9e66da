// Package ethernet is a network switch in user space: it joins the cards of virtual
// machines without any privilege. A port is a stream connection in the framing of
// QEMU's -netdev stream (4 bytes of length, big endian, then the frame).
//
// The switch learns addresses as IEEE 802.1D tells (no spanning tree: its ports
// lead to machines, not to other switches), drops frames for a port whose machine
// does not read fast enough instead of holding up the others, counts what it does,
// and can write what passes to a pcap file. A port that breaks the framing is cut.
package ethernet

import (
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxAddresses = 4096            // learnt at once, whatever the machines invent
	addressLife  = 5 * time.Minute // IEEE 802.1D's default ageing time
)

// Switch joins ports. Its zero value is not usable; see [New].
type Switch struct {
	now func() time.Time

	mu       sync.Mutex
	ports    map[string]*Port
	learnt   map[MAC]location
	captures map[*capture]bool
	closed   bool
	running  sync.WaitGroup
}

// location is where an address was last seen.
type location struct {
	port *Port
	seen time.Time
}

// New returns a switch without ports.
func New() *Switch {
	return &Switch{
		now:      time.Now,
		ports:    map[string]*Port{},
		learnt:   map[MAC]location{},
		captures: map[*capture]bool{},
	}
}

// Attach makes a port of a connection, plugged in, until the connection ends or the
// port is closed. The switch owns the connection from here on, also on error.
func (s *Switch) Attach(name string, conn net.Conn) (*Port, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		conn.Close()
		return nil, fmt.Errorf("cannot attach port %s: the switch is closed", name)
	case s.ports[name] != nil:
		conn.Close()
		return nil, fmt.Errorf("cannot attach port %s: there is a port of that name", name)
	}
	p := &Port{name: name, owner: s, conn: conn, plugged: true, queue: make(chan []byte, queueLength), done: make(chan struct{})}
	s.ports[name] = p
	s.running.Add(2)
	go p.receive()
	go p.transmit()
	return p, nil
}

// Socket makes a port and returns the other end of its connection, to be inherited
// by a QEMU process (-netdev stream,addr.type=fd); the caller closes it.
func (s *Switch) Socket(name string) (*os.File, *Port, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a socket for port %s: %w", name, err)
	}
	near, far := os.NewFile(uintptr(ends[0]), name), os.NewFile(uintptr(ends[1]), name)
	conn, err := net.FileConn(near)
	near.Close()
	if err != nil {
		far.Close()
		return nil, nil, fmt.Errorf("cannot make a socket for port %s: %w", name, err)
	}
	port, err := s.Attach(name, conn)
	if err != nil {
		far.Close()
		return nil, nil, err
	}
	return far, port, nil
}

// Ports returns the counters of all ports, sorted by name.
func (s *Switch) Ports() []Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Counters
	for _, p := range s.ports {
		all = append(all, p.snapshot())
	}
	slices.SortFunc(all, func(a, b Counters) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Port returns the port of that name, or nil.
func (s *Switch) Port(name string) *Port {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ports[name]
}

// Close cuts all ports and returns once nothing of the switch runs any more.
func (s *Switch) Close() {
	s.mu.Lock()
	s.closed = true
	for _, p := range s.ports {
		p.cut()
	}
	clear(s.captures)
	s.mu.Unlock()
	s.running.Wait()
}

// Capture writes the frames that enter and leave one port, or with an empty name those
// that enter any port, in the pcap format, until stop is called or writing fails.
func (s *Switch) Capture(w io.Writer, port string) (stop func(), err error) {
	c := &capture{w: w, port: port}
	if err := c.header(); err != nil {
		return nil, fmt.Errorf("cannot capture port %q: %w", port, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.captures[c] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.captures, c)
	}, nil
}

// forward passes on a frame that entered a port.
func (s *Switch) forward(from *Port, frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from.counters.Received++
	if !from.plugged {
		from.counters.Dropped++
		return
	}
	now := s.now()
	s.record(now, from, nil, frame)
	if src := source(frame); !src.group() {
		if _, known := s.learnt[src]; known || len(s.learnt) < maxAddresses {
			s.learnt[src] = location{port: from, seen: now}
		} else {
			s.forgetOld(now)
		}
	}
	if place, known := s.learnt[destination(frame)]; known && now.Sub(place.seen) < addressLife {
		if place.port != from {
			s.deliver(now, place.port, frame)
		}
		return
	}
	for _, p := range s.ports {
		if p != from {
			s.deliver(now, p, frame)
		}
	}
}

func (s *Switch) deliver(now time.Time, to *Port, frame []byte) {
	if !to.plugged {
		return
	}
	select {
	case to.queue <- frame:
		to.counters.Sent++
		s.record(now, nil, to, frame)
	default:
		to.counters.Dropped++
	}
}

// record shows a frame to the captures it concerns: in is set where it enters the
// switch, out where it leaves.
func (s *Switch) record(now time.Time, in, out *Port, frame []byte) {
	for c := range s.captures {
		wanted := c.port == "" && in != nil || in != nil && in.name == c.port || out != nil && out.name == c.port
		if wanted && c.packet(now, frame) != nil {
			delete(s.captures, c)
		}
	}
}

func (s *Switch) forgetOld(now time.Time) {
	for mac, place := range s.learnt {
		if now.Sub(place.seen) >= addressLife {
			delete(s.learnt, mac)
		}
	}
}

// forget drops what was learnt behind a port.
func (s *Switch) forget(p *Port) {
	for mac, place := range s.learnt {
		if place.port == p {
			delete(s.learnt, mac)
		}
	}
}
