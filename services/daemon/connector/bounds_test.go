package connector

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// completion is a Completion that tells its test.
type completion chan error

func (c completion) Complete(_ []byte, err error) { c <- err }

// hung returns a peer whose other side reads nothing.
func hung(t *testing.T) *Peer {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	p := NewPeer(conn, nil)
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	running.Go(func() { p.Serve(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return p
}

// A process that hangs makes its callers wait, each as long as it wants, and takes a
// bounded amount of their memory.
func TestHungPeerIsBounded(t *testing.T) {
	p := hung(t)
	message, ended := Raw(make([]byte, 1<<20)), make(completion, 100)
	started := 0
	for ; started < cap(ended); started++ {
		_, err := p.Start("m", message, ended)
		if errors.Is(err, ErrBusy) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	if started == 0 || started > 20 {
		t.Errorf("%d messages of 1 MiB are kept for a process that reads none", started)
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { result <- p.Call(ctx, "m", nil, nil) }()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("a call whose caller gave up: %v", err)
	}
	// Its end is told to all who wait.
	go func() { result <- p.Call(context.Background(), "m", nil, nil) }()
	p.Close()
	for range started {
		if err := <-ended; !errors.Is(err, ErrPeerLost) {
			t.Errorf("a call in flight: %v", err)
		}
	}
	if err := <-result; !errors.Is(err, ErrPeerLost) {
		t.Errorf("a call that was to be sent: %v", err)
	}
	if _, err := p.Start("m", nil, ended); !errors.Is(err, ErrNotSent) {
		t.Errorf("a call afterwards: %v", err)
	}
}

// Calls that are served inline and others mix; each gets its own answer, in the order in
// which they were sent if all are inline.
func TestInline(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	inline := func(_ *Peer, method string, body, buf []byte) ([]byte, bool, error) {
		switch method {
		case "quick":
			order = append(order, string(body))
			return append(buf, body...), true, nil
		case "fails":
			return nil, true, errors.New("cannot: no")
		case "panics":
			panic("oops")
		case "huge":
			return append(buf, make([]byte, MaxFrame+1)...), true, nil
		}
		return nil, false, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error)
	go func() { over <- ListenInline(ctx, ln, echo, inline) }()
	c := Dial(ln.Addr().String(), nil)
	for range 3 {
		var raw Raw
		if err := c.Call(t.Context(), "quick", Raw("a body"), &raw); err != nil || string(raw) != "a body" {
			t.Errorf("quick: %q, %v", raw, err)
		}
		for _, method := range []string{"fails", "panics", "huge"} {
			var told *Error
			if err := c.Call(t.Context(), method, nil, nil); !errors.As(err, &told) {
				t.Errorf("%s: %v", method, err)
			}
		}
		var back string
		if err := c.Call(t.Context(), "slow", "text", &back); err != nil || back != "text" {
			t.Errorf("slow: %q, %v", back, err)
		}
	}
	p, err := c.Peer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const calls = 1000
	order = nil
	ended := make(completion, calls)
	want := make([]string, calls)
	for i := range calls {
		want[i] = string(rune('a' + i%26))
		if _, err := p.Start("quick", Raw(want[i]), ended); err != nil {
			t.Fatal(err)
		}
	}
	for range calls {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	c.Close()
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
	for i := range want {
		if order[i] != want[i] {
			t.Fatalf("call %d was served in the place of %d", i, i)
		}
	}
}

func TestCancelBeforeTheEnd(t *testing.T) {
	started, ended := make(chan bool), make(chan bool)
	l, _ := pair(t, nil, func(ctx context.Context, _ *Peer, _ string, _ []byte) (any, error) {
		started <- true
		<-ctx.Done()
		ended <- true
		return nil, nil
	})
	told := make(completion, 1)
	id, err := l.Start("wait", Raw(null), told)
	if err != nil {
		t.Fatal(err)
	}
	<-started
	if !l.Cancel(id) || l.Cancel(id) {
		t.Error("Cancel does not tell whether it was in time")
	}
	<-ended
	l.Close()
	<-l.Done()
	select {
	case err := <-told:
		t.Errorf("the end of a cancelled call was told: %v", err)
	default:
	}
}
