package named

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds of forwarding.
const (
	maxForwards  = 256 // at the same time; beyond, clients are told to try again
	maxResolvers = 3
	forwardWait  = 2 * time.Second // for one resolver
	forwardTotal = 5 * time.Second // for all
	maxUDP       = 1232            // of an answer, which no network fragments
	rereadPause  = time.Second
)

// lastResort is asked when nobody says who else to ask, as upstream does.
const lastResort = "8.8.8.8"

// forwarder asks other resolvers.
type forwarder struct {
	self  netip.Addr   // never asked: it is this server
	fixed []netip.Addr // those of the site file
	file  string       // else those of this resolv.conf
	port  string       // "53" but in tests
	slots chan struct{}

	mu      sync.Mutex
	checked time.Time
	stamp   time.Time // of the file when it was read
	read    []netip.Addr
}

func newForwarder(self netip.Addr, fixed []netip.Addr, file string) *forwarder {
	return &forwarder{self: self, fixed: fixed, file: file, port: "53", slots: make(chan struct{}, maxForwards)}
}

// resolvers returns whom to ask; the file is read again when it has changed.
func (f *forwarder) resolvers(now time.Time) []netip.Addr {
	if len(f.fixed) > 0 {
		return f.fixed[:min(len(f.fixed), maxResolvers)]
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.checked) >= rereadPause {
		f.checked = now
		if info, err := os.Stat(f.file); err != nil {
			f.read, f.stamp = nil, time.Time{}
		} else if !info.ModTime().Equal(f.stamp) {
			f.read, f.stamp = readResolvers(f.file), info.ModTime()
		}
	}
	return f.usable(f.read)
}

// usable leaves out loopback addresses and our own: asking them would be a loop.
func (f *forwarder) usable(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if !a.IsLoopback() && a != f.self && !a.IsUnspecified() && len(out) < maxResolvers {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		out = []netip.Addr{netip.MustParseAddr(lastResort)}
	}
	return out
}

// readResolvers reads the IPv4 name servers of a resolv.conf.
func readResolvers(file string) []netip.Addr {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var addrs []netip.Addr
	for lines := bufio.NewScanner(io.LimitReader(f, 64<<10)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil && a.Is4() {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

var errBusy = errors.New("too many questions are being forwarded")

// ask forwards a question, over TCP if the answer must be whole.
func (f *forwarder) ask(ctx context.Context, req *dns.Msg, whole bool) (*dns.Msg, error) {
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	default:
		return nil, errBusy
	}
	ctx, cancel := context.WithTimeout(ctx, forwardTotal)
	defer cancel()
	query := new(dns.Msg)
	query.SetQuestion(req.Question[0].Name, req.Question[0].Qtype) // a new random id
	query.CheckingDisabled = req.CheckingDisabled
	option := req.IsEdns0()
	query.SetEdns0(maxUDP, option != nil && option.Do())
	var failures []error
	for _, resolver := range f.resolvers(time.Now()) {
		answer, err := exchange(ctx, query, net.JoinHostPort(resolver.String(), f.port), whole)
		if err == nil && answer.Rcode != dns.RcodeServerFailure && answer.Rcode != dns.RcodeRefused {
			return answer, nil
		}
		if err == nil {
			err = fmt.Errorf("%s answers %s", resolver, dns.RcodeToString[answer.Rcode])
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

func exchange(ctx context.Context, query *dns.Msg, resolver string, whole bool) (*dns.Msg, error) {
	client := &dns.Client{Net: "udp", Timeout: forwardWait, UDPSize: maxUDP}
	answer, _, err := client.ExchangeContext(ctx, query, resolver)
	if err == nil && answer.Truncated && whole {
		client.Net = "tcp"
		answer, _, err = client.ExchangeContext(ctx, query, resolver)
	}
	if err != nil {
		return nil, err
	}
	if !answer.Response || len(answer.Question) != 1 ||
		!strings.EqualFold(answer.Question[0].Name, query.Question[0].Name) ||
		answer.Question[0].Qtype != query.Question[0].Qtype {
		return nil, fmt.Errorf("%s answers another question", resolver)
	}
	return answer, nil
}

// adopt makes an answer of a resolver ours. IPv6 addresses are left out: nodes have no
// way to reach them.
func adopt(m, answer *dns.Msg) {
	m.Rcode = answer.Rcode
	m.Truncated = answer.Truncated
	m.AuthenticatedData = answer.AuthenticatedData
	m.Answer = withoutIPv6(answer.Answer)
	m.Ns = withoutIPv6(answer.Ns)
	m.Extra = append(m.Extra, withoutIPv6(answer.Extra)...)
}

func withoutIPv6(records []dns.RR) []dns.RR {
	return slices.DeleteFunc(slices.Clone(records), func(rr dns.RR) bool {
		kind := rr.Header().Rrtype
		return kind == dns.TypeAAAA || kind == dns.TypeOPT
	})
}
