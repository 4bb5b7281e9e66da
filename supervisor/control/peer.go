package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Listen makes the socket.
func Listen(path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("cannot open control socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot open control socket: %w", err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("cannot open control socket: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		ln.Close()
		return nil, fmt.Errorf("cannot open control socket: %w", err)
	}
	return ln, nil
}

// maxOthers is how many connections those who are not root may hold together.
const maxOthers = 16

// door lets in who the kernel can name.
type door struct {
	*net.UnixListener

	mu     sync.Mutex
	others int
}

// guest is a connection and who is at its other end.
type guest struct {
	*net.UnixConn
	user  uint32
	leave func()
}

func (g *guest) Close() error {
	g.leave()
	return g.UnixConn.Close()
}

// root tells whether the guest may do everything: root, and who runs the supervisor.
func (g *guest) root() bool { return g.user == 0 || int(g.user) == os.Getuid() }

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	for {
		conn, err := d.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err != nil {
			// Out of descriptors or memory: the next client may be luckier.
			time.Sleep(100 * time.Millisecond)
			continue
		}
		user, err := peer(conn)
		g := &guest{UnixConn: conn, user: user}
		if err != nil || !d.enter(g) {
			conn.Close()
			continue
		}
		return g, nil
	}
}

func (d *door) enter(g *guest) bool {
	if g.root() {
		g.leave = func() {}
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.others == maxOthers {
		return false
	}
	d.others++
	g.leave = sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.others--
	})
	return true
}

// peer asks the kernel which user is at the other end.
func peer(conn *net.UnixConn) (user uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("cannot identify the client: %w", err)
	}
	var credentials *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) {
		credentials, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, fmt.Errorf("cannot identify the client: %w", err)
	}
	if peerErr != nil {
		return 0, fmt.Errorf("cannot identify the client: %w", peerErr)
	}
	return credentials.Uid, nil
}

type guestKey struct{}

// introduce keeps the guest with the context of its requests.
func introduce(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, guestKey{}, conn)
}

func guestOf(ctx context.Context) *guest { return ctx.Value(guestKey{}).(*guest) }
