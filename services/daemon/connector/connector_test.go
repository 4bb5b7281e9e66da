package connector

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// pair returns two connected peers, which end with the test.
func pair(t testing.TB, left, right Handler) (*Peer, *Peer) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan net.Conn)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- conn
	}()
	conn, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l, r := NewPeer(conn, left), NewPeer(<-accepted, right)
	var running sync.WaitGroup
	for _, p := range []*Peer{l, r} {
		running.Go(func() {
			if err := p.Serve(ctx); err != nil {
				t.Logf("Serve: %v", err)
			}
		})
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	return l, r
}

func echo(_ context.Context, _ *Peer, method string, body []byte) (any, error) {
	switch method {
	case "fail":
		return nil, errors.New("cannot do it: no")
	case "panic":
		panic("oops")
	case "unencodable":
		return make(chan int), nil
	case "huge":
		return make([]byte, MaxFrame+1), nil
	}
	var v any
	if err := Decode(body, &v); err != nil {
		return nil, err
	}
	return v, nil
}

func TestCall(t *testing.T) {
	l, r := pair(t, echo, echo)
	ctx := t.Context()
	type record struct {
		Name string
		Time time.Time
		Data []byte
		Sub  map[string]any
		Opt  *int
	}
	want := record{"n", time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC), []byte{1, 2}, map[string]any{"a": "b"}, nil}
	for _, p := range []*Peer{l, r} {
		var got record
		if err := p.Call(ctx, "echo", want, &got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if err := p.Call(ctx, "echo", nil, nil); err != nil {
			t.Error(err)
		}
		for method, text := range map[string]string{"fail": "cannot do it: no", "panic": "oops", "unencodable": "chan", "huge": "longer than"} {
			err := p.Call(ctx, method, nil, nil)
			var remote *Error
			if !errors.As(err, &remote) || !strings.Contains(remote.Message, text) {
				t.Errorf("%s: got %v", method, err)
			}
		}
		if err := p.Call(ctx, "echo", make([]byte, MaxFrame), nil); err == nil || !strings.Contains(err.Error(), "longer than") {
			t.Errorf("a call that is too long: got %v", err)
		}
		big := bytes.Repeat([]byte("x"), 5<<20)
		var back []byte
		if err := p.Call(ctx, "echo", big, &back); err != nil || !bytes.Equal(big, back) {
			t.Errorf("5 MiB: %v", err)
		}
	}
}

