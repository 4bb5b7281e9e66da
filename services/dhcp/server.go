package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"golang.org/x/net/ipv4"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/periodic"
	"github.com/waltos/waltos/services/state"
)

// Bounds of one server.
const (
	maxPacket   = 1500
	batchSize   = 64
	maxProbes   = 64  // at the same time; beyond, addresses are offered unprobed
	maxRegister = 64  // at the same time; beyond, clients try again
	maxRetries  = 512 // registrations kept for later
	maxCommits  = 512 // leases waiting for the disk
	maxTries    = 4   // addresses probed for one packet
	// registerWait is how long an ACK waits for the daemon.
	registerWait = 3 * time.Second
	serverPort   = 67
	clientPort   = 68
)

// State is what the server needs of the daemon; *state.Watcher implements it.
type State interface {
	Current() *state.Snapshot
	Register(ctx context.Context, r state.Registration) error
}

// Config describes a server.
type Config struct {
	Interface string       // the only network served
	Network   netip.Prefix // its subnet; Addr is the server's own address
	Journal   string       // file of the leases
	State     State
	// RetryPause is how long a registration that failed waits for its next attempt;
	// default 5 s.
	RetryPause time.Duration
}

// Server answers the DHCP clients of one interface.
type Server struct {
	cfg     Config
	ifindex int
	src     mac
	udp     *net.UDPConn
	out     *ipv4.PacketConn
	frames  *packet.Conn
	prober  *prober
	journal *journal
	count   counts

	wake    chan struct{} // capacity 1: commits are waiting
	probes  chan struct{} // semaphore
	checked chan struct{} // capacity 1: the loop that receives lives
	tasks   sync.WaitGroup

	mu          sync.Mutex
	commits     []commit
	engine      *engine
	registering map[mac]*dhcpv4.DHCPv4 // the last request of each client being registered
	retries     map[mac]state.Registration
}

// commit is a lease to write, and what waits for it.
type commit struct {
	lease *lease
	then  func()
}

// New opens the sockets and the journal of a server.
func New(cfg Config) (_ *Server, err error) {
	cfg.Network = netip.PrefixFrom(cfg.Network.Addr().Unmap(), cfg.Network.Bits())
	if cfg.RetryPause == 0 {
		cfg.RetryPause = 5 * time.Second
	}
	ifi, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return nil, fmt.Errorf("cannot serve DHCP on %s: %w", cfg.Interface, err)
	}
	s := &Server{
		cfg:         cfg,
		ifindex:     ifi.Index,
		wake:        make(chan struct{}, 1),
		probes:      make(chan struct{}, maxProbes),
		checked:     make(chan struct{}, 1),
		registering: map[mac]*dhcpv4.DHCPv4{},
		retries:     map[mac]state.Registration{},
	}
	s.count = newCounts(func() int { return len(s.live()) })
	if len(ifi.HardwareAddr) != 6 {
		return nil, fmt.Errorf("cannot serve DHCP on %s: it is not an Ethernet interface", cfg.Interface)
	}
	s.src = mac(ifi.HardwareAddr)
	s.engine = &engine{network: cfg.Network, leases: newTable(cfg.Network), devices: cfg.State.Current}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	var leases []*lease
	if s.journal, leases, err = openJournal(cfg.Journal); err != nil {
		return nil, err
	}
	for _, l := range leases {
		if s.engine.leases.host(l.addr) {
			s.engine.leases.put(l)
		}
	}
	if s.udp, err = listenUDP(cfg.Interface); err != nil {
		return nil, fmt.Errorf("cannot serve DHCP on %s: %w", cfg.Interface, err)
	}
	s.out = ipv4.NewPacketConn(s.udp)
	if s.frames, err = packet.Listen(ifi, packet.Raw, 0, nil); err != nil {
		return nil, fmt.Errorf("cannot send frames on %s: %w", cfg.Interface, err)
	}
	if s.prober, err = newProber(ifi); err != nil {
		return nil, fmt.Errorf("cannot probe addresses on %s: %w", cfg.Interface, err)
	}
	return s, nil
}

// listenUDP opens the server port on one interface only.
func listenUDP(name string) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if controlErr := raw.Control(func(fd uintptr) {
			err = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
				unix.BindToDevice(int(fd), name))
		}); controlErr != nil {
			return controlErr
		}
		return err
	}}
	conn, err := lc.ListenPacket(context.Background(), "udp4", fmt.Sprintf("0.0.0.0:%d", serverPort))
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

func (s *Server) close() {
	if s.udp != nil {
		s.udp.Close()
	}
	if s.frames != nil {
		s.frames.Close()
	}
	if s.prober != nil {
		s.prober.conn.Close()
	}
	if s.journal != nil {
		s.journal.close()
	}
}

