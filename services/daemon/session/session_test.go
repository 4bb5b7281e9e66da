package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/metrics"
	"github.com/waltos/waltos/services/wire/pickle"
)

type backend func(ctx context.Context, s *Session, method string, args pickle.Tuple, kwargs *pickle.Dict) (any, error)

func (f backend) Call(ctx context.Context, s *Session, method string, args pickle.Tuple, kwargs *pickle.Dict) (any, error) {
	return f(ctx, s, method, args, kwargs)
}

// start runs a server-main and returns the path of its socket and a function that
// ends it.
func start(t testing.TB, b Backend) (string, func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "main.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- Serve(ctx, ln, b) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-over; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return path, stop
}

func dial(t testing.TB, path string, cb Callback) *Link {
	l := Dial(path, cb, metrics.New("test"))
	t.Cleanup(l.Close)
	return l
}

func result(t *testing.T, message []byte, err error) any {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	v, err := pickle.Unmarshal(message, forwarded)
	if err != nil {
		t.Fatal(err)
	}
	return v.(pickle.Tuple)[1]
}

func TestCallAndCallback(t *testing.T) {
	path, _ := start(t, backend(func(ctx context.Context, s *Session, method string, args pickle.Tuple, kwargs *pickle.Dict) (any, error) {
		switch method {
		case "greet":
			name, err := s.Callback(ctx, "get_username")
			if err != nil {
				return nil, err
			}
			greeting, _ := kwargs.Get("greeting")
			count, _ := s.Attached("count").(int)
			s.Attach("count", count+1)
			return pickle.Tuple{greeting, name, args[0], s.API, s.Peer.String(), count}, nil
		case "unsendable":
			return struct{}{}, nil
		}
		return nil, fmt.Errorf("unknown method %s", method)
	}))
	l := dial(t, path, func(_ context.Context, session, call uint64, message []byte) ([]byte, error) {
		v, err := pickle.Unmarshal(message, forwarded)
		if err != nil {
			return nil, err
		}
		m := v.(pickle.Tuple)
		if session != 5 || call != 9 || m[0] != "API_CALL" || m[1] != "get_username" || len(m[2].(pickle.Tuple)) != 0 || m[3].(*pickle.Dict).Len() != 0 {
			return nil, fmt.Errorf("unexpected callback %v of session %d, call %d", m, session, call)
		}
		return pickle.Marshal("alice")
	})
	call := Call{Session: 5, API: "CSAPI", Peer: netip.MustParseAddr("192.0.2.1"), ID: 9, Method: "greet", Args: pickle.Tuple{"x"}, Kwargs: pickle.NewDict("greeting", "hello")}
	for count := range 2 {
		message, err := l.Call(t.Context(), &call)
		if got, want := fmt.Sprint(result(t, message, err)), fmt.Sprintf("[hello alice x CSAPI 192.0.2.1 %d]", count); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for method, want := range map[string]string{"unsendable": "no Python form", "none": "unknown method none"} {
		call.Method = method
		_, err := l.Call(t.Context(), &call)
		var remote *connector.Error
		if !errors.As(err, &remote) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", method, err)
		}
	}
	call.Session, call.API, call.Method = 6, "NSAPI", "greet"
	if _, err := l.Call(t.Context(), &call); err == nil || !strings.Contains(err.Error(), "only users") {
		t.Errorf("callback to a node: %v", err)
	}
}

// TestCN04CallbacksOfTheCatalogue: what clients would evaluate, or do not expose to the
// server, is not sent.
func TestCN04CallbacksOfTheCatalogue(t *testing.T) {
	path, _ := start(t, backend(func(ctx context.Context, s *Session, method string, _ pickle.Tuple, _ *pickle.Dict) (any, error) {
		return s.Callback(ctx, method)
	}))
	l := dial(t, path, func(context.Context, uint64, uint64, []byte) ([]byte, error) { return pickle.Marshal("answered") })
	for callback, sent := range map[string]bool{
		"stdout.write": true, "filesystem.get_completions": true, "has_hook": true,
		"stdout.x[__import__('os')]": false, "x[0]": false, "stdout": false, "stdin.readline": false, "set_config": false, "__class__": false, "": false,
	} {
		message, err := l.Call(t.Context(), &Call{Session: 1, API: "CSAPI", ID: 1, Method: callback})
		if sent {
			if got := result(t, message, err); got != "answered" {
				t.Errorf("%s: got %v", callback, got)
			}
		} else if err == nil || !strings.Contains(err.Error(), "clients have no such callback") {
			t.Errorf("%q: got %v", callback, err)
		}
	}
	if len(callbacks) != 18 { // client-api 6.3
		t.Errorf("%d callbacks", len(callbacks))
	}
}

