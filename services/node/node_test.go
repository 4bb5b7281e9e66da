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
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
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
	c := &control{reboot: func() { rebooted <- struct{}{} }}
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

// The server sees the request, then newlines; when it goes away, the node tries
// again, then gives up.
func TestNotifyBootup(t *testing.T) {
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
	server := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- notifyBootup(ctx, netip.MustParseAddrPort(server.Addr().String()), ssh.Addr().String())
	}()
	conn, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	lines := bufio.NewReader(conn)
	if line, err := lines.ReadString('\n'); err != nil || line != "REQ_NOTIFY_BOOTUP_STATUS\n" {
		t.Fatalf("request is %q, %v", line, err)
	}
	io.WriteString(conn, "OK\n")
	if b, err := lines.ReadByte(); err != nil || b != '\n' {
		t.Fatalf("first byte is %q, %v", b, err)
	}
	cancel()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the notification ended without a reason")
		}
	case <-time.After(20 * time.Second):
		t.Error("the notification did not end with its context")
	}
}

func TestLogStreamEndsOnceTheServerHasRead(t *testing.T) {
	server := listen(t)
	received := make(chan string, 1)
	go func() {
		conn, err := server.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		var all bytes.Buffer
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			all.WriteString(lines.Text() + "|")
			if lines.Text() == "CLOSE" {
				break
			}
		}
		received <- all.String()
	}()
	addr := netip.MustParseAddrPort(server.Addr().String())
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	l := &logStream{conn: conn}
	if err := errors.Join(l.line("one"), l.line("two"), l.close()); err != nil {
		t.Fatal(err)
	}
	if got := <-received; got != "one|two|CLOSE|" {
		t.Errorf("the server read %q", got)
	}
}

func TestResult(t *testing.T) {
	for reply, want := range map[string]string{"('RESULT', 1718000000)": "1718000000", "('RESULT', None)": "None", "('RESULT', ('a', 1))": "('a', 1)"} {
		if got, err := result(reply); err != nil || got != want {
			t.Errorf("result of %s is %q, %v", reply, got, err)
		}
	}
	if _, err := result("('EXCEPTION', 'no such method')"); err == nil || err.Error() != "no such method" {
		t.Errorf("exception is %v", err)
	}
	if _, err := result("hello"); err == nil {
		t.Error("nonsense is a result")
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

func TestPythonString(t *testing.T) {
	if got, want := pythonString("it's\\\n"), `'it\'s\\\x0a'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
