// Package session carries API sessions (client-api 1.6) between server-hub, which
// speaks with clients, and server-main, which serves their calls.
//
// A session is one connection of a client. server-main learns of it by its first
// call, and forgets it when the client has gone or when server-hub has: its context
// ends, and every callback fails with ErrGone. Calls and values travel as the pickles
// of the API itself, written anew by server-hub, and decoded again here with limits.
package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/wire/pickle"
)

// ErrGone is the error of a callback to a client that has disconnected.
var ErrGone = errors.New("the client has disconnected")

// Backend serves the calls of sessions.
type Backend interface {
	// Call serves one call. Its context ends when the client disconnects. Calls of one
	// session may overlap when a callback makes the client call again, and when the
	// client gave up waiting for the previous one. An error, or a panic, is told to
	// the client as an EXCEPTION.
	Call(ctx context.Context, s *Session, method string, args pickle.Tuple, kwargs *pickle.Dict) (any, error)
}

// Quick is what a Backend may know besides: which calls are over in less time than a
// goroutine takes to start. Their context is that of the session.
type Quick interface {
	// Quick tells whether a call of that method neither waits nor calls the client back.
	Quick(api, method string) bool
}

// Session is one connection of a client.
type Session struct {
	ID   uint64     // unique for one life of server-hub
	API  string     // "CSAPI", "NSAPI", "VSAPI" or "SSAPI"
	Peer netip.Addr // address of the client

	ctx    context.Context
	cancel context.CancelFunc
	hub    *connector.Peer

	mu       sync.Mutex
	calls    []uint64 // pending, oldest first
	attached map[any]any
}

// Context ends when the client disconnects.
func (s *Session) Context() context.Context { return s.ctx }

// Attach keeps a value with the session, for as long as the session lasts.
func (s *Session) Attach(key, value any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attached == nil {
		s.attached = map[any]any{}
	}
	s.attached[key] = value
}

// Attached returns what was attached with that key, or nil.
func (s *Session) Attached(key any) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attached[key]
}

// callbacks are the methods of clients that a server may call (client-api 1.5). Any other
// path ends the client, and parts of some would be evaluated by it.
var callbacks = map[string]bool{
	"get_username": true, "get_client_type": true,
	"stdout.write": true, "stdout.flush": true, "stdout.isatty": true, "stdout.get_encoding": true,
	"stderr.write": true, "stderr.flush": true,
	"set_busy_label": true, "set_default_busy_label": true,
	"has_hook": true, "get_hard_reboot_method_name": true, "hard_reboot_nodes": true,
	"get_registry_encrypted_credentials": true, "get_registry_username": true, "prompt_missing_registry_credentials": true,
	"filesystem.get_file_type": true, "filesystem.get_completions": true,
}

// Callback calls a method of the client (client-api 1.5), such as "stdout.write", and
// returns its result. ctx should be that of the call being served, or come from it:
// it tells for which of nested calls the callback is. Callbacks of one call are sent
// one after the other, whoever makes them.
func (s *Session) Callback(ctx context.Context, path string, args ...any) (any, error) {
	if s.API != "CSAPI" {
		return nil, fmt.Errorf("cannot call back %s: only users can be called back", path)
	}
	if !callbacks[path] {
		return nil, fmt.Errorf("cannot call back %q: clients have no such callback", path)
	}
	message, err := pickle.Marshal(pickle.Tuple{"API_CALL", path, pickle.Tuple(args), &pickle.Dict{}})
	if err != nil {
		return nil, fmt.Errorf("cannot call back %s: %w", path, err)
	}
	request := callbackRequest{Session: s.ID, Call: s.callOf(ctx), Message: message}
	var reply callbackReply
	err = s.hub.Call(ctx, methodCallback, &request, &reply)
	switch {
	case s.ctx.Err() != nil || errors.Is(err, connector.ErrPeerLost) || reply.Gone:
		return nil, ErrGone
	case err != nil:
		return nil, fmt.Errorf("cannot call back %s: %w", path, err)
	}
	v, err := pickle.Unmarshal(reply.Value, forwarded)
	if err != nil {
		return nil, fmt.Errorf("cannot call back %s: %w", path, err)
	}
	return v, nil
}

// callKey is the context key of the number of the call being served.
type callKey struct{}

// callOf returns the call that a context belongs to, else the latest one.
func (s *Session) callOf(ctx context.Context) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id, ok := ctx.Value(callKey{}).(uint64); ok && slices.Contains(s.calls, id) {
		return id
	}
	if n := len(s.calls); n > 0 {
		return s.calls[n-1]
	}
	return 0
}

func (s *Session) begin(call uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
}

