// Package snmptest is an SNMP agent for tests and labs: any objects, over UDP, in v1
// (RFC 1157) and v2c (RFC 3416): GET, GETNEXT, GETBULK and SET. Another community than
// its own meets silence, as with real agents. Package file switch.go makes a switch of it.
//
// It is no agent for production: it does not bound what it is asked for.
package snmptest

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/gosnmp/gosnmp"
)

// OID is a value of type OBJECT IDENTIFIER.
type OID string

// Agent answers at a UDP address.
type Agent struct {
	community string
	conn      *net.UDPConn
	done      chan struct{}

	mu       sync.Mutex
	limit    int      // of answers, in bytes
	objects  []object // sorted
	columns  [][]uint32
	mute     bool
	garbage  []byte // answered to everything, if not nil
	set      func(name string, value int) bool
	requests int
}

type object struct {
	name  []uint32
	value any
}

// Loopback is any free port of loopback.
var Loopback = netip.MustParseAddrPort("127.0.0.1:0")

// Listen starts an agent.
func Listen(address netip.AddrPort, community string) (*Agent, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(address))
	if err != nil {
		return nil, fmt.Errorf("cannot start an SNMP agent: %w", err)
	}
	a := &Agent{community: community, limit: 1472, conn: conn, done: make(chan struct{})}
	go a.run()
	return a, nil
}

// Address is where the agent answers.
func (a *Agent) Address() netip.AddrPort { return a.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// Close ends the agent.
func (a *Agent) Close() {
	a.conn.Close()
	<-a.done
}

// Mute makes the agent ignore all requests, or answer again.
func (a *Agent) Mute(mute bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mute = mute
}

// Limit bounds answers in bytes, as agents do: fewer rows of a GETBULK, or tooBig.
func (a *Agent) Limit(bytes int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limit = bytes
}

// Babble makes the agent answer each request with the same bytes; nil ends that.
func (a *Agent) Babble(garbage []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.garbage = garbage
}

// Requests is how many requests have come.
func (a *Agent) Requests() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requests
}

// OnSet has set called for each SET of an integer that exists, to follow it by Replace or
// to refuse it. Without it objects are read-only.
func (a *Agent) OnSet(set func(name string, value int) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.set = set
}

// Replace makes objects the only ones, by their names. Values are int (INTEGER), uint32
// (Gauge32), string and []byte (OCTET STRING) and OID. Columns are those that the agent
// has even if they are empty.
func (a *Agent) Replace(objects map[string]any, columns []string) {
	list := make([]object, 0, len(objects))
	for name, value := range objects {
		list = append(list, object{parse(name), value})
	}
	slices.SortFunc(list, func(a, b object) int { return slices.Compare(a.name, b.name) })
	known := make([][]uint32, len(columns))
	for i, name := range columns {
		known[i] = parse(name)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.objects, a.columns = list, known
}

func parse(name string) []uint32 {
	var parts []uint32
	for part := range strings.SplitSeq(strings.TrimPrefix(name, "."), ".") {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			panic("snmptest: " + name + " is no object identifier")
		}
		parts = append(parts, uint32(n))
	}
	return parts
}

func format(name []uint32) string {
	var b strings.Builder
	for _, n := range name {
		fmt.Fprintf(&b, ".%d", n)
	}
	return b.String()
}

func (a *Agent) run() {
	defer close(a.done)
	codec := &gosnmp.GoSNMP{Version: gosnmp.Version2c}
	buf := make([]byte, math.MaxUint16)
	for {
		n, peer, err := a.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		request, err := codec.SnmpDecodePacket(slices.Clone(buf[:n]))
		if err != nil || request.Community != a.community || request.Version == gosnmp.Version3 {
			continue
		}
		if answer := a.serve(request); answer != nil {
			_, _ = a.conn.WriteToUDPAddrPort(answer, peer) // as agents do: a lost answer is asked again
		}
	}
}

