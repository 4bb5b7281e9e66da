package core

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/waltos/waltos/services/daemon/trackexec"
	"github.com/waltos/waltos/services/internal/quota"
	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/services/wire/rpc"
)

const (
	// paramsTimeout bounds the time that a client may take to say what it wants.
	paramsTimeout = 10 * time.Second
	acceptPause   = 50 * time.Millisecond
)

// paramsLimits bound the parameters of a stream.
var paramsLimits = pickle.Limits{Size: 1 << 20, Depth: 8, Values: 1 << 16}

// stream is a connection to TCP 12347 whose request line was read.
type stream struct {
	context.Context
	*Daemon
	conn *net.TCPConn
	r    *bufio.Reader // what follows the request line
	peer netip.Addr
}

// request is one kind of stream.
type request struct {
	fromClients bool // serve only peers that may use the client API
	serve       func(s *stream) error
}

// requests are the streams of TCP 12347 (client-api §3.2).
var requests = map[rpc.Request]request{
	rpc.NewIncomingLogs:    {false, func(s *stream) error { s.Logs.ServeIncoming(s, s.conn, s.r); return nil }},
	rpc.DumpLogs:           {true, func(s *stream) error { s.Logs.ServeDump(s, s.conn, s.r); return nil }},
	rpc.SQLPrompt:          {true, (*stream).unavailablePrompt},
	rpc.DockerPrompt:       {true, (*stream).unavailablePrompt},
	rpc.NodeCmd:            {true, (*stream).nodeCommand},
	rpc.DevicePing:         {true, (*stream).devicePing},
	rpc.TarFromNode:        {true, (*stream).tarFromNode},
	rpc.TarToNode:          {true, (*stream).tarToNode},
	rpc.TCPToNode:          {true, (*stream).tcpToNode},
	rpc.FakeTFTPGet:        {false, (*stream).bootFile},
	rpc.NotifyBootupStatus: {false, func(s *stream) error { s.boots.Serve(s, s.conn, s.r); return nil }},
	rpc.DeviceShell:        {true, (*stream).deviceShell},
}

// Streams open at the same time, in all and of one address: a node has its status and its
// logs, and many clients may come from one address.
const (
	maxStreams     = 16384
	maxStreamsEach = 1024
)

// ServeStreams serves TCP 12347 until ctx ends.
func (d *Daemon) ServeStreams(ctx context.Context, ln net.Listener) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	held := quota.New(maxStreams, maxStreamsEach)
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("cannot accept streams: %w", err)
		case err != nil: // no descriptor left, or a client that gave up
			d.Print("cannot accept a stream: %v", err)
			time.Sleep(acceptPause)
			continue
		}
		peer := quota.Address(conn.RemoteAddr())
		if !held.Take(peer) {
			d.Print("a stream of %v is refused: too many are open", peer)
			conn.Close()
			continue
		}
		all.Go(func() {
			defer held.Give(peer)
			d.serveStream(ctx, conn, peer)
		})
	}
}

// serveStream serves one connection. Whatever goes wrong concerns it alone.
func (d *Daemon) serveStream(ctx context.Context, conn net.Conn, peer netip.Addr) {
	defer conn.Close()
	defer func() {
		if p := recover(); p != nil {
			d.Print("internal error in a stream: %v\n%s", p, debug.Stack())
		}
	}()
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	id, r, err := rpc.ReadRequest(ctx, conn)
	if err != nil {
		return // not worth a word: anybody may connect
	}
	kind, known := requests[id]
	s := &stream{ctx, d, tcp, r, peer}
	if !known || kind.fromClients && !s.mayUseAPI() {
		d.Print("request %v of %v is refused", id, s.peer)
		return
	}
	// A node is told at once that its notification is heard (node-protocols §3.4);
	// everything else concerns known devices.
	if id != rpc.NotifyBootupStatus && d.waitLoaded(ctx) != nil {
		return
	}
	var span *trackexec.Span
	s.Context, span = trackexec.Begin(ctx, trackexec.Stream, id.String())
	span.Note(peer.String(), -1)
	err = kind.serve(s)
	span.End(err)
	if err != nil && ctx.Err() == nil {
		d.Print("request %v of %v: %v", id, s.peer, err)
	}
}

// mayUseAPI tells whether the peer may use the API of users: the machine itself, and
// where the site file says.
func (s *stream) mayUseAPI() bool {
	own, _ := netip.ParseAddrPort(s.conn.LocalAddr().String())
	if s.peer.IsLoopback() || s.peer == own.Addr().Unmap() {
		return true
	}
	return slices.ContainsFunc(s.Site.Access.Clients, func(text string) bool {
		network, err := netip.ParsePrefix(text)
		return err == nil && network.Contains(s.peer)
	})
}

// params are the parameters of a stream; unknown ones are ignored.
type params struct{ dict *pickle.Dict }

// ready tells the client to send its parameters, and reads them.
func (s *stream) ready() (params, error) {
	if _, err := io.WriteString(s.conn, "READY\n"); err != nil {
		return params{}, fmt.Errorf("cannot answer: %w", err)
	}
	return s.params()
}

func (s *stream) params() (params, error) {
	s.conn.SetReadDeadline(time.Now().Add(paramsTimeout))
	defer s.conn.SetReadDeadline(time.Time{})
	stop := context.AfterFunc(s, func() { s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	value, err := pickle.NewDecoder(s.r, paramsLimits).Decode()
	if err != nil {
		return params{}, fmt.Errorf("cannot read parameters: %w", err)
	}
	dict, ok := value.(*pickle.Dict)
	if !ok {
		return params{}, errors.New("cannot read parameters: they are no dict")
	}
	return params{dict}, nil
}

func (p params) text(key string) string {
	value, _ := p.dict.Get(key)
	s, _ := value.(string)
	return s
}

func (p params) flag(key string) bool {
	value, _ := p.dict.Get(key)
	return value == true
}

func (p params) number(key string) int64 {
	value, _ := p.dict.Get(key)
	n, _ := value.(int64)
	return n
}

func (p params) texts(key string) []string {
	value, _ := p.dict.Get(key)
	list, _ := sequence(value)
	return list
}

var errUnavailable = errors.New("this is not available on this server yet")

// unavailablePrompt says that a prompt is not provided, where the client shows it.
func (s *stream) unavailablePrompt() error {
	if _, err := s.ready(); err != nil {
		return err
	}
	return s.refuse(errUnavailable)
}

// tcpToNode relays a connection to a device (client-api §3.7).
func (s *stream) tcpToNode() error {
	p, err := s.params()
	if err != nil {
		return err
	}
	ip, port := p.text("node_ip"), p.number("node_port")
	target := net.JoinHostPort(ip, fmt.Sprint(port))
	var d net.Dialer
	within, cancel := context.WithTimeout(s, 10*time.Second)
	defer cancel()
	err = fmt.Errorf("no device has address %q", ip)
	var device net.Conn
	if s.registry.View().ByIP(ip) != nil && port > 0 && port < 1<<16 {
		device, err = d.DialContext(within, "tcp", target)
	}
	if err != nil {
		_, writeErr := fmt.Fprintf(s.conn, "Could not connect to %s:%d!\n", printable(ip), port)
		return errors.Join(err, writeErr)
	}
	defer device.Close()
	if _, err := io.WriteString(s.conn, "OK\n"); err != nil {
		return err
	}
	relay(s, s.conn, s.r, device)
	return nil
}

// printable makes a text of a peer safe to show.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return '?'
		}
		return r
	}, text)
}