func TestCancellationReachesTheHandler(t *testing.T) {
	started, ended := make(chan bool), make(chan bool)
	l, _ := pair(t, nil, func(ctx context.Context, _ *Peer, _ string, _ []byte) (any, error) {
		started <- true
		<-ctx.Done()
		ended <- true
		return nil, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { result <- l.Call(ctx, "wait", nil, nil) }()
	<-started
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-ended
}

func TestPeerLost(t *testing.T) {
	started, ended := make(chan bool), make(chan bool)
	l, r := pair(t, nil, func(ctx context.Context, _ *Peer, _ string, _ []byte) (any, error) {
		started <- true
		<-ctx.Done()
		ended <- true
		return nil, nil
	})
	result := make(chan error)
	go func() { result <- l.Call(t.Context(), "wait", nil, nil) }()
	<-started
	r.Close()
	if err := <-result; !errors.Is(err, ErrPeerLost) {
		t.Errorf("got %v", err)
	}
	<-ended
	<-l.Done()
	if err := l.Call(t.Context(), "wait", nil, nil); !errors.Is(err, ErrPeerLost) {
		t.Errorf("afterwards: got %v", err)
	}
	if err := l.Notify("n", nil); !errors.Is(err, ErrPeerLost) {
		t.Errorf("notification afterwards: got %v", err)
	}
}

func TestNotificationsInOrder(t *testing.T) {
	const n = 1000
	got := make(chan int, n)
	l, _ := pair(t, nil, func(_ context.Context, _ *Peer, _ string, body []byte) (any, error) {
		var i int
		err := Decode(body, &i)
		got <- i
		return nil, err
	})
	for i := range n {
		if err := l.Notify("n", i); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		if v := <-got; v != i {
			t.Fatalf("got %d, want %d", v, i)
		}
	}
}

func TestCallsBothWaysWithinACall(t *testing.T) {
	l, _ := pair(t, echo, func(ctx context.Context, p *Peer, method string, _ []byte) (any, error) {
		var s string
		err := p.Call(ctx, "echo", "back", &s)
		return method + s, err
	})
	var running sync.WaitGroup
	for range 100 {
		running.Go(func() {
			var s string
			if err := l.Call(t.Context(), "and", nil, &s); err != nil || s != "andback" {
				t.Errorf("got %q, %v", s, err)
			}
		})
	}
	running.Wait()
}

func TestClientReconnects(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	c := Dial(path, nil)
	defer c.Close()
	var connections atomic.Int32
	c.OnConnect(func(p *Peer) {
		if err := p.Call(context.Background(), "hello", nil, nil); err == nil {
			connections.Add(1)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Call(ctx, "x", nil, nil); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), path) {
		t.Errorf("nobody there: got %v", err)
	}
	for life := range int32(3) {
		ctx, stop := context.WithCancel(t.Context())
		ln, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		over := make(chan error)
		hello := make(chan bool, 1)
		go func() {
			over <- Listen(ctx, ln, func(_ context.Context, p *Peer, method string, _ []byte) (any, error) {
				if method == "hello" {
					hello <- true
				}
				if method == "die" {
					p.Close()
				}
				return life, nil
			})
		}()
		var got int32
		err = c.Call(t.Context(), "x", nil, &got)
		for errors.Is(err, ErrPeerLost) { // it was sent to the previous one
			err = c.Call(t.Context(), "x", nil, &got)
		}
		if err != nil || got != life {
			t.Errorf("life %d: got %d, %v", life, got, err)
		}
		<-hello
		if life == 1 {
			if err := c.Call(t.Context(), "die", nil, nil); !errors.Is(err, ErrPeerLost) {
				t.Errorf("call in flight: %v", err)
			}
			<-hello // of the new connection
		}
		stop()
		if err := <-over; err != nil {
			t.Error(err)
		}
	}
}

func TestHostilePeer(t *testing.T) {
	for _, data := range [][]byte{
		{0xff, 0xff, 0xff, 0xff}, {0, 0, 0, 3, 1, 2, 3}, {0, 0, 0, 0}, []byte("GET / HTTP/1.1\r\n\r\n"),
		{0, 0, 0, 4, kindEnd, 1, 0, 0xf6},                // unknown kind
		{0, 0, 0, 4, kindCall, 1, 9, 'm'},                // a text longer than the frame
		bytes.Repeat([]byte{0, 0, 0, 1, kindReply}, 100), // no number
	} {
		ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error)
		go func() { over <- Listen(ctx, ln, echo) }()
		conn, err := net.Dial("unix", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(data)
		if rest, err := io.ReadAll(conn); err != nil && len(rest) > 0 {
			t.Errorf("% x: got % x, %v", data, rest, err)
		}
		conn.Close()
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	}
}

func FuzzFrame(f *testing.F) {
	good, _ := appendFrame(nil, kindCall, 7, "m", Raw{0x01})
	f.Add(good)
	f.Add(append(good, good...))
	f.Add(binary.BigEndian.AppendUint32(nil, MaxFrame))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newReader(bytes.NewReader(data))
		for {
			got, err := r.next()
			if err != nil {
				return
			}
			again, err := appendFrame(nil, got.kind, got.id, got.text, Raw(got.body))
			if err != nil {
				t.Fatal(err)
			}
			if back, err := newReader(bytes.NewReader(again)).next(); err != nil || back.text != got.text || !bytes.Equal(back.body, got.body) {
				t.Fatalf("got %+v, %v; want %+v", back, err, got)
			}
			var v any
			_ = Decode(got.body, &v)
		}
	})
}

func BenchmarkCall(b *testing.B) {
	l, _ := pair(b, nil, echo)
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			b.ReportAllocs()
			var wg sync.WaitGroup
			per := b.N / callers
			for range callers {
				wg.Go(func() {
					for range per + 1 {
						var s string
						if err := l.Call(context.Background(), "echo", "hello", &s); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
		})
	}
}
