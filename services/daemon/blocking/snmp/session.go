// Package snmp explores and controls switches by SNMP v1 (RFC 1157) and v2c (RFC 3416):
// their neighbours (LLDP-MIB, and TP-Link's own tables), their forwarding tables
// (BRIDGE-MIB, Q-BRIDGE-MIB) and the power of their ports (POWER-ETHERNET-MIB, and the
// tables of TP-Link and Netgear). Facts: node-protocols §5.
//
// The codec is gosnmp's; requests are sent from here, so that each is bounded in time,
// ends with its context, and takes nothing but the answer to itself. What a switch says
// is not trusted: walks are bounded in rows and bytes, objects must increase, values of
// another type than their object's are dropped. Traps, SNMPv3 and contexts are refused.
package snmp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/gosnmp/gosnmp"
)

// Target is an agent, and how it is talked to.
type Target struct {
	Address   netip.Addr
	Version   int // 1, or 2 for v2c
	Community string
}

// Client opens sessions.
type Client struct {
	// Dial connects to the agent of a switch: UDP port 161, but for tests.
	Dial    func(ctx context.Context, address netip.Addr) (net.Conn, error)
	Timeout time.Duration // of one try
	Retries int           // after the first try
}

// NewClient returns a client that talks to port 161 and waits for 3 seconds up to 3 times.
func NewClient() *Client {
	return &Client{
		Dial: func(ctx context.Context, address netip.Addr) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "udp", netip.AddrPortFrom(address, 161).String())
		},
		Timeout: 3 * time.Second,
		Retries: 2,
	}
}

var (
	// ErrMute is the error of a request without answer.
	ErrMute = errors.New("the switch does not answer")
	// ErrNoSuchObject is the error of an object that the agent does not have.
	ErrNoSuchObject = errors.New("the switch has no such object")
)

const (
	maxCommunity = 127 // what the codec can write
	maxDatagram  = 65535
	// maxRepetitions is how many rows GETBULK asks for: about what one Ethernet frame holds.
	maxRepetitions = 25
	// Bounds of one walk: twice the largest forwarding table of an access switch.
	maxRows  = 1 << 16
	maxBytes = 8 << 20
)

// Session is a conversation with one agent. It serves one goroutine.
type Session struct {
	client *Client
	target Target
	conn   net.Conn
	codec  *gosnmp.GoSNMP
	buf    []byte
	id     uint32 // of the last request
	bulk   uint32 // rows asked at once; 0: GETNEXT
}

// Open starts a session. Nothing is sent yet.
func (c *Client) Open(ctx context.Context, t Target) (*Session, error) {
	s := &Session{client: c, target: t, codec: &gosnmp.GoSNMP{Version: gosnmp.Version1}, buf: make([]byte, maxDatagram)}
	switch t.Version {
	case 1:
	case 2:
		s.codec.Version, s.bulk = gosnmp.Version2c, maxRepetitions
	default:
		return nil, fmt.Errorf("cannot talk SNMP version %d to %s", t.Version, t.Address)
	}
	if len(t.Community) > maxCommunity {
		return nil, fmt.Errorf("cannot talk SNMP to %s: the community is longer than %d bytes", t.Address, maxCommunity)
	}
	conn, err := c.Dial(ctx, t.Address)
	if err != nil {
		return nil, fmt.Errorf("cannot talk SNMP to %s: %w", t.Address, err)
	}
	s.conn = conn
	s.id = uint32(time.Now().UnixNano()) // so that no answer to an earlier session fits
	return s, nil
}

// Close ends the session.
func (s *Session) Close() { s.conn.Close() }

