package notify

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// supervisorSocket is the other end: a datagram socket whose path is in the environment.
func supervisorSocket(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	return conn
}

func receive(t *testing.T, conn *net.UnixConn) (string, []int) {
	t.Helper()
	text, oob := make([]byte, 4096), make([]byte, 256)
	n, oobn, _, _, err := conn.ReadMsgUnix(text, oob)
	if err != nil {
		t.Fatal(err)
	}
	var fds []int
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, got...)
	}
	return string(text[:n]), fds
}

func TestMessages(t *testing.T) {
	conn := supervisorSocket(t)
	for _, c := range []struct {
		send func() error
		want string
	}{
		{Ready, "READY=1"},
		{Stopping, "STOPPING=1"},
		{func() error { return Status("two\nlines") }, "STATUS=two lines"},
		{func() error { return RemoveFD("bootstatus:10.0.0.7") }, "FDSTOREREMOVE=1\nFDNAME=bootstatus%3A10.0.0.7"},
	} {
		if err := c.send(); err != nil {
			t.Fatal(err)
		}
		if got, _ := receive(t, conn); got != c.want {
			t.Errorf("sent %q, want %q", got, c.want)
		}
	}
}

func TestStoreFD(t *testing.T) {
	conn := supervisorSocket(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := StoreFD("pipe", w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	text, fds := receive(t, conn)
	if text != "FDSTORE=1\nFDNAME=pipe" || len(fds) != 1 {
		t.Fatalf("received %q with %d descriptors", text, len(fds))
	}
	copied := os.NewFile(uintptr(fds[0]), "copy")
	if _, err := copied.WriteString("alive"); err != nil {
		t.Fatal(err)
	}
	copied.Close()
	got, err := io.ReadAll(r)
	if err != nil || string(got) != "alive" {
		t.Fatalf("read %q, %v", got, err)
	}
	for _, bad := range []string{"", "tab\t", strings.Repeat("x", 256), strings.Repeat(":", 100)} {
		if err := StoreFD(bad, r); err == nil {
			t.Errorf("the name %q was accepted", bad)
		}
	}
}

func TestWithoutSupervisor(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := errors.Join(Ready(), Status("x"), RemoveFD("x"), StoreFD("x", os.Stdin)); err != nil {
		t.Fatal(err)
	}
	if _, err := Listener("api"); !errors.Is(err, ErrNoSocket) {
		t.Fatalf("Listener: %v", err)
	}
}

func TestUnixListenerWithoutSupervisor(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "daemon")
	for range 2 { // the second time over the socket of the first, as after a crash
		ln, err := UnixListener("db", folder)
		if err != nil {
			t.Fatal(err)
		}
		ln.(*net.UnixListener).SetUnlinkOnClose(false)
		conn, err := net.Dial("unix", filepath.Join(folder, "db.sock"))
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		ln.Close()
	}
	if info, err := os.Stat(filepath.Join(folder, "db.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := UnixListener("db", filepath.Join(folder, "db.sock")); err == nil || !strings.Contains(err.Error(), `cannot listen on "db"`) {
		t.Errorf("in a file: %v", err)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"plain", "a:b", "50%", "%3A", "%25:", ":::"} {
		wire := EscapeName(name)
		if strings.Contains(wire, ":") || UnescapeName(wire) != name {
			t.Errorf("%q became %q became %q", name, wire, UnescapeName(wire))
		}
	}
}

// TestFiles passes sockets to a real child: this test run again.
func TestFiles(t *testing.T) {
	if os.Getenv("NOTIFY_TEST_CHILD") != "" {
		child(t)
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	udpFile, err := udp.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer udpFile.Close()
	// LISTEN_PID must be the child's own: sh knows it before it becomes the child.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run='^TestFiles$' -test.v`, os.Args[0])
	cmd.Env = append(os.Environ(), "NOTIFY_TEST_CHILD=1", "LISTEN_FDS=2", "LISTEN_FDNAMES=a%3Ab:net")
	cmd.ExtraFiles = []*os.File{file, udpFile}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	got, _ := io.ReadAll(conn)
	conn.Close()
	if err := cmd.Wait(); err != nil || string(got) != "hello" {
		t.Fatalf("child: %v; read %q", err, got)
	}
}

func child(t *testing.T) {
	ln, err := Listener("a:b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := PacketConn("net"); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("LISTEN_FDS") != "" || os.Getenv("LISTEN_PID") != "" {
		t.Fatal("the environment was not cleared")
	}
	for _, f := range Files()["a:b"] {
		flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Fatalf("descriptor flags %x, %v", flags, err)
		}
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Write([]byte("hello"))
	conn.Close()
}

// FuzzNames: whatever the name, escaping is reversible and free of colons.
func FuzzNames(f *testing.F) {
	f.Add("bootstatus:10.0.0.7")
	f.Add("%3A%253A")
	f.Fuzz(func(t *testing.T, name string) {
		wire := EscapeName(name)
		if strings.Contains(wire, ":") || UnescapeName(wire) != name {
			t.Fatalf("%q became %q", name, wire)
		}
	})
}

// TestKeepAlive: signs of life come while the check finds no fault, and only with a watchdog.
func TestKeepAlive(t *testing.T) {
	conn := supervisorSocket(t)
	KeepAlive(t.Context(), func(context.Context) error { t.Error("a check without a watchdog"); return nil })
	t.Setenv("WATCHDOG_USEC", "2000")
	ctx, cancel := context.WithCancel(t.Context())
	checks, ended := 0, make(chan struct{})
	go func() {
		defer close(ended)
		KeepAlive(ctx, func(context.Context) error {
			checks++
			switch checks {
			case 2:
				return errors.New("a fault")
			case 4:
				cancel()
			}
			return nil
		})
	}()
	for range 3 {
		if text, _ := receive(t, conn); text != "WATCHDOG=1" {
			t.Errorf("got %q", text)
		}
	}
	<-ended
	if checks != 4 {
		t.Errorf("%d checks for three signs of life", checks)
	}
}
