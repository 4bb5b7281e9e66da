package named

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/waltos/waltos/services/state"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func snapshot() *state.Snapshot {
	return &state.Snapshot{Devices: []state.Device{
		{MAC: "02:00:00:00:00:01", IP: "192.168.152.1", Name: "walt-server", Type: "server"},
		{MAC: "02:00:00:00:00:02", IP: "192.168.152.2", Name: "n1", Type: "node"},
		{MAC: "02:00:00:00:00:03", IP: "192.168.153.200", Name: "n2", Type: "node"},
		{MAC: "02:00:00:00:00:04", IP: "10.0.0.1", Name: "far", Type: "switch"},
		{MAC: "02:00:00:00:00:05", Name: "nowhere", Type: "unknown"},
	}}
}

// pushed is a state that tests replace.
type pushed struct{ atomic.Pointer[state.Snapshot] }

func (p *pushed) Current() *state.Snapshot { return p.Load() }

// ask has a server answer one question of a machine at 192.168.152.9.
func ask(t testing.TB, s *Server, name string, kind uint16) *dns.Msg {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(name, kind)
	return s.answer(context.Background(), netip.MustParseAddr("192.168.152.9"), false, q)
}

// short writes an answer as "RCODE data data".
func short(m *dns.Msg) string {
	words := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		words = append(words, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return strings.Join(words, " ")
}

func newServer(t testing.TB) (*Server, *pushed) {
	t.Helper()
	p := &pushed{}
	p.Store(snapshot())
	return New(Config{
		Network: netip.MustParsePrefix("192.168.152.1/23"), Forwarders: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
		State: p, Resolvers: filepath.Join(t.TempDir(), "none"),
	}), p
}

func TestZones(t *testing.T) {
	s, p := newServer(t)
	for _, c := range []struct {
		name string
		kind uint16
		want string
	}{
		{"n1.walt.", dns.TypeA, "NOERROR 192.168.152.2"},
		{"N1.WalT.", dns.TypeA, "NOERROR 192.168.152.2"},
		{"n2.walt.", dns.TypeA, "NOERROR 192.168.153.200"},
		{"n1.walt.", dns.TypeANY, "NOERROR 192.168.152.2"},
		{"n1.walt.", dns.TypeAAAA, "NOERROR"},
		{"n1.walt.", dns.TypeMX, "NOERROR"},
		{"server.walt.", dns.TypeA, "NOERROR 192.168.152.1"},
		{"walt-server.walt.", dns.TypeA, "NOERROR server.walt. 192.168.152.1"},
		{"walt-server.walt.", dns.TypeCNAME, "NOERROR server.walt."},
		{"walt-server.walt.", dns.TypeAAAA, "NOERROR server.walt."},
		{"walt.", dns.TypeNS, "NOERROR server.walt."},
		{"walt.", dns.TypeA, "NOERROR"},
		{"missing.walt.", dns.TypeA, "NXDOMAIN"},
		{"far.walt.", dns.TypeA, "NXDOMAIN"}, // not of the subnet
		{"nowhere.walt.", dns.TypeA, "NXDOMAIN"},
		{"x.n1.walt.", dns.TypeA, "NXDOMAIN"},
		{"2.152.168.192.in-addr.arpa.", dns.TypePTR, "NOERROR n1.walt."},
		{"200.153.168.192.in-addr.arpa.", dns.TypePTR, "NOERROR n2.walt."},
		{"1.152.168.192.in-addr.arpa.", dns.TypePTR, "NOERROR server.walt."},
		{"9.152.168.192.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		{"2.152.168.192.in-addr.arpa.", dns.TypeA, "NOERROR"},
		{"x.152.168.192.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		{"1.2.152.168.192.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		{"152.168.192.in-addr.arpa.", dns.TypeNS, "NOERROR server.walt."},
		{"localhost.", dns.TypeA, "NOERROR 127.0.0.1"},
	} {
		m := ask(t, s, c.name, c.kind)
		if got := short(m); got != c.want || !m.Authoritative {
			t.Errorf("%s %s: %s, want %s", c.name, dns.TypeToString[c.kind], got, c.want)
		}
		if len(m.Answer) == 0 {
			if soa, ok := m.Ns[0].(*dns.SOA); !ok || soa.Hdr.Ttl != negativeTTL {
				t.Errorf("%s: authority %v", c.name, m.Ns)
			}
		} else if c.name != "localhost." && m.Answer[0].Header().Ttl != 604800 {
			t.Errorf("%s: time to live %d", c.name, m.Answer[0].Header().Ttl)
		}
		if _, err := m.Pack(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if m := ask(t, s, "N1.WalT.", dns.TypeA); m.Answer[0].Header().Name != "N1.WalT." {
		t.Errorf("the name is answered as %s", m.Answer[0].Header().Name)
	}
	// A new name is live at once, and the serial grows.
	before := ask(t, s, "walt.", dns.TypeSOA).Answer[0].(*dns.SOA).Serial
	next := snapshot()
	next.Devices = append(next.Devices, state.Device{MAC: "02:00:00:00:00:06", IP: "192.168.152.6", Name: "new"})
	p.Store(next)
	if got := short(ask(t, s, "new.walt.", dns.TypeA)); got != "NOERROR 192.168.152.6" {
		t.Errorf("new name: %s", got)
	}
	if after := ask(t, s, "walt.", dns.TypeSOA).Answer[0].(*dns.SOA).Serial; after <= before {
		t.Errorf("serial %d after %d", after, before)
	}
}

func TestRefused(t *testing.T) {
	s, _ := newServer(t)
	inside := netip.MustParseAddr("192.168.152.9")
	for name, c := range map[string]struct {
		client netip.Addr
		change func(*dns.Msg)
		want   int
	}{
		"recursion for strangers": {netip.MustParseAddr("10.0.0.9"), func(m *dns.Msg) { m.SetQuestion("example.com.", dns.TypeA) }, dns.RcodeRefused},
		"no recursion wanted":     {inside, func(m *dns.Msg) { m.SetQuestion("example.com.", dns.TypeA); m.RecursionDesired = false }, dns.RcodeRefused},
		"transfer":                {inside, func(m *dns.Msg) { m.SetAxfr("walt.") }, dns.RcodeRefused},
		"chaos":                   {inside, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeRefused},
		"update":                  {inside, func(m *dns.Msg) { m.SetUpdate("walt.") }, dns.RcodeNotImplemented},
		"no question":             {inside, func(m *dns.Msg) { m.Question = nil }, dns.RcodeFormatError},
		"future EDNS":             {inside, func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }, dns.RcodeBadVers},
		"zone for strangers":      {netip.MustParseAddr("10.0.0.9"), func(*dns.Msg) {}, dns.RcodeSuccess},
	} {
		q := new(dns.Msg)
		q.SetQuestion("n1.walt.", dns.TypeA)
		c.change(q)
		if m := s.answer(t.Context(), c.client, false, q); m.Rcode != c.want {
			t.Errorf("%s: %s", name, dns.RcodeToString[m.Rcode])
		}
	}
}

// resolver is the resolver of a site, on a port of its own.
func resolver(t *testing.T) (port string) {
	t.Helper()
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	tcp, err := net.Listen("tcp4", udp.LocalAddr().String())
	if err != nil {
		udp.Close()
		t.Skipf("the TCP port beside a free UDP port is taken: %v", err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(req)
		add := func(text string) {
			rr, err := dns.NewRR(text)
			if err != nil {
				panic(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		switch name := strings.ToLower(req.Question[0].Name); name {
		case "two.example.":
			add("two.example. 60 IN A 10.1.1.1")
			add("two.example. 60 IN AAAA fd00::1")
		case "big.example.":
			for i := range 200 {
				add(fmt.Sprintf("big.example. 60 IN A 10.2.%d.%d", i/256, i%256))
			}
			if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
				m.Truncate(maxUDP)
			}
		case "broken.example.":
			m.Rcode = dns.RcodeServerFailure
		case "liar.example.":
			m.Question[0].Name = "other.example."
		default:
			m.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(m)
	})
	for _, server := range []*dns.Server{{PacketConn: udp, Handler: handler}, {Listener: tcp, Handler: handler}} {
		done := make(chan struct{})
		go func() { defer close(done); _ = server.ActivateAndServe() }()
		t.Cleanup(func() { udp.Close(); tcp.Close(); <-done })
	}
	_, port, err = net.SplitHostPort(udp.LocalAddr().String())
	must(t, err)
	return port
}

func TestForward(t *testing.T) {
	s, _ := newServer(t)
	s.forwarder.port = resolver(t)
	for name, want := range map[string]string{
		"two.example.": "NOERROR 10.1.1.1", "missing.example.": "NXDOMAIN",
		"broken.example.": "SERVFAIL", "liar.example.": "SERVFAIL",
	} {
		if got := short(ask(t, s, name, dns.TypeANY)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	for _, whole := range []bool{false, true} {
		q := new(dns.Msg)
		q.SetQuestion("big.example.", dns.TypeA)
		answer := s.answer(t.Context(), netip.MustParseAddr("192.168.152.9"), whole, q)
		if answer.Truncated == whole || (len(answer.Answer) == 200) != whole {
			t.Errorf("whole %v: truncated %v, %d records", whole, answer.Truncated, len(answer.Answer))
		}
	}
}

func TestResolvers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	f := newForwarder(netip.MustParseAddr("192.168.152.1"), nil, file)
	at := time.Unix(1000, 0)
	check := func(want ...string) {
		t.Helper()
		at = at.Add(rereadPause)
		var got []string
		for _, a := range f.resolvers(at) {
			got = append(got, a.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("resolvers %v, want %v", got, want)
		}
	}
	check(lastResort) // no file
	write := func(text string) {
		t.Helper()
		must(t, os.WriteFile(file, []byte(text), 0o644))
		must(t, os.Chtimes(file, at, at))
	}
	write("# comment\nsearch x\nnameserver 127.0.0.53\nnameserver 192.168.152.1\nnameserver ::1\nnameserver 10.0.0.1\nnameserver\n")
	check("10.0.0.1")
	write("nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n")
	check("10.0.0.1", "10.0.0.2", "10.0.0.3")
	write("nameserver 127.0.0.1\n")
	check(lastResort)
	f.fixed = []netip.Addr{netip.MustParseAddr("9.9.9.9")}
	check("9.9.9.9")
}

func TestBusy(t *testing.T) {
	s, _ := newServer(t)
	for range maxForwards {
		s.forwarder.slots <- struct{}{}
	}
	if m := ask(t, s, "example.com.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("%s", dns.RcodeToString[m.Rcode])
	}
	if m := ask(t, s, "n1.walt.", dns.TypeA); m.Rcode != dns.RcodeSuccess {
		t.Error("names of the platform wait for others")
	}
}

// TestServe asks over the network, with the client of the library and with dig.
func TestServe(t *testing.T) {
	p := &pushed{}
	next := snapshot()
	for i := range 100 { // the zone of a large platform
		next.Devices = append(next.Devices, state.Device{MAC: fmt.Sprint(i), IP: fmt.Sprintf("127.0.1.%d", i), Name: fmt.Sprintf("d%d", i)})
	}
	p.Store(next)
	s := New(Config{Network: netip.MustParsePrefix("127.0.0.1/8"), Resolvers: filepath.Join(t.TempDir(), "none"), State: p})
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	tcp, err := net.Listen("tcp4", udp.LocalAddr().String())
	if err != nil {
		t.Skipf("the TCP port beside a free UDP port is taken: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, udp, tcp) }()
	for _, network := range []string{"udp", "tcp"} {
		client := &dns.Client{Net: network, Timeout: 20 * time.Second}
		q := new(dns.Msg)
		q.SetQuestion("d7.walt.", dns.TypeA)
		q.SetEdns0(4096, false)
		m, _, err := client.Exchange(q, udp.LocalAddr().String())
		must(t, err)
		if got := short(m); got != "NOERROR 127.0.1.7" || m.IsEdns0() == nil || !m.RecursionAvailable {
			t.Errorf("%s: %s", network, m)
		}
	}
	if dig, err := exec.LookPath("dig"); err == nil {
		_, port, err := net.SplitHostPort(udp.LocalAddr().String())
		must(t, err)
		for _, c := range []struct {
			args []string
			want string
		}{
			{[]string{"d7.walt", "A"}, "127.0.1.7\n"},
			{[]string{"+tcp", "d7.walt", "A"}, "127.0.1.7\n"},
			{[]string{"-x", "127.0.1.7"}, "d7.walt.\n"},
			{[]string{"walt-server.walt"}, "server.walt.\n127.0.0.1\n"},
			{[]string{"missing.walt"}, ""},
		} {
			out, err := exec.CommandContext(t.Context(), dig, append([]string{"@127.0.0.1", "-p", port, "+short", "+tries=3"}, c.args...)...).CombinedOutput()
			if err != nil || string(out) != c.want {
				t.Errorf("dig %v: %q, %v", c.args, out, err)
			}
		}
	} else {
		t.Log("no dig on this machine")
	}
	server := netip.MustParseAddrPort(udp.LocalAddr().String())
	must(t, answers(t.Context(), server))
	cancel()
	must(t, <-done)
	if answers(t.Context(), server) == nil {
		t.Error("a server that has ended proves that it is alive")
	}
}

// FuzzAnswer checks that no question ends the server.
func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"n1.walt.", "2.152.168.192.in-addr.arpa.", "x\\000.walt.", "."} {
		q := new(dns.Msg)
		q.SetQuestion(name, dns.TypeA)
		q.SetEdns0(1232, true)
		packet, err := q.Pack()
		must(f, err)
		f.Add(packet)
	}
	s, _ := newServer(f)
	f.Fuzz(func(t *testing.T, packet []byte) {
		q := new(dns.Msg)
		if q.Unpack(packet) != nil || len(q.Question) != 1 {
			return
		}
		q.RecursionDesired = false // nothing is forwarded
		m := s.answer(t.Context(), netip.MustParseAddr("192.168.152.9"), false, q)
		if _, err := m.Pack(); err != nil {
			t.Fatalf("%v cannot be sent: %v", m, err)
		}
	})
}
