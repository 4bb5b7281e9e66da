package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/daemon/hub"
	"github.com/waltos/waltos/services/daemon/session"
	"github.com/waltos/waltos/services/node/layout"
	"github.com/waltos/waltos/services/wire/pickle"
)

const kernelLine = "initrd=initrd root=/dev/nfs nfsroot=192.168.152.1:/var/lib/walt/nodes/52:54:00:aa:bb:cc/fs,ro,vers=3,nolock,nocto" +
	" walt.server.ip=192.168.152.1 init=/bin/walt-init panic=30 ip=192.168.152.2:192.168.152.1::255.255.255.0:node-aabbcc::off BOOTIF=01-52-54-00-aa-bb-cc\n"

func TestCmdline(t *testing.T) {
	c := parseCmdline(kernelLine)
	addr, err := c.address()
	if err != nil {
		t.Fatal(err)
	}
	if addr.client.String() != "192.168.152.2/24" || addr.gateway.IsValid() || addr.hostname != "node-aabbcc" || addr.server.String() != "192.168.152.1" {
		t.Errorf("address is %+v", addr)
	}
	mac, err := c.bootMAC()
	if err != nil || mac.String() != "52:54:00:aa:bb:cc" {
		t.Errorf("boot interface is %s, %v", mac, err)
	}
	server, path, options, err := c.nfsRoot()
	if err != nil || server.String() != "192.168.152.1" || path != "/var/lib/walt/nodes/52:54:00:aa:bb:cc/fs" || options != "ro,vers=3,nolock,nocto" {
		t.Errorf("root is %s %s %s, %v", server, path, options, err)
	}
}

func TestCmdlineRefusals(t *testing.T) {
	for _, text := range []string{"", "ip=dhcp", "ip=1.2.3.4:5.6.7.8", "ip=x:1.2.3.4::255.255.255.0:n", "ip=1.2.3.4:5.6.7.8:gw:255.255.255.0:n",
		"ip=1.2.3.4:5.6.7.8::255.0.255.0:n", "ip=1.2.3.4:5.6.7.8::mask:n"} {
		if a, err := parseCmdline(text).address(); err == nil {
			t.Errorf("address of %q is %+v", text, a)
		}
	}
	for _, text := range []string{"", "BOOTIF=01-52-54", "BOOTIF=eth0"} {
		if mac, err := parseCmdline(text).bootMAC(); err == nil {
			t.Errorf("boot interface of %q is %s", text, mac)
		}
	}
	for _, text := range []string{"", "nfsroot=/a", "nfsroot=host:/a", "nfsroot=1.2.3.4:a"} {
		if _, path, _, err := parseCmdline(text).nfsRoot(); err == nil {
			t.Errorf("root of %q is %s", text, path)
		}
	}
}

func FuzzCmdline(f *testing.F) {
	f.Add(kernelLine)
	f.Fuzz(func(t *testing.T, text string) {
		c := parseCmdline(text)
		c.address()
		c.bootMAC()
		c.nfsRoot()
	})
}

func TestVariable(t *testing.T) {
	file := "# comment\nexport walt_server_ip='192.168.152.1'\nexport walt_image_id=\"abc\"\nwalt_boot_mode=network\n"
	for name, want := range map[string]string{"walt_server_ip": "192.168.152.1", "walt_image_id": "abc", "walt_boot_mode": "network", "walt_image": ""} {
		if got := variable(file, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestControlService(t *testing.T) {
	l := listen(t)
	rebooted := make(chan struct{}, 1)
	c := &control{reboot: func() { rebooted <- struct{}{} }, bootable: func() error { return nil }}
	go c.serve(t.Context(), l)
	for name, exchange := range map[string]struct{ send, want string }{
		"ping":        {"MODE single\nPING\n", "OK\n"},
		"one line":    {"MODE single PING\n", "OK\n"},
		"no mode":     {"PING\n", "KO Start by specifying \"MODE [single|multi]\". Closing on my side.\n"},
		"multi":       {"MODE multi\nPING\nPING\nCLOSE\n", "OK\nOK\nOK Closing on my side.\n"},
		"blink":       {"MODE single\nBLINK 1\n", "KO /bin/blink unavailable or not executable on image\n"},
		"blink wrong": {"MODE single\nBLINK 7\n", "KO BLINK takes 0 or 1\n"},
		"unknown":     {"MODE single\nFORMAT\n", ""},
		"reboot":      {"MODE single\nREBOOT\n", "OK\n"},
		"too long":    {strings.Repeat("x", maxRequest+1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, exchange.send); err != nil {
				t.Fatal(err)
			}
			conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			got, err := io.ReadAll(conn)
			if err != nil && exchange.want != "" {
				t.Fatal(err)
			}
			if string(got) != exchange.want {
				t.Errorf("answer is %q, want %q", got, exchange.want)
			}
		})
	}
	select {
	case <-rebooted:
	case <-time.After(10 * time.Second):
		t.Error("REBOOT did not reboot")
	}
}

func TestControlServiceRefusesAnImpossibleReboot(t *testing.T) {
	l := listen(t)
	c := &control{reboot: func() { t.Error("it reboots") }, bootable: func() error { return errors.New("/bin/walt-reboot is not executable on image") }}
	go c.serve(t.Context(), l)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "MODE single\nREBOOT\n")
	if got, err := io.ReadAll(conn); string(got) != "KO /bin/walt-reboot is not executable on image\n" || err != nil {
		t.Errorf("answer is %q, %v", got, err)
	}
}

// sshServer greets whoever connects, as the local ssh server of a node does.
func sshServer(t *testing.T) string {
	ssh := listen(t)
	go func() {
		for {
			conn, err := ssh.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "SSH-2.0-test\r\n")
			conn.Close()
		}
	}()
	return ssh.Addr().String()
}

