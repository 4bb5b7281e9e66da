package core

import (
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

	"github.com/waltos/waltos/services/daemon/core/terminal"
	"github.com/waltos/waltos/services/daemon/trackexec"
	"github.com/waltos/waltos/services/internal/quota"
	"github.com/waltos/waltos/services/wire/rpc"
)

// acceptPause is the wait after a connection that could not be accepted.
const acceptPause = 50 * time.Millisecond

// stream is a connection to TCP 12347 whose request line was read.
type stream struct {
	context.Context
	*Daemon
	conn *terminal.Conn // what follows the request line
	peer netip.Addr
}

// request is one kind of stream.
type request struct {
	fromClients bool // serve only peers that may use the client API
	serve       func(s *stream) error
}

// requests are the streams of TCP 12347 (client-api §3.2).
var requests = map[rpc.Request]request{
	rpc.NewIncomingLogs:    {false, func(s *stream) error { s.Logs.ServeIncoming(s, s.conn.TCPConn, s.conn.R); return nil }},
	rpc.DumpLogs:           {true, func(s *stream) error { s.Logs.ServeDump(s, s.conn.TCPConn, s.conn.R); return nil }},
	rpc.SQLPrompt:          {true, (*stream).sqlPrompt},
	rpc.DockerPrompt:       {true, (*stream).imageShell},
	rpc.NodeCmd:            {true, (*stream).nodeCommand},
	rpc.DevicePing:         {true, (*stream).devicePing},
	rpc.TarFromImage:       {true, (*stream).tarFromImage},
	rpc.TarToImage:         {true, (*stream).tarToImage},
	rpc.TarFromNode:        {true, (*stream).tarFromNode},
	rpc.TarToNode:          {true, (*stream).tarToNode},
	rpc.TCPToNode:          {true, (*stream).tcpToNode},
	rpc.FakeTFTPGet:        {false, (*stream).bootFile},
	rpc.VPNNodeImage:       {false, (*stream).vpnNodeImage},
	rpc.NotifyBootupStatus: {false, func(s *stream) error { s.boots.Serve(s, s.conn.TCPConn, s.conn.R); return nil }},
	rpc.DeviceShell:        {true, (*stream).deviceShell},
	rpc.TarForImageBuild:   {true, (*stream).tarForImageBuild},
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
	// Connections that come and go by the thousand would queue for the lock of one context.
	contexts := make([]context.Context, 64)
	for i := range contexts {
		within, cancel := context.WithCancel(ctx)
		defer cancel()
		contexts[i] = within
	}
	for n := 0; ; n++ {
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
			d.serveStream(contexts[n%len(contexts)], conn, peer)
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
	s := &stream{ctx, d, &terminal.Conn{TCPConn: tcp, R: r}, peer}
	if !known || kind.fromClients && !s.mayUseAPI() {
		d.Print("request %v of %v is refused", id, s.peer)
		return
	}
	// A node is told at once that its notification is heard (node-protocols §3.4);
	// everything else concerns known devices.
	if id != rpc.NotifyBootupStatus && d.waitLoaded(ctx) != nil {
		return
	}
	if kind.fromClients { // those of nodes may be handed on to the next life of the daemon
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
	}
	defer d.measures.opened(id)()
	var span trackexec.Span
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

// connectTimeout bounds the wait for a device.
const connectTimeout = 10 * time.Second

// tcpToNode relays a connection to a device (client-api §3.7).
func (s *stream) tcpToNode() error {
	p, err := s.params()
	if err != nil {
		return err
	}
	ip, port := p.text("node_ip"), p.number("node_port")
	device, err := s.dial(ip, port)
	if err != nil {
		_, writeErr := fmt.Fprintf(s.conn, "Could not connect to %s:%d!\n", printable(ip), port)
		return errors.Join(err, writeErr)
	}
	defer device.Close()
	if _, err := io.WriteString(s.conn, "OK\n"); err != nil {
		return err
	}
	relay(s, s.conn, s.conn.R, device)
	return nil
}

// dial connects to a device of the platform.
func (s *stream) dial(ip string, port int64) (net.Conn, error) {
	if port <= 0 || port >= 1<<16 {
		return nil, fmt.Errorf("%d is not a port", port)
	}
	d, err := s.deviceAt(ip)
	if err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(s, connectTimeout)
	defer cancel()
	var dialer net.Dialer
	return dialer.DialContext(within, "tcp", net.JoinHostPort(d.IP, fmt.Sprint(port)))
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
