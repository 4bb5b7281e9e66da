package selfcheck

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/metrics"
)

func listen(t *testing.T) *Listener {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	l := New(ln)
	t.Cleanup(func() { l.Close() })
	return l
}

// TestBothKindsOfClients: one loop accepts strangers and the process itself.
func TestBothKindsOfClients(t *testing.T) {
	l := listen(t)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "hello")
			conn.Close()
		}
	}()
	for what, dial := range map[string]func() (net.Conn, error){
		"stranger": func() (net.Conn, error) { return net.Dial("unix", l.Addr().String()) },
		"itself":   func() (net.Conn, error) { return l.Dial(t.Context()) },
	} {
		conn, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(conn); string(text) != "hello" {
			t.Errorf("%s got %q, %v", what, text, err)
		}
		conn.Close()
	}
}

// TestHangs: a loop that accepts nothing, one that has ended, and a call that takes a lock
// which is never given back are no life.
func TestHangs(t *testing.T) {
	l := listen(t)
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Dial(short); !errors.Is(err, context.Canceled) {
		t.Errorf("a loop that accepts nothing: %v", err)
	}
	var lock sync.Mutex
	asked := make(chan bool, 1)
	set := metrics.New("test")
	set.Func(func() []metrics.Family {
		asked <- true
		lock.Lock()
		defer lock.Unlock()
		return nil
	})
	served, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- connector.Listen(served, l, metrics.Handler(set, nil)) }()
	if err := l.Answers(t.Context()); err != nil {
		t.Errorf("of a process that works: %v", err)
	}
	<-asked
	lock.Lock()
	hung, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if l.Answers(hung) == nil {
		t.Error("a process that hangs has answered")
	}
	lock.Unlock()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := l.Answers(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("of a process that has stopped: %v", err)
	}
}