// The server sees the request, then newlines; when the connection ends, the node does
// not try again: it must reboot.
func TestNotifyBootup(t *testing.T) {
	server := listen(t)
	ended := make(chan error, 1)
	n := notifier{server: netip.MustParseAddrPort(server.Addr().String()), sshd: sshServer(t)}
	go func() { ended <- n.run(t.Context()) }()
	conn, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(conn)
	if line, err := lines.ReadString('\n'); err != nil || line != "REQ_NOTIFY_BOOTUP_STATUS\n" {
		t.Fatalf("request is %q, %v", line, err)
	}
	io.WriteString(conn, "OK\n")
	if b, err := lines.ReadByte(); err != nil || b != '\n' {
		t.Fatalf("first byte is %q, %v", b, err)
	}
	conn.Close()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "connection ended") {
		t.Errorf("ended with %v", err)
	}
}

func TestNotifyBootupTriesThreeTimes(t *testing.T) {
	server := listen(t)
	ended := make(chan error, 1)
	n := notifier{server: netip.MustParseAddrPort(server.Addr().String()), sshd: sshServer(t)}
	go func() { ended <- n.run(t.Context()) }()
	for range 1 + notifyRetries {
		conn, err := server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close() // without OK
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "cannot notify") {
		t.Errorf("ended with %v", err)
	}
}

func TestNotifyBootupEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := listen(t)
	ended := make(chan error, 1)
	n := notifier{server: netip.MustParseAddrPort(server.Addr().String()), sshd: sshServer(t), pause: time.Hour}
	go func() { ended <- n.run(ctx) }()
	conn, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	if err := <-ended; err == nil {
		t.Error("ended without a reason")
	}
}

func TestLogCopyEndsOnceTheServerHasRead(t *testing.T) {
	for _, mode := range []stampMode{stampServer, stampLocal} {
		server := listen(t)
		received := make(chan []string, 1)
		go func() {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			var all []string
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				all = append(all, lines.Text())
				if lines.Text() == "CLOSE" {
					break
				}
			}
			received <- all
		}()
		conn, err := net.Dial("tcp", server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		var echo bytes.Buffer
		if err := (&logStream{conn: conn}).copy(strings.NewReader("one\ntwo, unfinished"), &echo, mode); err != nil {
			t.Fatal(err)
		}
		if echo.String() != "one\ntwo, unfinished\n" {
			t.Errorf("echo is %q", echo.String())
		}
		want := []string{"one", "two, unfinished", "CLOSE"}
		got := <-received
		if mode == stampLocal {
			for i, line := range got[:2] {
				stamp, text, _ := strings.Cut(line, " ")
				if seconds, err := strconv.ParseFloat(stamp, 64); err != nil || seconds < 1e9 {
					t.Errorf("line %q has no stamp", line)
				}
				got[i] = text
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("the server read %q", got)
		}
	}
}

func TestWatchdogSeesTheRootGo(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- watchRoot(t.Context(), root, time.Millisecond, time.Minute) }()
	if err := os.Remove(root); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the watchdog did not see that the root is gone")
	}
}

func TestTarHasOneTopEntry(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "data")
	if err := os.MkdirAll(filepath.Join(source, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "sub", "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sub/file", filepath.Join(source, "link")); err != nil {
		t.Fatal(err)
	}
	alias := filepath.Join(dir, "alias")
	if err := os.Symlink("data", alias); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := writeTar(&out, alias, "named"); err != nil {
		t.Fatal(err)
	}
	var names []string
	for archive := tar.NewReader(&out); ; {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name+header.Linkname)
	}
	if want := []string{"named", "named/linksub/file", "named/sub", "named/sub/file"}; !slices.Equal(names, want) {
		t.Errorf("entries are %q, want %q", names, want)
	}
}

// nodeAPI is a server-main that knows what nodes call.
type nodeAPI struct{}

func (nodeAPI) Call(_ context.Context, s *session.Session, method string, args pickle.Tuple, _ *pickle.Dict) (any, error) {
	if s.API != "NSAPI" {
		return nil, errors.New("not called by a node")
	}
	switch method {
	case "sync_clock":
		return 1718000000, nil
	case "report_lldp_neighbor":
		return pickle.Tuple{"it's", args}, nil
	}
	return nil, errors.New("no such method")
}