func (s *Session) end(call uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.calls, call); i >= 0 {
		s.calls = slices.Delete(s.calls, i, i+1)
	}
}

// Serve serves the sessions that server-hub has with its clients, on its connections
// to ln, until ctx ends.
func Serve(ctx context.Context, ln net.Listener, b Backend) error {
	srv := &server{backend: b, hubs: map[*connector.Peer]map[uint64]*Session{}}
	srv.quick, _ = b.(Quick)
	return connector.ListenInline(ctx, ln, srv.handle, srv.inline)
}

type server struct {
	backend Backend
	quick   Quick // may be nil
	mu      sync.Mutex
	hubs    map[*connector.Peer]map[uint64]*Session
}

func (srv *server) handle(ctx context.Context, hub *connector.Peer, method string, body []byte) (any, error) {
	switch method {
	case methodCall:
		request, err := parseCall(body)
		if err != nil {
			return nil, err
		}
		return srv.call(ctx, hub, &request)
	case methodEnd:
		var id uint64
		if err := connector.Decode(body, &id); err != nil {
			return nil, err
		}
		srv.end(hub, id)
		return nil, nil
	case methodHello:
		if greeter, ok := srv.backend.(Greeter); ok {
			greeter.Greet(hub)
		}
		return nil, nil
	}
	return nil, fmt.Errorf("server-main has no method %q", method)
}

// inline serves the quick calls.
func (srv *server) inline(hub *connector.Peer, method string, body, buf []byte) (reply []byte, served bool, err error) {
	if srv.quick == nil || method != methodCall {
		return nil, false, nil
	}
	request, err := parseCall(body)
	if err != nil || !srv.quick.Quick(string(request.api), string(request.method)) {
		return nil, false, nil
	}
	args, kwargs, err := request.arguments()
	if err != nil {
		return nil, true, err
	}
	s, err := srv.session(hub.Context(), hub, &request)
	if err != nil {
		return nil, true, err
	}
	result, err := srv.backend.Call(s.ctx, s, string(request.method), args, kwargs)
	if err != nil {
		return nil, true, err
	}
	reply, err = pickle.AppendPair(buf, "RESULT", result)
	return reply, true, err
}

func (r *callRequest) arguments() (pickle.Tuple, *pickle.Dict, error) {
	v, err := pickle.Unmarshal(r.args, forwarded)
	if err != nil {
		return nil, nil, err
	}
	pair, _ := v.(pickle.Tuple)
	if len(pair) != 2 {
		return nil, nil, errRequest
	}
	args, _ := pair[0].(pickle.Tuple)
	kwargs, _ := pair[1].(*pickle.Dict)
	return args, kwargs, nil
}

func (srv *server) call(ctx context.Context, hub *connector.Peer, request *callRequest) (any, error) {
	args, kwargs, err := request.arguments()
	if err != nil {
		return nil, err
	}
	s, err := srv.session(ctx, hub, request)
	if err != nil {
		return nil, err
	}
	s.begin(request.id)
	defer s.end(request.id)
	method := string(request.method)
	result, err := srv.backend.Call(context.WithValue(ctx, callKey{}, request.id), s, method, args, kwargs)
	if err != nil {
		return nil, err
	}
	message, err := pickle.AppendPair(nil, "RESULT", result)
	if err != nil {
		return nil, fmt.Errorf("cannot send the result of %s: %w", method, err)
	}
	return connector.Raw(message), nil
}

// session returns the session of a call, which may be its first.
func (srv *server) session(ctx context.Context, hub *connector.Peer, request *callRequest) (*Session, error) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	// When the client has gone, server-hub cancels its calls before it ends the session.
	if ctx.Err() != nil {
		return nil, ErrGone
	}
	sessions := srv.hubs[hub]
	if sessions == nil {
		sessions = map[uint64]*Session{}
		srv.hubs[hub] = sessions
		context.AfterFunc(hub.Context(), func() { srv.forget(hub) })
	}
	s := sessions[request.session]
	if s == nil {
		s = &Session{ID: request.session, API: string(request.api), Peer: request.address(), hub: hub}
		s.ctx, s.cancel = context.WithCancel(hub.Context())
		sessions[s.ID] = s
	}
	return s, nil
}

func (srv *server) end(hub *connector.Peer, id uint64) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if s := srv.hubs[hub][id]; s != nil {
		s.cancel()
		delete(srv.hubs[hub], id)
	}
}

// forget drops the sessions of a server-hub that went away; their contexts ended with
// its own.
func (srv *server) forget(hub *connector.Peer) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for _, s := range srv.hubs[hub] {
		s.cancel()
	}
	delete(srv.hubs, hub)
}
