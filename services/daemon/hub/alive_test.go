package hub

import (
	"context"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/waltos/waltos/services/internal/quota"
	"github.com/waltos/waltos/services/internal/selfcheck"
)

// TestAliveInACrowd: while there are as many connections as may be, others are refused, but
// the hub still proves that it lives.
func TestAliveInACrowd(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := New(Config{MainSocket: filepath.Join(t.TempDir(), "main.sock"), Access: Open})
	defer h.Close()
	h.quota = quota.New(1, 1)
	h.quota.Take(netip.MustParseAddr("192.0.2.1"))
	own := selfcheck.New(ln)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- h.Serve(ctx, own) }()
	if err := h.responds(ctx, own); err != nil {
		t.Error(err)
	}
	refused, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer refused.Close()
	if n, err := refused.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("beyond the quota: %d bytes, %v", n, err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
