// Package client speaks the client side of a WalT server's two TCP ports, in the place of
// the walt command and of nodes: for tools, tests and benchmarks.
//
// On 12345, a [Session] calls methods of the server and serves its callbacks (client-api
// 1): [Dial], [Session.Call], [User]. On 12347 (client-api 3, node-protocols 3), users read
// log lines ([DumpLogs]), run commands ([Prompt]), copy files as tar archives ([Transfer])
// and reach ports of nodes ([DialNode]); nodes send log lines ([OpenLogs]), say that they
// are booted ([NotifyBoot]) and get their boot files ([BootFile]). [DialStream] opens any
// other stream.
//
// It is bounded like the server, but trusts what the server sends to be well meant: an
// answer may be as large as 64 MiB.
package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/services/wire/rpc"
)

// limits are those of what a server sends.
var limits = pickle.Limits{Size: 64 << 20, Depth: 100, Values: 4 << 20, Datetime: true}

// Exception is what the server answers to a call that failed.
type Exception struct{ Text string }

func (e *Exception) Error() string { return e.Text }

// Handler serves the callbacks of the server. It may call s, within the callback.
type Handler func(ctx context.Context, s *Session, path string, args pickle.Tuple, kwargs *pickle.Dict) (any, error)

// Options say how to open a session.
type Options struct {
	API     string   // default "CSAPI"
	Mode    rpc.Mode // default rpc.Pickle
	Handler Handler  // default: that of the zero User
}

// Session is an API session. It serves one caller at a time, besides the nested calls
// of its handler.
type Session struct {
	Version string // of the server

	conn    net.Conn
	mode    rpc.Mode
	codec   *rpc.Codec
	handler Handler

	bound  context.Context // makes the connection fail when it ends
	unbind func() bool
	cut    chan struct{} // closed once bound has done so
}

// Dial opens an API session with the server at an address "host:port".
func Dial(ctx context.Context, address string, o Options) (*Session, error) {
	if o.API == "" {
		o.API = "CSAPI"
	}
	if o.Mode == "" {
		o.Mode = rpc.Pickle
	}
	if o.Handler == nil {
		o.Handler = (&User{}).Serve
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot open API session: %w", err)
	}
	s := &Session{conn: conn, mode: rpc.Lines, handler: o.Handler}
	if err := s.open(ctx, o); err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot open API session with %s: %w", address, err)
	}
	return s, nil
}

func (s *Session) open(ctx context.Context, o Options) error {
	s.bind(ctx)
	if _, err := fmt.Fprintf(s.conn, "%d\n%s\n", rpc.APISession, o.API); err != nil {
		return err
	}
	r := bufio.NewReaderSize(s.conn, 32<<10)
	version, err := rpc.ReadLine(r, 100)
	if err != nil {
		return fmt.Errorf("no version: %w", err)
	}
	s.Version = version
	s.codec = rpc.NewCodec(r, s.conn, limits)
	if o.Mode == rpc.Lines {
		return nil
	}
	if err := s.codec.Write(rpc.Lines, rpc.Message{Kind: rpc.SetMode, Name: string(o.Mode)}); err != nil {
		return err
	}
	s.mode = o.Mode
	return s.codec.SetMode(o.Mode)
}

// bind makes the connection fail when ctx ends, until another context is bound: most
// programs make all calls of a session with one.
func (s *Session) bind(ctx context.Context) {
	if s.bound == ctx {
		return
	}
	if s.unbind != nil && !s.unbind() { // it has ended, after the last call
		<-s.cut
		_ = s.conn.SetDeadline(time.Time{})
	}
	cut := make(chan struct{})
	s.bound, s.cut = ctx, cut
	s.unbind = context.AfterFunc(ctx, func() {
		defer close(cut)
		_ = s.conn.SetDeadline(time.Unix(1, 0))
	})
}

// Close ends the session.
func (s *Session) Close() error {
	if s.unbind != nil {
		s.unbind()
	}
	return s.conn.Close()
}

// Call calls a method and returns its result, having served the callbacks that came
// before it. When ctx ends the session is of no more use. The error is an *Exception
// if the server says that the call failed.
func (s *Session) Call(ctx context.Context, method string, args ...any) (any, error) {
	return s.CallKeywords(ctx, method, args, nil)
}

// CallKeywords is Call with keyword arguments.
func (s *Session) CallKeywords(ctx context.Context, method string, args pickle.Tuple, kwargs *pickle.Dict) (any, error) {
	s.bind(ctx)
	v, err := s.call(ctx, method, args, kwargs)
	if err == nil {
		return v, nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	var exception *Exception
	if errors.As(err, &exception) {
		return nil, err
	}
	return nil, fmt.Errorf("cannot call %s: %w", method, err)
}

func (s *Session) call(ctx context.Context, method string, args pickle.Tuple, kwargs *pickle.Dict) (any, error) {
	err := s.codec.Write(s.mode, rpc.Message{Kind: rpc.APICall, Name: method, Args: args, Kwargs: kwargs})
	if err != nil {
		return nil, err
	}
	for {
		m, err := s.codec.Read()
		if err == io.EOF {
			err = errors.New("the server closed the session")
		}
		if err != nil {
			return nil, err
		}
		switch m.Kind {
		case rpc.Result:
			return m.Value, nil
		case rpc.Exception:
			return nil, &Exception{m.Name}
		case rpc.APICall:
			v, err := s.handler(ctx, s, m.Name, m.Args, m.Kwargs)
			if err != nil {
				return nil, fmt.Errorf("callback %s: %w", m.Name, err)
			}
			if err := s.codec.Write(s.mode, rpc.Message{Kind: rpc.Result, Value: v}); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("the server sent a message %s", m.Kind)
		}
	}
}

// User is a person at the walt command: what most callbacks ask about.
type User struct {
	Name     string    // default "user"
	Out, Err io.Writer // default: nowhere
	Terminal bool      // whether Out is one
	Busy     string    // the last busy label

	// Other serves the callbacks about registries, hooks and files; nil: the user has
	// none.
	Other Handler
}

// Serve is a Handler.
func (u *User) Serve(ctx context.Context, s *Session, path string, args pickle.Tuple, kwargs *pickle.Dict) (any, error) {
	text := ""
	if len(args) > 0 {
		text, _ = args[0].(string)
	}
	write := func(w io.Writer) (any, error) {
		if w == nil {
			return nil, nil
		}
		_, err := io.WriteString(w, text)
		return nil, err
	}
	switch path {
	case "get_username":
		if u.Name == "" {
			return "user", nil
		}
		return u.Name, nil
	case "is_alive":
		return true, nil
	case "get_client_type":
		return "cli", nil
	case "stdout.write":
		return write(u.Out)
	case "stderr.write":
		return write(u.Err)
	case "stdout.isatty":
		return u.Terminal, nil
	case "stdout.get_encoding":
		return "utf-8", nil
	case "set_busy_label":
		u.Busy = text
		return nil, nil
	case "stdout.flush", "stderr.flush", "set_default_busy_label":
		return nil, nil
	}
	if u.Other != nil {
		return u.Other(ctx, s, path, args, kwargs)
	}
	switch path {
	case "get_registry_username", "get_registry_encrypted_credentials", "prompt_missing_registry_credentials":
		return nil, nil
	case "has_hook":
		return false, nil
	}
	return nil, fmt.Errorf("the client has no method %q", path)
}
