package named

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/waltos/waltos/services/state"
)

// The domain of the platform.
const (
	domain     = "walt."
	serverName = "server.walt."
	aliasName  = "walt-server.walt."
	mailbox    = "root.server.walt."
)

// Times of the zones, in seconds: those of upstream, but for the negative one. A name
// that does not exist now may exist in a minute, and systems in images do cache.
const (
	ttl         = 604800
	refresh     = 604800
	retry       = 86400
	expire      = 2419200
	negativeTTL = 60
)

// zones answers for the names and addresses of the platform.
type zones struct {
	network netip.Prefix // Addr: the server's
	state   *state.Snapshot
	serial  uint32
}

// apex returns the zone of ours that holds a name (lower case, fully qualified).
func (z *zones) apex(name string) (string, bool) {
	if dns.IsSubDomain(domain, name) {
		return domain, true
	}
	labels := dns.SplitDomainName(name)
	if n := len(labels); n >= 5 && labels[n-1] == "arpa" && labels[n-2] == "in-addr" {
		text := fmt.Sprintf("%s.%s.%s.0", labels[n-3], labels[n-4], labels[n-5])
		if block, err := netip.ParseAddr(text); err == nil && netip.PrefixFrom(block, 24).Overlaps(z.network) {
			return strings.Join(labels[n-5:], ".") + ".", true
		}
	}
	return "", false
}

// answer fills in the reply to a question about a name of ours. It returns false, and
// leaves the reply alone, if it is not.
func (z *zones) answer(m *dns.Msg, q dns.Question) bool {
	name := strings.ToLower(q.Name)
	apex, ours := z.apex(name)
	if !ours {
		return false
	}
	m.Authoritative = true
	records, exists := z.records(apex, name)
	for _, rr := range records {
		kind := rr.Header().Rrtype
		if kind == q.Qtype || q.Qtype == dns.TypeANY || kind == dns.TypeCNAME {
			if strings.EqualFold(rr.Header().Name, q.Name) {
				rr.Header().Name = q.Name // the spelling of the question
			}
			m.Answer = append(m.Answer, rr)
		}
		if kind == dns.TypeCNAME && q.Qtype != dns.TypeCNAME {
			target, _ := z.records(domain, rr.(*dns.CNAME).Target)
			for _, rr := range target {
				if rr.Header().Rrtype == q.Qtype {
					m.Answer = append(m.Answer, rr)
				}
			}
		}
	}
	if !exists {
		m.Rcode = dns.RcodeNameError
	}
	if len(m.Answer) == 0 {
		soa := z.soa(apex)
		soa.Hdr.Ttl = negativeTTL
		m.Ns = append(m.Ns, soa)
	}
	return true
}

// records returns all records of a name.
func (z *zones) records(apex, name string) (records []dns.RR, exists bool) {
	if name == apex {
		return []dns.RR{z.soa(apex), &dns.NS{Hdr: header(apex, dns.TypeNS), Ns: serverName}}, true
	}
	if apex != domain {
		return z.pointer(name)
	}
	switch name {
	case serverName:
		return []dns.RR{address(name, z.network.Addr())}, true
	case aliasName:
		return []dns.RR{&dns.CNAME{Hdr: header(name, dns.TypeCNAME), Target: serverName}}, true
	}
	device, ok := z.state.ByName(strings.TrimSuffix(name, "."+domain))
	if !ok {
		return nil, false
	}
	addr, err := netip.ParseAddr(device.IP)
	if err != nil || !z.network.Contains(addr) {
		return nil, false
	}
	return []dns.RR{address(name, addr)}, true
}

// pointer returns the record of a name such as "4.3.2.1.in-addr.arpa.".
func (z *zones) pointer(name string) (records []dns.RR, exists bool) {
	labels := dns.SplitDomainName(name)
	if len(labels) != 6 {
		return nil, false
	}
	addr, err := netip.ParseAddr(strings.Join([]string{labels[3], labels[2], labels[1], labels[0]}, "."))
	if err != nil || !z.network.Contains(addr) {
		return nil, false
	}
	target := serverName
	if addr != z.network.Addr() {
		device, ok := z.state.ByIP(addr.String())
		if !ok {
			return nil, false
		}
		target = device.Name + "." + domain
	}
	return []dns.RR{&dns.PTR{Hdr: header(name, dns.TypePTR), Ptr: target}}, true
}

func (z *zones) soa(apex string) *dns.SOA {
	return &dns.SOA{
		Hdr: header(apex, dns.TypeSOA), Ns: serverName, Mbox: mailbox, Serial: z.serial,
		Refresh: refresh, Retry: retry, Expire: expire, Minttl: negativeTTL,
	}
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

func address(name string, addr netip.Addr) dns.RR {
	return &dns.A{Hdr: header(name, dns.TypeA), A: addr.AsSlice()}
}

// local answers for the names of the asking machine itself, which must never leave it.
func local(m *dns.Msg, q dns.Question) bool {
	name := strings.ToLower(q.Name)
	if !dns.IsSubDomain("localhost.", name) {
		return false
	}
	m.Authoritative = true
	if q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY {
		m.Answer = append(m.Answer, address(q.Name, netip.AddrFrom4([4]byte{127, 0, 0, 1})))
	}
	return true
}