// Serve answers clients until ctx ends, or a socket fails.
func (s *Server) Serve(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		<-ctx.Done()
		s.udp.Close() // ends the readers
		s.prober.conn.Close()
		return nil
	})
	group.Go(func() error { return s.receive(ctx) })
	group.Go(func() error {
		if err := s.prober.run(); ctx.Err() == nil {
			return fmt.Errorf("cannot receive ARP on %s: %w", s.cfg.Interface, err)
		}
		return nil
	})
	group.Go(func() error { s.write(ctx); return nil })
	group.Go(func() error { s.retry(ctx); return nil })
	err := group.Wait()
	s.tasks.Wait()
	s.close()
	return err
}

func (s *Server) receive(ctx context.Context) error {
	messages := make([]ipv4.Message, batchSize)
	for i := range messages {
		messages[i].Buffers = [][]byte{make([]byte, maxPacket)}
	}
	for {
		n, err := s.out.ReadBatch(messages, 0)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if err = s.answerCheck(); err == nil {
				continue
			}
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("cannot receive on %s: %w", s.cfg.Interface, err)
		}
		for _, m := range messages[:n] {
			if m.Flags&unix.MSG_TRUNC == 0 {
				s.packet(ctx, m.Buffers[0][:m.N])
			}
		}
	}
}

// packet handles what one client sent; it does not wait.
func (s *Server) packet(ctx context.Context, b []byte) {
	req, err := dhcpv4.FromBytes(b) // copies b
	if err != nil {
		s.count.malformed.Add(1)
		return // not DHCP: firmware, scanners and broken devices send such things
	}
	s.count.received.With(kindName(req.MessageType())).Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handle(ctx, req, 1)
}

// handle decides the answer and starts what it waits for; try counts the addresses
// tried for this packet. s.mu is held.
func (s *Server) handle(ctx context.Context, req *dhcpv4.DHCPv4, try int) {
	a := s.engine.handle(req, time.Now())
	if a.note != "" {
		log.Print(a.note)
	}
	switch {
	case a.probe.IsValid():
		s.probe(ctx, req, a, try)
	case a.register != nil:
		s.register(ctx, req, a)
	case a.commit != nil:
		s.commit(a.commit, func() { s.send(req, a.reply) })
	default:
		s.send(req, a.reply)
	}
}

// task runs f, which may wait, besides the rest. s.mu is held, so that no task begins
// once Serve waits for all.
func (s *Server) task(ctx context.Context, f func()) {
	if ctx.Err() == nil {
		s.tasks.Go(f)
	}
}

// probe offers a new address once nobody is found to use it.
func (s *Server) probe(ctx context.Context, req *dhcpv4.DHCPv4, a answer, try int) {
	select {
	case s.probes <- struct{}{}:
	default:
		s.engine.silent(a.probe)
		s.send(req, a.reply)
		return
	}
	s.task(ctx, func() {
		used := s.prober.used(ctx, a.probe, mac(req.ClientHWAddr))
		<-s.probes
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if !used {
			s.engine.silent(a.probe)
			s.send(req, a.reply)
			return
		}
		log.Printf("%s is used by a machine that did not ask for it: left out", a.probe)
		s.engine.conflict(a.probe, time.Now())
		if try < maxTries {
			s.handle(ctx, req, try+1) // with another address
		}
	})
}

// register tells the daemon of a client before its ACK leaves. A request that is
// repeated meanwhile takes the place of the first.
func (s *Server) register(ctx context.Context, req *dhcpv4.DHCPv4, a answer) {
	m := mac(req.ClientHWAddr)
	if _, busy := s.registering[m]; busy {
		s.registering[m] = req
		return
	}
	if len(s.registering) >= maxRegister {
		return
	}
	s.registering[m] = req
	registration := *a.register
	tell := func() {
		err := s.tell(ctx, registration)
		s.mu.Lock()
		defer s.mu.Unlock()
		last := s.registering[m]
		delete(s.registering, m)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			log.Printf("%v; acknowledged all the same, will try again", err)
			if len(s.retries) < maxRetries {
				s.retries[m] = registration
			}
		} else {
			delete(s.retries, m)
		}
		// The device may have a name and settings by now.
		again := s.engine.handle(last, time.Now())
		s.send(last, again.reply)
	}
	if a.commit == nil {
		s.task(ctx, tell)
	} else if !s.commit(a.commit, func() { s.task(ctx, tell) }) {
		delete(s.registering, m)
	}
}