// TestRPC calls through the real server-hub.
func TestRPC(t *testing.T) {
	sockets := t.TempDir()
	main, err := net.Listen("unix", filepath.Join(sockets, "main.sock"))
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	h := hub.New(hub.Config{MainSocket: filepath.Join(sockets, "main.sock"), Access: hub.Open})
	var running sync.WaitGroup
	running.Go(func() { session.Serve(ctx, main, nodeAPI{}) })
	running.Go(func() { h.Serve(ctx, l) })
	defer func() { cancel(); running.Wait(); h.Close() }()

	server := netip.MustParseAddrPort(l.Addr().String())
	if v, err := call(t.Context(), server, time.Minute, "sync_clock"); v != int64(1718000000) || err != nil {
		t.Errorf("sync_clock is %v, %v", v, err)
	}
	got, err := callText(t.Context(), server, "report_lldp_neighbor", []string{`'aa:bb:cc:dd:ee:ff'`, `"g1"`})
	if want := `("it's", ('aa:bb:cc:dd:ee:ff', 'g1'))`; got != want || err != nil {
		t.Errorf("result is %s, %v; want %s", got, err, want)
	}
	if _, err := callText(t.Context(), server, "format", nil); err == nil || err.Error() != "no such method" {
		t.Errorf("exception is %v", err)
	}
	if _, err := callText(t.Context(), server, "format", []string{"os.getpid()"}); err == nil || !strings.Contains(err.Error(), "argument 1") {
		t.Errorf("an argument that is no literal: %v", err)
	}
}

func TestEchoByFIFO(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "logs.fifo")
	if done, _ := echoByFIFO(fifo, "", "s", "text"); done {
		t.Error("done without FIFO")
	}
	if err := unix.Mkfifo(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	if done, _ := echoByFIFO(fifo, "", "s", "text"); done {
		t.Error("done without a reader, as one left by a previous run")
	}
	reader, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	lines := bufio.NewReader(reader)
	for stamp, want := range map[string]string{"": "LOG s text\n", "12.5": "TSLOG 12.5 s text\n"} {
		if done, err := echoByFIFO(fifo, stamp, "s", "text"); !done || err != nil {
			t.Errorf("not done: %v", err)
		}
		if got, err := lines.ReadString('\n'); got != want || err != nil {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
}

func TestDiffHoldsWhatChanged(t *testing.T) {
	upper := t.TempDir()
	write := func(name string) {
		path := filepath.Join(upper, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"etc/app/new.conf", "var/log/x", "etc/machine-id", "bin/walt-env", "bin/_walt_internal_/x", "run/a.lock", "root/file"} {
		write(name)
	}
	if err := os.Symlink("new.conf", filepath.Join(upper, "etc/app/link")); err != nil {
		t.Fatal(err)
	}
	names := func(since time.Time) []string {
		var out bytes.Buffer
		if err := writeDiff(&out, upper, since); err != nil {
			t.Fatal(err)
		}
		var names []string
		for archive := tar.NewReader(&out); ; {
			header, err := archive.Next()
			if err == io.EOF {
				return names
			}
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, header.Name)
		}
	}
	want := []string{"./bin", "./etc", "./etc/app", "./etc/app/link", "./etc/app/new.conf", "./root", "./root/file", "./run", "./var", "./var/log"}
	if got := names(time.Now().Add(-time.Hour)); !slices.Equal(got, want) {
		t.Errorf("entries are %q, want %q", got, want)
	}
	if got := names(time.Now().Add(time.Hour)); got != nil {
		t.Errorf("entries are %q although nothing changed", got)
	}
	// Only one file is newer than the others: its folders come with it.
	var latest unix.Stat_t
	for { // until the clock of the file system has moved
		write("etc/app/new.conf")
		var other unix.Stat_t
		if err := errors.Join(unix.Stat(filepath.Join(upper, "etc/app/new.conf"), &latest), unix.Stat(filepath.Join(upper, "etc/app"), &other)); err != nil {
			t.Fatal(err)
		}
		if latest.Mtim != other.Mtim && latest.Ctim != other.Ctim {
			break
		}
	}
	if got := names(time.Unix(latest.Mtim.Unix())); !slices.Equal(got, []string{"./etc", "./etc/app", "./etc/app/new.conf"}) {
		t.Errorf("entries are %q", got)
	}
}

func TestTimeout(t *testing.T) {
	if err := runTimed(t.Context(), []string{"60", "true"}); err != nil {
		t.Error(err)
	}
	var status *exec.ExitError
	if err := runTimed(t.Context(), []string{"60", "sh", "-c", "exit 7"}); !errors.As(err, &status) || status.ExitCode() != 7 {
		t.Errorf("status 7: %v", err)
	}
	if err := runTimed(t.Context(), []string{"0", "sleep", "60"}); err == nil || !strings.Contains(err.Error(), "did not end") {
		t.Errorf("too long: %v", err)
	}
	for _, args := range [][]string{nil, {"1"}, {"x", "true"}, {"-1", "true"}} {
		if err := runTimed(t.Context(), args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

func TestEveryLinkIsARole(t *testing.T) {
	for _, path := range append([]string{layout.Program}, layout.Links...) {
		if roles[filepath.Base(path)] == nil {
			t.Errorf("%s has no role", path)
		}
	}
}
