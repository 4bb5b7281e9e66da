package named

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/waltos/waltos/services/internal/quota"
	"github.com/waltos/waltos/services/metrics"
	"github.com/waltos/waltos/services/state"
)

const (
	maxConnections = 128 // over TCP, for answers that do not fit a datagram
	maxPerAddress  = 16
	tcpTimeout     = 5 * time.Second
	complainPause  = time.Minute
)

// Config describes a server.
type Config struct {
	Network    netip.Prefix // Addr: the server's; others than its machines get no recursion
	Forwarders []netip.Addr // of the site file
	Resolvers  string       // resolv.conf to follow if there are none
	State      interface{ Current() *state.Snapshot }
}

// Server answers questions.
type Server struct {
	cfg       Config
	forwarder *forwarder
	set       *metrics.Set
	questions *metrics.By[metrics.Counter]
	answers   *metrics.By[metrics.Counter]
	bytes     *metrics.Counter

	mu     sync.Mutex
	seen   *state.Snapshot // the state that serial belongs to
	serial uint32
	said   time.Time // when the last failure was logged
}

// New returns a server.
func New(cfg Config) *Server {
	set := metrics.New("named")
	return &Server{
		cfg: cfg, forwarder: newForwarder(cfg.Network.Addr(), cfg.Forwarders, cfg.Resolvers),
		set:       set,
		questions: set.CountersBy("walt_dns_questions_total", "DNS questions, by transport.", "transport"),
		answers:   set.CountersBy("walt_dns_answers_total", "DNS answers, by their code.", "code"),
		bytes:     set.Counter("walt_dns_answer_bytes_total", "Size of the DNS answers."),
	}
}

// Measures is what the server counts.
func (s *Server) Measures() *metrics.Set { return s.set }

// Serve answers on both sockets until ctx ends; it closes them.
func (s *Server) Serve(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) { s.handle(ctx, w, req) })
	for name, server := range map[string]*dns.Server{
		"UDP": {PacketConn: udp, Handler: handler, UDPSize: dns.DefaultMsgSize},
		"TCP": {
			Listener: quota.New(maxConnections, maxPerAddress).Listener(tcp), Handler: handler, MaxTCPQueries: 100,
			ReadTimeout: tcpTimeout, WriteTimeout: tcpTimeout, IdleTimeout: func() time.Duration { return tcpTimeout },
		},
	} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		group.Go(func() error {
			if err := server.ActivateAndServe(); err != nil && ctx.Err() == nil {
				return fmt.Errorf("cannot serve DNS over %s: %w", name, err)
			}
			return nil
		})
		group.Go(func() error {
			<-ctx.Done()
			udp.Close() // also ends a server that has not started
			tcp.Close()
			select {
			case <-started:
				grace, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				_ = server.ShutdownContext(grace) // it has nothing to lose
			default:
			}
			return nil
		})
	}
	return group.Wait()
}

// zones returns our zones as of now. The serial grows with each change of the state.
func (s *Server) zones() *zones {
	current := s.cfg.State.Current()
	s.mu.Lock()
	defer s.mu.Unlock()
	if current != s.seen {
		s.seen = current
		s.serial = max(s.serial+1, uint32(time.Now().Unix()))
	}
	return &zones{network: s.cfg.Network, state: current, serial: s.serial}
}

func (s *Server) handle(ctx context.Context, w dns.ResponseWriter, req *dns.Msg) {
	client, overTCP := peer(w.RemoteAddr())
	s.questions.With(map[bool]string{false: "udp", true: "tcp"}[overTCP]).Add(1)
	m := s.answer(ctx, client, overTCP, req)
	s.answers.With(codeName(m.Rcode)).Add(1)
	size := dns.MinMsgSize
	if option := req.IsEdns0(); option != nil {
		size = min(max(int(option.UDPSize()), dns.MinMsgSize), maxUDP)
	}
	if !overTCP {
		m.Truncate(size)
	}
	m.Compress = true
	s.bytes.Add(uint64(m.Len()))
	// An error means that the client has gone, or cannot be reached.
	_ = w.WriteMsg(m)
}

// codeName is the name of a code, of which others may send any.
func codeName(code int) string {
	if name, known := dns.RcodeToString[code]; known {
		return name
	}
	return "other"
}

// answer makes the reply to a question.
func (s *Server) answer(ctx context.Context, client netip.Addr, overTCP bool, req *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(req)
	inside := s.cfg.Network.Contains(client) || client.IsLoopback()
	m.RecursionAvailable = inside
	if req.Opcode != dns.OpcodeQuery {
		m.Rcode = dns.RcodeNotImplemented
		return m
	}
	if len(req.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
		return m
	}
	if option := req.IsEdns0(); option != nil {
		m.SetEdns0(maxUDP, option.Do())
		if option.Version() != 0 {
			m.Rcode = dns.RcodeBadVers
			return m
		}
	}
	q := req.Question[0]
	if q.Qclass != dns.ClassINET || q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR {
		m.Rcode = dns.RcodeRefused
		return m
	}
	if s.zones().answer(m, q) || local(m, q) {
		return m
	}
	if !inside || !req.RecursionDesired {
		m.Rcode = dns.RcodeRefused
		return m
	}
	answer, err := s.forwarder.ask(ctx, req, overTCP)
	if err != nil {
		if !errors.Is(err, errBusy) && ctx.Err() == nil {
			s.complain(q.Name, err)
		}
		m.Rcode = dns.RcodeServerFailure
		return m
	}
	adopt(m, answer)
	return m
}

// complain logs a failure, but not every one: a site without Internet has no others.
func (s *Server) complain(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.said) >= complainPause {
		s.said = now
		log.Printf("cannot resolve %.255q: %v", name, err)
	}
}

func peer(addr net.Addr) (client netip.Addr, overTCP bool) {
	switch addr := addr.(type) {
	case *net.UDPAddr:
		return addr.AddrPort().Addr().Unmap(), false
	case *net.TCPAddr:
		return addr.AddrPort().Addr().Unmap(), true
	}
	return netip.Addr{}, true
}