func (s *Server) tell(ctx context.Context, r state.Registration) error {
	ctx, cancel := context.WithTimeout(ctx, registerWait)
	defer cancel()
	return s.cfg.State.Register(ctx, r)
}

// retry tells the daemon later of what it could not be told.
func (s *Server) retry(ctx context.Context) {
	periodic.Every(ctx, s.cfg.RetryPause, func() {
		for m, r := range s.pending() {
			if err := s.tell(ctx, r); err != nil {
				break // the daemon is still away
			}
			s.mu.Lock()
			delete(s.retries, m)
			s.mu.Unlock()
		}
	})
}

// pending returns the registrations still to be made, and forgets those of devices
// that became known in another way.
func (s *Server) pending() map[mac]state.Registration {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[mac]state.Registration{}
	for m, r := range s.retries {
		if device, known := s.cfg.State.Current().ByMAC(r.MAC); known && device.Type != "unknown" {
			delete(s.retries, m)
			continue
		}
		out[m] = r
	}
	return out
}

// commit has a lease written, then runs a function with s.mu held, which it also is
// now. It returns false when the disk is slower than the clients, which then repeat.
func (s *Server) commit(l *lease, then func()) bool {
	if len(s.commits) >= maxCommits {
		return false
	}
	s.commits = append(s.commits, commit{l, then})
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return true
}

// write writes leases, all that wait with one synchronisation.
func (s *Server) write(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		s.mu.Lock()
		batch := s.commits
		s.commits = nil
		s.mu.Unlock()
		if len(batch) == 0 {
			continue
		}
		s.store(batch)
		s.mu.Lock()
		for _, c := range batch {
			c.then()
		}
		s.mu.Unlock()
	}
}

// store writes a batch. A disk that fails does not stop nodes from booting: the lease
// holds in memory, and the log says so.
func (s *Server) store(batch []commit) {
	leases := make([]*lease, len(batch))
	for i, c := range batch {
		leases[i] = c.lease
	}
	err := s.journal.add(leases)
	if s.journal.worn(len(leases)) {
		if live := s.live(); err != nil || s.journal.worn(len(live)) {
			err = s.journal.rewrite(live)
		}
	}
	if err != nil {
		log.Printf("%v; given out all the same", err)
	}
}

// live returns copies of the bound leases.
func (s *Server) live() []*lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	var live []*lease
	for _, l := range s.engine.leases.byAddr {
		if l.bound {
			saved := *l
			live = append(live, &saved)
		}
	}
	return live
}

// send sends a reply where RFC 2131 section 4.1 says. s.mu need not be held.
func (s *Server) send(req *dhcpv4.DHCPv4, r *reply) {
	if r == nil {
		return
	}
	payload := r.encode(s.cfg.Network, req)
	relay, relayed := ipOf(req.GatewayIPAddr)
	client, configured := ipOf(req.ClientIPAddr)
	var err error
	switch {
	case relayed:
		err = s.sendUDP(payload, netip.AddrPortFrom(relay, serverPort))
	case r.kind == dhcpv4.MessageTypeNak:
		err = s.sendUDP(payload, netip.AddrPortFrom(limitedBroadcast, clientPort))
	case configured && s.cfg.Network.Contains(client):
		err = s.sendUDP(payload, netip.AddrPortFrom(client, clientPort))
	case req.IsBroadcast() || !r.yiaddr.IsValid():
		err = s.sendUDP(payload, netip.AddrPortFrom(limitedBroadcast, clientPort))
	default:
		dst := mac(req.ClientHWAddr)
		_, err = s.frames.WriteTo(udpFrame(dst, s.src,
			netip.AddrPortFrom(r.yiaddr, clientPort), netip.AddrPortFrom(s.cfg.Network.Addr(), serverPort), payload),
			&packet.Addr{HardwareAddr: dst[:]})
	}
	if err != nil {
		log.Printf("cannot answer %s: %v", req.ClientHWAddr, err)
		s.count.failed.Add(1)
		return
	}
	s.count.sent.With(kindName(r.kind)).Add(1)
	if r.kind == dhcpv4.MessageTypeAck && r.yiaddr.IsValid() {
		log.Printf("%s has %s %s%s", req.ClientHWAddr, r.yiaddr, r.host, bootNote(r.boot))
	}
}

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func bootNote(b boot) string {
	if b.file == "" {
		return ""
	}
	return " boot file " + b.file
}

func (s *Server) sendUDP(payload []byte, dst netip.AddrPort) error {
	control := &ipv4.ControlMessage{IfIndex: s.ifindex, Src: s.cfg.Network.Addr().AsSlice()}
	_, err := s.out.WriteTo(payload, control, net.UDPAddrFromAddrPort(dst))
	return err
}