// exchange sends a request, again if need be, and returns its answer.
func (s *Session) exchange(ctx context.Context, request *gosnmp.SnmpPacket) (*gosnmp.SnmpPacket, error) {
	request.Version, request.Community = s.codec.Version, s.target.Community
	s.id++
	request.RequestID = s.id & 0x7fffffff
	data, err := request.MarshalMsg()
	if err != nil {
		return nil, fmt.Errorf("cannot write a request: %w", err)
	}
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	for range s.client.Retries + 1 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		answer, err := s.try(data, request)
		if answer != nil {
			return answer, nil
		}
		if errors.Is(err, net.ErrClosed) {
			break
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, ErrMute
}

// try sends a request once. Datagrams that are no answer to it are passed over until the
// time is up, lest a stranger's garbage be worth a refusal.
func (s *Session) try(data []byte, request *gosnmp.SnmpPacket) (*gosnmp.SnmpPacket, error) {
	if err := s.conn.SetDeadline(time.Now().Add(s.client.Timeout)); err != nil {
		return nil, err
	}
	if _, err := s.conn.Write(data); err != nil {
		return nil, err
	}
	for {
		n, err := s.conn.Read(s.buf)
		if err != nil { // time is up, the session is closed, or nobody listens there
			return nil, err
		}
		answer := decode(s.codec, slices.Clone(s.buf[:n])) // which the values are parts of
		if answer != nil && answer.PDUType == gosnmp.GetResponse && answer.RequestID == request.RequestID &&
			answer.Version == request.Version && answer.Community == request.Community {
			return answer, nil
		}
	}
}

// decode returns nil for what is no SNMP message. The codec panics on some of them.
func decode(codec *gosnmp.GoSNMP, data []byte) (packet *gosnmp.SnmpPacket) {
	defer func() {
		if recover() != nil {
			packet = nil
		}
	}()
	packet, err := codec.SnmpDecodePacket(data)
	if err != nil {
		return nil
	}
	return packet
}

// Row is one object of a column.
type Row struct {
	Index OID
	Value Value
}

// Value is what an agent says of an object.
type Value struct{ raw any }

// Int returns an integer, counter or gauge.
func (v Value) Int() (int64, bool) {
	switch n := v.raw.(type) {
	case int:
		return int64(n), true
	case uint:
		return int64(n), true
	case uint32:
		return int64(n), true
	}
	return 0, false
}

// Bytes returns an octet string.
func (v Value) Bytes() ([]byte, bool) {
	b, ok := v.raw.([]byte)
	return b, ok
}

// OID returns an object identifier.
func (v Value) OID() (string, bool) {
	s, ok := v.raw.(string)
	return s, ok
}

func null(o OID) []gosnmp.SnmpPDU {
	return []gosnmp.SnmpPDU{{Name: o.String(), Type: gosnmp.Null}}
}

// Get reads one object.
func (s *Session) Get(ctx context.Context, object OID) (Value, error) {
	answer, err := s.exchange(ctx, &gosnmp.SnmpPacket{PDUType: gosnmp.GetRequest, Variables: null(object)})
	if err != nil {
		return Value{}, err
	}
	return single(answer, object)
}

func single(answer *gosnmp.SnmpPacket, object OID) (Value, error) {
	switch {
	case answer.Error == gosnmp.NoSuchName:
		return Value{}, ErrNoSuchObject
	case answer.Error != gosnmp.NoError:
		return Value{}, fmt.Errorf("the switch answers %s", answer.Error)
	case len(answer.Variables) != 1:
		return Value{}, fmt.Errorf("the switch answers %d values to a question of one", len(answer.Variables))
	}
	v := answer.Variables[0]
	if name, ok := parseOID(v.Name); !ok || name.compare(object) != 0 {
		return Value{}, errors.New("the switch answers another question")
	}
	switch v.Type {
	case gosnmp.NoSuchObject, gosnmp.NoSuchInstance, gosnmp.EndOfMibView:
		return Value{}, ErrNoSuchObject
	}
	return Value{v.Value}, nil
}

// Set writes an integer.
func (s *Session) Set(ctx context.Context, object OID, value int) error {
	answer, err := s.exchange(ctx, &gosnmp.SnmpPacket{
		PDUType:   gosnmp.SetRequest,
		Variables: []gosnmp.SnmpPDU{{Name: object.String(), Type: gosnmp.Integer, Value: value}},
	})
	if err != nil {
		return err
	}
	_, err = single(answer, object)
	return err
}

// Walk reads the objects below a column, in order. A column without any is an error,
// ErrNoSuchObject, unless the agent (v2c) knows it.
func (s *Session) Walk(ctx context.Context, column OID) ([]Row, error) {
	var rows []Row
	last, size := column, 0
	for {
		found, more, err := s.next(ctx, column, last)
		if err != nil {
			return nil, err
		}
		for _, row := range found {
			size += 4*len(row.Index) + 32
			if b, ok := row.Value.Bytes(); ok {
				size += len(b)
			}
			rows = append(rows, row)
		}
		if len(rows) > maxRows || size > maxBytes {
			return nil, fmt.Errorf("the switch has too many objects below %s", column)
		}
		if !more {
			break
		}
		last = column.with(rows[len(rows)-1].Index...)
	}
	if len(rows) == 0 {
		return nil, s.known(ctx, column)
	}
	return rows, nil
}

// next reads what follows an object in a column, and tells whether there may be more.
func (s *Session) next(ctx context.Context, column, last OID) (rows []Row, more bool, err error) {
	request := &gosnmp.SnmpPacket{PDUType: gosnmp.GetNextRequest, Variables: null(last)}
	if s.bulk > 0 {
		request.PDUType, request.MaxRepetitions = gosnmp.GetBulkRequest, s.bulk
	}
	answer, err := s.exchange(ctx, request)
	switch {
	case err != nil:
		return nil, false, err
	case answer.Error == gosnmp.NoSuchName: // v1: the end of all
		return nil, false, nil
	case answer.Error != gosnmp.NoError && s.bulk > 0: // TooBig, or an agent that has no GETBULK
		s.bulk /= 5
		return s.next(ctx, column, last)
	case answer.Error != gosnmp.NoError:
		return nil, false, fmt.Errorf("the switch answers %s", answer.Error)
	case len(answer.Variables) == 0:
		return nil, false, errors.New("the switch answers nothing")
	}
	for _, v := range answer.Variables {
		switch v.Type {
		case gosnmp.EndOfMibView, gosnmp.NoSuchObject, gosnmp.NoSuchInstance:
			return rows, false, nil
		}
		name, ok := parseOID(v.Name)
		if !ok {
			return nil, false, errors.New("the switch answers an object without a valid name")
		}
		index, below := name.below(column)
		if !below {
			return rows, false, nil
		}
		if name.compare(last) <= 0 {
			return nil, false, errors.New("the objects of the switch do not increase")
		}
		rows, last = append(rows, Row{index, Value{v.Value}}), name
	}
	return rows, true, nil
}

// known tells whether an agent has an empty column: v2c says NoSuchInstance of it.
func (s *Session) known(ctx context.Context, column OID) error {
	answer, err := s.exchange(ctx, &gosnmp.SnmpPacket{PDUType: gosnmp.GetRequest, Variables: null(column)})
	if err != nil {
		return err
	}
	if answer.Error == gosnmp.NoError && len(answer.Variables) == 1 && answer.Variables[0].Type == gosnmp.NoSuchInstance {
		return nil
	}
	return ErrNoSuchObject
}
