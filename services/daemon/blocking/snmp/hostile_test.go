package snmp

import (
	"context"
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"github.com/waltos/waltos/services/daemon/blocking/snmptest"
)

// liar is a connection to an agent that answers what a function says.
type liar struct {
	net.Conn // nil: nothing else is called
	answer   func(request *gosnmp.SnmpPacket) []byte
	queue    [][]byte
	closed   bool
}

func (l *liar) Write(data []byte) (int, error) {
	request, err := (&gosnmp.GoSNMP{}).SnmpDecodePacket(slices.Clone(data))
	if err != nil {
		return 0, err
	}
	if answer := l.answer(request); answer != nil {
		l.queue = append(l.queue, answer)
	}
	return len(data), nil
}

func (l *liar) Read(buf []byte) (int, error) {
	if l.closed {
		return 0, net.ErrClosed
	}
	if len(l.queue) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(buf, l.queue[0])
	l.queue = l.queue[1:]
	return n, nil
}

func (l *liar) SetDeadline(time.Time) error { return nil }
func (l *liar) Close() error                { l.closed = true; return nil }

func lied(t testing.TB, version int, answer func(request *gosnmp.SnmpPacket) []byte) *Session {
	c := &Client{Timeout: time.Second, Retries: 2, Dial: func(context.Context, netip.Addr) (net.Conn, error) {
		return &liar{answer: answer}, nil
	}}
	s, err := c.Open(t.Context(), Target{netip.MustParseAddr("127.0.0.1"), version, "private"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// reply makes an answer to a request.
func reply(request *gosnmp.SnmpPacket, variables ...gosnmp.SnmpPDU) []byte {
	data, err := (&gosnmp.SnmpPacket{
		Version: request.Version, Community: request.Community, PDUType: gosnmp.GetResponse, RequestID: request.RequestID, Variables: variables,
	}).MarshalMsg()
	if err != nil {
		panic(err)
	}
	return data
}

func integer(name string, value int) gosnmp.SnmpPDU {
	return gosnmp.SnmpPDU{Name: name, Type: gosnmp.Integer, Value: value}
}

func TestHostileWalks(t *testing.T) {
	column := oid("1.3.6.1")
	endless := uint32(0)
	for name, test := range map[string]struct {
		answer func(request *gosnmp.SnmpPacket) []byte
		want   string
	}{
		"the same object for ever": {func(r *gosnmp.SnmpPacket) []byte { return reply(r, integer("1.3.6.1.1", 1)) }, "do not increase"},
		"objects that decrease":    {func(r *gosnmp.SnmpPacket) []byte { return reply(r, integer("1.3.6.1.5", 1), integer("1.3.6.1.4", 1)) }, "do not increase"},
		"objects without end": {func(r *gosnmp.SnmpPacket) []byte {
			var list []gosnmp.SnmpPDU
			for range 1000 {
				endless++
				list = append(list, integer(column.with(endless).String(), 1))
			}
			return reply(r, list...)
		}, "too many objects"},
		"large objects without end": {func(r *gosnmp.SnmpPacket) []byte {
			endless++
			return reply(r, gosnmp.SnmpPDU{Name: column.with(endless).String(), Type: gosnmp.OctetString, Value: make([]byte, 60000)})
		}, "too many objects"},
		"an error": {func(r *gosnmp.SnmpPacket) []byte {
			data, _ := (&gosnmp.SnmpPacket{Version: r.Version, Community: r.Community, PDUType: gosnmp.GetResponse, RequestID: r.RequestID, Error: gosnmp.GenErr}).MarshalMsg()
			return data
		}, "GenErr"},
		"nothing":             {func(r *gosnmp.SnmpPacket) []byte { return reply(r) }, "answer"},
		"silence":             {func(*gosnmp.SnmpPacket) []byte { return nil }, "does not answer"},
		"garbage":             {func(*gosnmp.SnmpPacket) []byte { return []byte("0\x82\xff\xff garbage") }, "does not answer"},
		"an empty datagram":   {func(*gosnmp.SnmpPacket) []byte { return []byte{} }, "does not answer"},
		"the question itself": {func(r *gosnmp.SnmpPacket) []byte { data, _ := r.MarshalMsg(); return data }, "does not answer"},
		"another's answer":    {func(r *gosnmp.SnmpPacket) []byte { r.RequestID++; return reply(r, integer("1.3.6.1.1", 1)) }, "does not answer"},
		"another community":   {func(r *gosnmp.SnmpPacket) []byte { r.Community = "other"; return reply(r, integer("1.3.6.1.1", 1)) }, "does not answer"},
		"another version": {func(r *gosnmp.SnmpPacket) []byte {
			r.Version = gosnmp.Version1 - r.Version + gosnmp.Version2c
			return reply(r, integer("1.3.6.1.1", 1))
		}, "does not answer"},
	} {
		for _, version := range []int{1, 2} {
			endless = 0
			found, err := lied(t, version, test.answer).Walk(t.Context(), column)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("v%d: %s: %d rows, %v", version, name, len(found), err)
			}
		}
	}
}

func TestHostileValues(t *testing.T) {
	for name, answer := range map[string]func(r *gosnmp.SnmpPacket) []byte{
		"another object": func(r *gosnmp.SnmpPacket) []byte { return reply(r, integer("1.3.6.1.9", 1)) },
		"two objects":    func(r *gosnmp.SnmpPacket) []byte { return reply(r, integer("1.3.6.1.1", 1), integer("1.3.6.1.1", 1)) },
		"no object":      func(r *gosnmp.SnmpPacket) []byte { return reply(r) },
	} {
		s := lied(t, 2, answer)
		if _, err := s.Get(t.Context(), oid("1.3.6.1.1")); err == nil {
			t.Errorf("GET: %s is accepted", name)
		}
		if err := s.Set(t.Context(), oid("1.3.6.1.1"), 1); err == nil {
			t.Errorf("SET: %s is accepted", name)
		}
	}
}

func TestTargetsThatCannotBe(t *testing.T) {
	c := NewClient()
	for _, target := range []Target{
		{netip.MustParseAddr("127.0.0.1"), 3, "private"}, {netip.MustParseAddr("127.0.0.1"), 0, "private"},
		{netip.MustParseAddr("127.0.0.1"), 2, strings.Repeat("x", 128)},
	} {
		if _, err := c.Open(t.Context(), target); err == nil {
			t.Errorf("%+v is accepted", target)
		}
	}
}

func TestRequestEndsWithItsContext(t *testing.T) {
	a, err := snmptest.Listen(snmptest.Loopback, "private")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	a.Mute(true)
	s := session(t, a, 2, "private")
	s.client.Timeout = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := s.Kind(ctx)
		ended <- err
	}()
	for a.Requests() == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// Agents that limit their answers, and those that know no GETBULK, are walked too.
func TestAgentsWithLimits(t *testing.T) {
	sw := newSwitch(t, snmptest.Standard)
	sw.Limit(60) // one object of most columns
	s := session(t, sw.Agent, 2, "private")
	found, err := s.Walk(t.Context(), ifType)
	if err != nil || len(found) != 25 {
		t.Errorf("%d rows, %v", len(found), err)
	}
	next := lied(t, 2, func(r *gosnmp.SnmpPacket) []byte {
		if r.PDUType == gosnmp.GetBulkRequest {
			data, _ := (&gosnmp.SnmpPacket{Version: r.Version, Community: r.Community, PDUType: gosnmp.GetResponse, RequestID: r.RequestID, Error: gosnmp.GenErr}).MarshalMsg()
			return data
		}
		name, _ := parseOID(r.Variables[0].Name)
		if name.compare(oid("1.3.6.1.3")) >= 0 {
			return reply(r, integer("1.3.7.1", 0))
		}
		return reply(r, integer(oid("1.3.6.1").with(append(slices.Clone(name[4:]), 0)[0]+1).String(), 7))
	})
	if found, err := next.Walk(t.Context(), oid("1.3.6.1")); err != nil || len(found) != 3 {
		t.Errorf("%v, %v", found, err)
	}
}

// FuzzDecode reads datagrams: none may cost more than an error.
func FuzzDecode(f *testing.F) {
	f.Add(reply(&gosnmp.SnmpPacket{Version: gosnmp.Version2c, Community: "private"}, integer("1.3.6.1", 1),
		gosnmp.SnmpPDU{Name: "1.3.6.2", Type: gosnmp.OctetString, Value: "text"},
		gosnmp.SnmpPDU{Name: "1.3.6.3", Type: gosnmp.ObjectIdentifier, Value: ".1.3.6"}))
	f.Add([]byte("\x30\x82\xff\xff\x02\x01\x03"))
	f.Fuzz(func(t *testing.T, data []byte) {
		packet := decode(&gosnmp.GoSNMP{Version: gosnmp.Version2c}, data)
		if packet == nil {
			return
		}
		for _, v := range packet.Variables {
			if name, ok := parseOID(v.Name); ok && len(name) > maxOID {
				t.Fatalf("a name of %d parts", len(name))
			}
		}
	})
}

// FuzzAgent explores a switch that answers anything: first the messages themselves, then
// values of all types in well-formed ones.
func FuzzAgent(f *testing.F) {
	f.Add([]byte("0\x1a\x02\x01\x01\x04\x07private"), false, uint8(2))
	f.Add([]byte{4, 1, 2, 0, 6, 2, 0, 0, 0, 0, 1}, true, uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, wellFormed bool, version uint8) {
		reads := 0
		next := func(n int) []byte {
			if len(data) == 0 || reads > 2000 {
				return nil
			}
			reads++
			at := reads * 7 % len(data)
			return data[at:min(len(data), at+n)]
		}
		s := lied(t, 1+int(version%2), func(r *gosnmp.SnmpPacket) []byte {
			part := next(64)
			if part == nil {
				return nil
			}
			if !wellFormed {
				return part
			}
			return reply(r, fuzzed(r.Variables[0].Name, part)...)
		})
		ctx := t.Context()
		for _, v := range LLDPs() {
			neighbors, _ := v.Neighbors(ctx, s)
			for _, n := range neighbors {
				if n.Port < 1 || n.Port > math.MaxInt32 || len(n.MAC) != 17 {
					t.Fatalf("%+v", n)
				}
			}
			n, _ := s.Numbering(ctx, v)
			stations, _ := s.Stations(ctx, n)
			for _, station := range stations {
				if station.Port < 1 || len(station.MAC) != 17 {
					t.Fatalf("%+v", station)
				}
			}
		}
		for _, v := range PoEs() {
			ports, err := v.Rows(ctx, s)
			if err != nil {
				continue
			}
			_, _ = v.Map(ctx, s, ports)
			for _, port := range ports[:min(len(ports), 1)] {
				_ = v.Set(ctx, s, port, len(data)%2 == 0)
			}
		}
		_, _ = s.Addresses(ctx)
		_, _ = s.Kind(ctx)
		_, _ = s.BridgeAddress(ctx)
	})
}

// fuzzed makes variables at and after a name of bytes.
func fuzzed(after string, data []byte) (list []gosnmp.SnmpPDU) {
	name, _ := parseOID(after)
	for len(data) >= 3 {
		kind, n := data[0], int(data[1])%min(len(data), 16)
		index := append(name[:len(name):len(name)], uint32(data[2]))
		for _, b := range data[:n] {
			index = append(index, uint32(b)<<(b%25))
		}
		v := gosnmp.SnmpPDU{Name: OID(index[:min(len(index), maxOID)]).String()}
		switch kind % 8 {
		case 0, 1:
			v.Type, v.Value = gosnmp.Integer, int(int8(data[2]))
		case 2:
			v.Type, v.Value = gosnmp.Gauge32, uint32(data[2])<<24
		case 3, 4:
			v.Type, v.Value = gosnmp.OctetString, data[:n]
		case 5:
			v.Type, v.Value = gosnmp.ObjectIdentifier, ".1.3.6"
		case 6:
			v.Type = gosnmp.NoSuchInstance
		case 7:
			v.Name, v.Type, v.Value = strings.TrimSuffix(after, ".0"), gosnmp.Integer, int(data[2])
		}
		list = append(list, v)
		data = data[max(n, 3):]
	}
	return list
}