func TestEndOfSession(t *testing.T) {
	sessions := make(chan *Session, 10)
	ended := make(chan error, 10)
	path, _ := start(t, backend(func(ctx context.Context, s *Session, method string, _ pickle.Tuple, _ *pickle.Dict) (any, error) {
		sessions <- s
		if method == "wait" {
			<-ctx.Done()
			_, err := s.Callback(context.WithoutCancel(ctx), "stdout.write", "late")
			ended <- err
		}
		return nil, nil
	}))
	gone := func(context.Context, uint64, uint64, []byte) ([]byte, error) { return nil, ErrGone }
	l := dial(t, path, gone)
	// A call in flight, whose client disconnects.
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error)
	go func() {
		_, err := l.Call(ctx, &Call{Session: 1, API: "CSAPI", ID: 1, Method: "wait"})
		over <- err
	}()
	s := <-sessions
	cancel()
	<-over
	if err := <-ended; !errors.Is(err, ErrGone) {
		t.Errorf("callback after the end: %v", err)
	}
	if s.Context().Err() != nil {
		t.Error("the session ended with its call")
	}
	l.End(1)
	<-s.Context().Done()
	// The hub goes away.
	if _, err := l.Call(t.Context(), &Call{Session: 1, API: "CSAPI", ID: 1, Method: "now"}); err != nil {
		t.Fatal(err)
	}
	again := <-sessions
	if again == s {
		t.Error("an ended session came back")
	}
	l.Close()
	<-again.Context().Done()
	if _, err := again.Callback(context.Background(), "stdout.write", "x"); !errors.Is(err, ErrGone) {
		t.Errorf("callback after the end of the hub: %v", err)
	}
}

func TestMainDies(t *testing.T) {
	started := make(chan bool)
	path, stop := start(t, backend(func(ctx context.Context, _ *Session, _ string, _ pickle.Tuple, _ *pickle.Dict) (any, error) {
		close(started)
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	l := dial(t, path, nil)
	over := make(chan error)
	go func() {
		_, err := l.Call(t.Context(), &Call{Session: 1, ID: 1, Method: "wait"})
		over <- err
	}()
	<-started
	stop()
	if err := <-over; !errors.Is(err, connector.ErrPeerLost) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkCall(b *testing.B) {
	path, _ := start(b, backend(func(context.Context, *Session, string, pickle.Tuple, *pickle.Dict) (any, error) {
		return 1718000000, nil
	}))
	l := dial(b, path, nil)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := l.Call(context.Background(), &Call{Session: 1, API: "NSAPI", ID: 1, Method: "get_time", Kwargs: &pickle.Dict{}}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// CN-04: a client evaluates what is in brackets, so that no such path is sent.
func TestCN04PathsOfCallbacksArePlain(t *testing.T) {
	path, _ := start(t, backend(func(ctx context.Context, s *Session, _ string, args pickle.Tuple, _ *pickle.Dict) (any, error) {
		return s.Callback(ctx, args[0].(string))
	}))
	sent := 0
	l := dial(t, path, func(context.Context, uint64, uint64, []byte) ([]byte, error) {
		sent++
		return pickle.Marshal(nil)
	})
	for callback, plain := range map[string]bool{"stdout.write": true, "x[__import__('os').getpid()]": false, "x]": false, "a[0].b": false} {
		before := sent
		_, err := l.Call(t.Context(), &Call{Session: 1, API: "CSAPI", ID: 1, Method: "m", Args: pickle.Tuple{callback}})
		if (err == nil) != plain || (sent > before) != plain {
			t.Errorf("%s: sent %v, %v", callback, sent > before, err)
		}
	}
}