// serve returns the answer to a request; nil is silence.
func (a *Agent) serve(request *gosnmp.SnmpPacket) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests++
	if a.mute || a.garbage != nil {
		return a.garbage
	}
	answer := &gosnmp.SnmpPacket{
		Version: request.Version, Community: request.Community, PDUType: gosnmp.GetResponse, RequestID: request.RequestID,
	}
	switch request.PDUType {
	case gosnmp.GetRequest:
		a.each(request, answer, a.get)
	case gosnmp.GetNextRequest:
		a.each(request, answer, func(name []uint32) gosnmp.SnmpPDU { return a.next(name) })
	case gosnmp.GetBulkRequest:
		if request.Version == gosnmp.Version1 {
			return nil
		}
		return a.bulk(request, answer)
	case gosnmp.SetRequest:
		set, there := a.set, func(name []uint32) bool { _, there := a.find(name); return there }
		if !slices.ContainsFunc(request.Variables, func(v gosnmp.SnmpPDU) bool { return !there(parse(v.Name)) }) && set != nil {
			a.mu.Unlock() // set changes objects
			defer a.mu.Lock()
			write(request, answer, set)
			break
		}
		refuse(request, answer, 0)
	default:
		return nil
	}
	data, err := answer.MarshalMsg()
	if err != nil {
		panic(err)
	}
	return data
}

// each answers variable by variable. v1 has no values for what is missing: there the first
// of them is an error of the whole.
func (a *Agent) each(request, answer *gosnmp.SnmpPacket, read func(name []uint32) gosnmp.SnmpPDU) {
	for i, v := range request.Variables {
		found := read(parse(v.Name))
		missing := found.Type == gosnmp.NoSuchObject || found.Type == gosnmp.NoSuchInstance || found.Type == gosnmp.EndOfMibView
		if missing && request.Version == gosnmp.Version1 {
			answer.Error, answer.ErrorIndex, answer.Variables = gosnmp.NoSuchName, uint8(i+1), request.Variables
			return
		}
		answer.Variables = append(answer.Variables, found)
	}
}

func (a *Agent) find(name []uint32) (int, bool) {
	return slices.BinarySearchFunc(a.objects, name, func(o object, name []uint32) int { return slices.Compare(o.name, name) })
}

func (a *Agent) get(name []uint32) gosnmp.SnmpPDU {
	if i, there := a.find(name); there {
		return a.objects[i].variable()
	}
	for _, column := range a.columns {
		if len(name) >= len(column) && slices.Equal(name[:len(column)], column) {
			return gosnmp.SnmpPDU{Name: format(name), Type: gosnmp.NoSuchInstance}
		}
	}
	return gosnmp.SnmpPDU{Name: format(name), Type: gosnmp.NoSuchObject}
}

func (a *Agent) next(name []uint32) gosnmp.SnmpPDU {
	i, there := a.find(name)
	if there {
		i++
	}
	if i == len(a.objects) {
		return gosnmp.SnmpPDU{Name: format(name), Type: gosnmp.EndOfMibView}
	}
	return a.objects[i].variable()
}

func (o object) variable() gosnmp.SnmpPDU {
	v := gosnmp.SnmpPDU{Name: format(o.name), Value: o.value}
	switch value := o.value.(type) {
	case int:
		v.Type = gosnmp.Integer
	case uint32:
		v.Type = gosnmp.Gauge32
	case OID:
		v.Type, v.Value = gosnmp.ObjectIdentifier, string(value)
	default:
		v.Type = gosnmp.OctetString
	}
	return v
}

// bulk answers GETBULK with as many rows as fit.
func (a *Agent) bulk(request, answer *gosnmp.SnmpPacket) []byte {
	names := make([][]uint32, len(request.Variables))
	for i, v := range request.Variables {
		names[i] = parse(v.Name)
	}
	for range request.MaxRepetitions {
		ended := true
		for i := range names {
			v := a.next(names[i])
			names[i] = parse(v.Name)
			answer.Variables = append(answer.Variables, v)
			ended = ended && v.Type == gosnmp.EndOfMibView
		}
		if ended {
			break
		}
	}
	for {
		data, err := answer.MarshalMsg()
		if err != nil {
			panic(err)
		}
		if len(data) <= a.limit {
			return data
		}
		rows := len(answer.Variables) / len(names)
		if rows <= 1 {
			answer.Error, answer.Variables = gosnmp.TooBig, nil
			continue
		}
		answer.Variables = answer.Variables[:min(rows-1, rows*a.limit/len(data))*len(names)]
	}
}

func write(request, answer *gosnmp.SnmpPacket, set func(name string, value int) bool) {
	answer.Variables = request.Variables
	for i, v := range request.Variables {
		if value, isInt := v.Value.(int); !isInt || !set(v.Name, value) {
			refuse(request, answer, i)
			return
		}
	}
}

// refuse answers that a variable is not writable.
func refuse(request, answer *gosnmp.SnmpPacket, which int) {
	answer.Error, answer.ErrorIndex, answer.Variables = gosnmp.NotWritable, uint8(which+1), request.Variables
	if request.Version == gosnmp.Version1 {
		answer.Error = gosnmp.NoSuchName
	}
}
