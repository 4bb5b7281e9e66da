package state

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/daemon/trackexec"
	"github.com/waltos/waltos/services/metrics"
)

// Methods of this protocol, over services/daemon/connector. A snapshot travels as the
// JSON that the cache file holds too.
const (
	methodWatch    = "watch"    // to server-main, notification: send snapshots from now on
	methodSnapshot = "snapshot" // from server-main, notification: []byte
	methodRegister = "register" // to server-main: Registration; answer: a version
)

var errUnknownMethod = errors.New("no such method")

// Serve answers the watchers that connect to ln, until ctx ends.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return connector.Listen(ctx, ln, trackexec.From(ctx).Handler(trackexec.Request, s.handle))
}

func (s *Server) handle(ctx context.Context, p *connector.Peer, method string, body []byte) (any, error) {
	switch method {
	case methodWatch:
		s.watch(p)
		go func() { // ends with the connection
			defer s.unwatch(p)
			s.push(p)
			<-p.Done()
		}()
		return nil, nil
	case methodRegister:
		var r Registration
		if err := connector.Decode(body, &r); err != nil {
			return nil, fmt.Errorf("cannot decode registration: %w", err)
		}
		if err := s.registrar.Register(ctx, r); err != nil {
			return nil, err
		}
		version, _, _ := s.current()
		return version, nil
	}
	if f := s.methods[method]; f != nil {
		return f(ctx, func(v any) error { return connector.Decode(body, v) })
	}
	if f := s.streams[method]; f != nil {
		return nil, serveStream(ctx, p, f, body)
	}
	return nil, fmt.Errorf("cannot call %q: %w", method, errUnknownMethod)
}

// push sends every snapshot to one watcher, from the present one on.
func (s *Server) push(p *connector.Peer) {
	for sent := uint64(0); ; {
		version, encoded, changed := s.current()
		if version != sent {
			if err := p.Notify(methodSnapshot, encoded); err != nil {
				if !errors.Is(err, connector.ErrPeerLost) {
					log.Printf("cannot push the state: %v", err)
				}
				return
			}
			sent = version
		}
		select {
		case <-changed:
		case <-p.Done():
			return
		}
	}
}

// connect keeps w up to date from the server at socket.
func connect(socket string, w *Watcher) remote {
	unknown := func(_ context.Context, _ *connector.Peer, method string, _ []byte) (any, error) {
		return nil, fmt.Errorf("cannot call %q: %w", method, errUnknownMethod)
	}
	client := connector.Dial(socket, func(ctx context.Context, p *connector.Peer, method string, body []byte) (any, error) {
		switch method {
		case methodPart:
			return nil, w.streams.part(body)
		case methodSnapshot:
		default:
			if set := w.measures.Load(); set != nil {
				return metrics.Handler(set, unknown)(ctx, p, method, body)
			}
			return unknown(ctx, p, method, body)
		}
		var encoded []byte
		if err := connector.Decode(body, &encoded); err != nil {
			return nil, fmt.Errorf("cannot decode the state: %w", err)
		}
		if err := w.accept(encoded); err != nil {
			log.Printf("state: %v", err)
		}
		return nil, nil
	})
	client.OnConnect(func(p *connector.Peer) {
		w.connections.Add(1)
		// An error means that the connection is lost: there will be another one.
		_ = p.Notify(methodWatch, nil)
	})
	return client
}
