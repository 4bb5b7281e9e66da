// Package selfcheck lets a service be its own client, as the proof of life that its
// supervisor wants: the connection comes to the loop that accepts those of others, and is
// served like them. What hangs there hangs for the check, too, which a ticker would not see.
package selfcheck

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/metrics"
)

// Listener accepts the connections of another listener, and those of the process itself: the
// socket may be one that its own user may not connect to.
type Listener struct {
	net.Listener
	accepted chan accepted
	closed   chan struct{}
	close    func() error // once
}

type accepted struct {
	conn net.Conn
	err  error
}

// New returns a listener that takes the place of another.
func New(ln net.Listener) *Listener {
	l := &Listener{Listener: ln, accepted: make(chan accepted), closed: make(chan struct{})}
	l.close = sync.OnceValue(func() error {
		close(l.closed)
		return ln.Close()
	})
	go l.run()
	return l
}

func (l *Listener) run() {
	for l.pass(l.Listener.Accept()) {
	}
}

// pass hands something to Accept, and tells whether it has been taken.
func (l *Listener) pass(conn net.Conn, err error) bool {
	select {
	case l.accepted <- accepted{conn, err}:
		return true
	case <-l.closed:
		if conn != nil {
			conn.Close()
		}
		return false
	}
}

// Accept waits for the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case a := <-l.accepted:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends both listeners.
func (l *Listener) Close() error { return l.close() }

// Dial connects to whoever accepts.
func (l *Listener) Dial(ctx context.Context) (net.Conn, error) {
	ends, err := pair()
	if err != nil {
		return nil, fmt.Errorf("cannot connect to this process: %w", err)
	}
	select {
	case l.accepted <- accepted{conn: ends[0]}:
		return ends[1], nil
	case <-l.closed:
		err = net.ErrClosed
	case <-ctx.Done():
		err = ctx.Err()
	}
	ends[0].Close()
	ends[1].Close()
	return nil, fmt.Errorf("cannot connect to this process: %w", err)
}

// pair returns the ends of a connection that the kernel carries.
func pair() (ends [2]net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return ends, err
	}
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "selfcheck")
		conn, connErr := net.FileConn(file)
		file.Close()
		if connErr != nil {
			err = connErr
			continue
		}
		ends[i] = conn
	}
	if err != nil {
		for _, conn := range ends {
			if conn != nil {
				conn.Close()
			}
		}
	}
	return ends, err
}

// Answers makes the call that every process of the daemon serves: for what it measures.
func (l *Listener) Answers(ctx context.Context) error {
	conn, err := l.Dial(ctx)
	if err != nil {
		return err
	}
	peer := connector.NewPeer(conn, nil)
	served := make(chan error, 1)
	go func() { served <- peer.Serve(ctx) }()
	_, err = metrics.Ask(ctx, peer)
	peer.Close()
	<-served
	if err != nil {
		return fmt.Errorf("cannot get an answer from this process: %w", err)
	}
	return nil
}
