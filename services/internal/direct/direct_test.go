package direct

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// pair returns the two ends of a connection.
func pair(t *testing.T, network string) (ours *Conn, theirs net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "socket")
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dialled, err := net.Dial(network, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close() })
	if theirs, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	if ours, err = New(dialled); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// TestEcho sends much more than the kernel keeps, in both directions at once.
func TestEcho(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			ours, theirs := pair(t, network)
			go func() {
				_, _ = io.Copy(theirs, theirs)
				theirs.Close()
			}()
			sent := make([]byte, 8<<20)
			rand.Read(sent)
			var writing sync.WaitGroup
			writing.Go(func() {
				if n, err := ours.Write(sent); n != len(sent) || err != nil {
					t.Errorf("wrote %d of %d bytes: %v", n, len(sent), err)
				}
				if err := ours.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
					t.Error(err)
				}
			})
			got, err := io.ReadAll(ours)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("read %d of %d bytes, or others: %v", len(got), len(sent), err)
			}
			writing.Wait()
		})
	}
}

// TestTryWrite has a peer that does not read: nothing waits, and nothing is lost.
func TestTryWrite(t *testing.T) {
	ours, theirs := pair(t, "unix")
	sent, part := 0, make([]byte, 1<<20)
	for {
		n, err := ours.TryWrite(part)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		sent += n
	}
	if sent == 0 {
		t.Fatal("the kernel took nothing")
	}
	if n, err := io.ReadFull(theirs, make([]byte, sent)); err != nil {
		t.Fatalf("read %d of %d bytes: %v", n, sent, err)
	}
	if n, err := ours.TryWrite(part); n == 0 || err != nil {
		t.Errorf("wrote %d bytes after the peer had read: %v", n, err)
	}
	if n, err := ours.TryWrite(nil); n != 0 || err != nil {
		t.Errorf("wrote %d bytes of nothing: %v", n, err)
	}
}

// TestEnds looks at the ends of a connection, as a net.Conn tells them.
func TestEnds(t *testing.T) {
	t.Run("deadline", func(t *testing.T) {
		ours, _ := pair(t, "tcp")
		if err := ours.SetReadDeadline(time.Now()); err != nil {
			t.Fatal(err)
		}
		if n, err := ours.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %d bytes: %v", n, err)
		}
	})
	t.Run("closed while reading", func(t *testing.T) {
		ours, _ := pair(t, "tcp")
		go ours.Close()
		if n, err := ours.Read(make([]byte, 1)); n != 0 || !errors.Is(err, net.ErrClosed) {
			t.Errorf("read %d bytes: %v", n, err)
		}
		if n, err := ours.Write([]byte("x")); n != 0 || !errors.Is(err, net.ErrClosed) {
			t.Errorf("wrote %d bytes: %v", n, err)
		}
	})
	t.Run("end of file", func(t *testing.T) {
		ours, theirs := pair(t, "unix")
		theirs.Close()
		if n, err := ours.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("read %d bytes: %v", n, err)
		}
		if n, err := ours.Read(nil); n != 0 || err != nil {
			t.Errorf("read %d bytes of nothing: %v", n, err)
		}
	})
	t.Run("reset", func(t *testing.T) {
		ours, theirs := pair(t, "unix")
		theirs.Close()
		var err error
		for err == nil { // the kernel may take some first
			_, err = ours.Write(make([]byte, 1024))
		}
		if errors.Is(err, net.ErrClosed) {
			t.Errorf("a broken pipe reads as %v", err)
		}
	})
	t.Run("no descriptor", func(t *testing.T) {
		end, other := net.Pipe()
		defer end.Close()
		defer other.Close()
		if _, err := New(end); err == nil {
			t.Error("a pipe in memory was taken")
		}
	})
}
