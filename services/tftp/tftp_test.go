package tftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/services/bootfile"
	"github.com/waltos/waltos/services/metrics/metricstest"
	"github.com/waltos/waltos/services/state"
)

// serve starts a server for a node at 127.0.0.1, and returns its address and the boot
// directory of the node.
func serve(t testing.TB) (addr netip.AddrPort, dir string) {
	t.Helper()
	_, addr, dir = start(t)
	return addr, dir
}

// start is serve that returns the server, too.
func start(t testing.TB) (server *Server, addr netip.AddrPort, dir string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "fs")
	dir = filepath.Join(root, "boot/pc-x86-64")
	pxe := t.TempDir()
	write(t, filepath.Join(pxe, "walt-x86-undionly.kpxe"), []byte("iPXE"), 0o644)
	write(t, filepath.Join(filepath.Dir(root), "secret"), []byte("secret"), 0o644)
	write(t, filepath.Join(dir, "start.ipxe"), []byte("#!ipxe\n"), 0o644)
	write(t, filepath.Join(dir, "start.uboot"), []byte("uboot"), 0o644)
	write(t, filepath.Join(dir, "private"), []byte("x"), 0o600)
	for link, target := range map[string]string{"up": "../../../secret", "absolute": "/boot/pc-x86-64/start.ipxe"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	addr = netip.MustParseAddrPort(conn.LocalAddr().String())
	network := netip.MustParsePrefix("127.0.0.1/8")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	server = New(Config{Network: network, PXE: pxe, Tree: &bootfile.Tree{
		Network: network, Static: filepath.Join(t.TempDir(), "none"),
		State: state.Fixed(state.Snapshot{Devices: []state.Device{
			{MAC: "02:00:00:00:00:02", IP: "127.0.0.1", Name: "n", Type: "node", Root: root, BootDir: dir},
		}}),
	}}, conn)
	go func() { done <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return server, addr, dir
}

// TestCounts compares what the service counts with what it was asked.
func TestCounts(t *testing.T) {
	s, addr, dir := start(t)
	write(t, filepath.Join(dir, "file"), random(1000), 0o644)
	for name, works := range map[string]bool{"file": true, "missing": false, "private": false, "../../../secret": false} {
		if _, err := (&client{}).get(t, addr, name); (err == nil) != works {
			t.Errorf("%s: %v", name, err)
		}
	}
	for series, want := range map[string]float64{"sent": 1, "not_found": 1, "failed": 1, "refused": 1} {
		// The server may hear of the end a little after the client.
		deadline := time.Now().Add(time.Minute)
		for {
			got := metricstest.Number(s.Measures(), "walt_tftp_answers_total", "result", series)
			if got == want {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("answers %q: %v, want %v", series, got, want)
			}
			time.Sleep(time.Millisecond)
		}
	}
	for name, want := range map[string]float64{"walt_tftp_requests_total": 4, "walt_tftp_sent_bytes_total": 1000} {
		if got := metricstest.Number(s.Measures(), name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

func write(t testing.TB, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
}

// remoteError is an error packet.
type remoteError struct {
	code uint16
	text string
}

func (e *remoteError) Error() string { return fmt.Sprintf("code %d: %s", e.code, e.text) }

// client is a TFTP reader with the faults of a bad network.
type client struct {
	options []string // name, value, ...
	mode    string
	drop    func(block int, again bool) bool // packets of the server that are lost
	repeat  bool                             // every packet of the client is sent twice
	oack    map[string]string
	blocks  int
}

func rrq(op byte, name, mode string, options []string) []byte {
	return []byte("\x00" + string(op) + strings.Join(append([]string{name, mode}, options...), "\x00") + "\x00")
}

// get reads a file.
func (c *client) get(t *testing.T, server netip.AddrPort, name string) ([]byte, error) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadBuffer(4 << 20)
	if c.mode == "" {
		c.mode = "octet"
	}
	peer := server
	send := func(p []byte) {
		for range map[bool]int{false: 1, true: 2}[c.repeat] {
			if _, err := conn.WriteToUDPAddrPort(p, peer); err != nil {
				t.Fatal(err)
			}
		}
	}
	ack := func(n int) { send(binary.BigEndian.AppendUint16([]byte{0, opAck}, uint16(n))) }
	send(rrq(opRead, name, c.mode, c.options))

	size, window := 512, 1
	var content []byte
	var received, sinceAck int
	seen := map[int]bool{}
	buffer := make([]byte, 70000)
	conn.SetReadDeadline(time.Now().Add(60 * time.Second))
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			t.Fatalf("%s: after %d blocks: %v", name, received, err)
		}
		if peer == server {
			peer = from
		} else if from != peer { // a second answer, to the repeated request
			t.Fatalf("%s: two transfers for one request", name)
		}
		p := buffer[:n]
		switch binary.BigEndian.Uint16(p) {
		case opError:
			return nil, &remoteError{binary.BigEndian.Uint16(p[2:]), string(bytes.TrimRight(p[4:], "\x00"))}
		case opOptions:
			fields := strings.Split(strings.TrimSuffix(string(p[2:]), "\x00"), "\x00")
			c.oack = map[string]string{}
			for i := 0; i+1 < len(fields); i += 2 {
				c.oack[fields[i]] = fields[i+1]
			}
			if v := c.oack["blksize"]; v != "" {
				size, _ = strconv.Atoi(v)
			}
			if v := c.oack["windowsize"]; v != "" {
				window, _ = strconv.Atoi(v)
			}
			ack(0)
		case opData:
			number := int(binary.BigEndian.Uint16(p[2:]))
			if c.drop != nil {
				again := seen[number]
				seen[number] = true
				if c.drop(number, again) {
					continue
				}
			}
			if number != (received+1)&0xffff {
				if window > 1 {
					ack(received) // RFC 7440: what is missing
				} else {
					ack(number)
				}
				sinceAck = 0
				continue
			}
			received++
			sinceAck++
			c.blocks++
			content = append(content, p[4:]...)
			last := n < 4+size
			if sinceAck == window || last {
				ack(received)
				sinceAck = 0
			}
			if last {
				return content, nil
			}
		}
	}
}

func random(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestTransfers(t *testing.T) {
	server, dir := serve(t)
	for _, c := range []struct {
		name    string
		size    int
		options []string
		oack    map[string]string
	}{
		{"empty", 0, nil, nil},
		{"one byte", 1, nil, nil},
		{"one block", 512, nil, nil},
		{"several blocks", 5000, nil, nil},
		{"iPXE", 100000, []string{"blksize", "1432", "tsize", "0"}, map[string]string{"blksize": "1432", "tsize": "100000"}},
		{"PXE ROM", 1468 * 3, []string{"BLKSIZE", "1468"}, map[string]string{"blksize": "1468"}},
		{"largest block", 200000, []string{"blksize", "65464"}, map[string]string{"blksize": "65464"}},
		{"too large a block", 200000, []string{"blksize", "65500"}, map[string]string{"blksize": "65464"}},
		{"window", 1 << 20, []string{"windowsize", "16", "blksize", "1428"}, map[string]string{"windowsize": "16", "blksize": "1428"}},
		{"wide window", 100000, []string{"windowsize", "65535"}, map[string]string{"windowsize": "64"}},
		{"window of large blocks", 1 << 20, []string{"windowsize", "64", "blksize", "60000"}, map[string]string{"windowsize": "8", "blksize": "60000"}},
		{"block numbers start again", 8*65536*2 + 3, []string{"blksize", "8", "windowsize", "64"}, map[string]string{"blksize": "8", "windowsize": "64"}},
		{"timeout", 600, []string{"timeout", "3"}, map[string]string{"timeout": "3"}},
		{"unknown options", 600, []string{"multicast", "", "rollover", "0", "tsize", "0"}, map[string]string{"tsize": "600"}},
		{"senseless options", 600, []string{"blksize", "x", "timeout", "0", "windowsize", "0", "blksize", "4"}, nil},
	} {
		want := random(c.size)
		write(t, filepath.Join(dir, "file"), want, 0o644)
		reader := &client{options: c.options}
		got, err := reader.get(t, server, "file")
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes (%v), want %d", c.name, len(got), err, c.size)
		}
		if !reflect.DeepEqual(reader.oack, c.oack) {
			t.Errorf("%s: OACK %v, want %v", c.name, reader.oack, c.oack)
		}
	}
}

func TestBadNetwork(t *testing.T) {
	server, dir := serve(t)
	want := random(300*512 + 7)
	write(t, filepath.Join(dir, "file"), want, 0o644)
	for _, options := range [][]string{nil, {"windowsize", "8"}} {
		for name, c := range map[string]*client{
			"first block lost":    {drop: func(n int, again bool) bool { return n == 1 && !again }},
			"last block lost":     {drop: func(n int, again bool) bool { return n == 301 && !again }},
			"inside a window":     {drop: func(n int, again bool) bool { return n == 5 && !again }},
			"begin of a window":   {drop: func(n int, again bool) bool { return n == 9 && !again }},
			"everything is twice": {repeat: true},
		} {
			c.options = options
			got, err := c.get(t, server, "file")
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, options %v: %d bytes (%v)", name, options, len(got), err)
			}
		}
	}
}

func TestNetascii(t *testing.T) {
	server, dir := serve(t)
	write(t, filepath.Join(dir, "file"), []byte("a\nb\r\nc\r"), 0o644)
	c := &client{mode: "NetASCII", options: []string{"tsize", "0"}}
	got, err := c.get(t, server, "file")
	if want := "a\r\nb\r\x00\r\nc\r\x00"; err != nil || string(got) != want {
		t.Errorf("%q (%v), want %q", got, err, want)
	}
	long := strings.Repeat("0123456\n", 1000) // a line end falls on every block boundary
	write(t, filepath.Join(dir, "file"), []byte(long), 0o644)
	got, err = (&client{mode: "netascii", options: []string{"blksize", "8"}}).get(t, server, "file")
	if err != nil || string(got) != strings.ReplaceAll(long, "\n", "\r\n") {
		t.Errorf("%d bytes (%v)", len(got), err)
	}
}

func TestNames(t *testing.T) {
	server, _ := serve(t)
	for _, c := range []struct {
		name, want string
		code       uint16
	}{
		{"start.ipxe", "#!ipxe\n", 0},
		{"/start.ipxe", "#!ipxe\n", 0},
		{"//start.ipxe", "#!ipxe\n", 0},
		{"absolute", "#!ipxe\n", 0},
		{"boot/rpi-2.uboot", "uboot", 0},
		{"/boot/rpi-b-plus.uboot", "uboot", 0},
		{"boot/pc-x86-64.ipxe", "#!ipxe\n", 0},
		{"pxe/walt-x86-undionly.kpxe", "iPXE", 0},
		{"/pxe/walt-x86-undionly.kpxe", "iPXE", 0},
		{"pxe/missing", "", codeNotFound},
		{"undionly.kpxe", "", codeNotFound},
		{"12345678/start.elf", "", codeNotFound},
		{".", "", codeNotFound},
		{"private", "", codeOther},
	} {
		got, err := (&client{}).get(t, server, c.name)
		if c.want == "" {
			if e, ok := err.(*remoteError); !ok || e.code != c.code {
				t.Errorf("%q: %q, %v; want error code %d", c.name, got, err, c.code)
			}
		} else if err != nil || string(got) != c.want {
			t.Errorf("%q: %q, %v", c.name, got, err)
		}
	}
}

// TestDefectN5NamesAreConfined: no name leads out of the folder of the client.
func TestDefectN5NamesAreConfined(t *testing.T) {
	server, _ := serve(t)
	for name, code := range map[string]uint16{
		"../../../secret": codeAccess, "/../secret": codeAccess, "a/../../secret": codeAccess, "pxe/../../secret": codeAccess,
		"up": codeNotFound, // inside the image, the link leads nowhere
	} {
		got, err := (&client{}).get(t, server, name)
		if e, ok := err.(*remoteError); !ok || e.code != code {
			t.Errorf("%q: %q, %v; want error code %d", name, got, err, code)
		}
	}
}

// ask sends one packet and returns the answer.
func ask(t *testing.T, server netip.AddrPort, packet []byte) []byte {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.WriteToUDPAddrPort(packet, server); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	buffer := make([]byte, 1000)
	n, _, err := conn.ReadFromUDPAddrPort(buffer)
	if err != nil {
		t.Fatal(err)
	}
	return buffer[:n]
}

func TestRefused(t *testing.T) {
	server, _ := serve(t)
	for name, c := range map[string]struct {
		packet []byte
		code   byte
	}{
		"write":           {rrq(opWrite, "start.ipxe", "octet", nil), codeAccess},
		"mail":            {rrq(opRead, "start.ipxe", "mail", nil), codeIllegal},
		"no mode":         {[]byte("\x00\x01start.ipxe\x00"), codeIllegal},
		"not ended":       {[]byte("\x00\x01start.ipxe\x00octet"), codeIllegal},
		"no name":         {rrq(opRead, "", "octet", nil), codeIllegal},
		"acknowledgement": {[]byte{0, opAck, 0, 1}, codeIllegal},
		"one byte":        {[]byte{0}, codeIllegal},
		"long name":       {rrq(opRead, strings.Repeat("x", 4090), "octet", nil), codeNotFound},
	} {
		if got := ask(t, server, c.packet); len(got) < 5 || got[1] != opError || got[3] != c.code || got[len(got)-1] != 0 {
			t.Errorf("%s: answer %q", name, got)
		}
	}
	// After all that the server still serves.
	if got := ask(t, server, rrq(opRead, "start.ipxe", "octet", nil)); string(got) != "\x00\x03\x00\x01#!ipxe\n" {
		t.Errorf("answer %q", got)
	}
}

// TestCurl has another TFTP implementation read a file.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("no curl on this machine")
	}
	if out, err := exec.CommandContext(t.Context(), curl, "--version").Output(); err != nil || !strings.Contains(string(out), " tftp") {
		t.Skip("the curl of this machine has no TFTP")
	}
	server, dir := serve(t)
	want := random(123456)
	write(t, filepath.Join(dir, "kernel"), want, 0o644)
	cmd := exec.CommandContext(t.Context(), curl, "-s", "--max-time", "30", fmt.Sprintf("tftp://%s/kernel", server))
	if got, err := cmd.Output(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("curl: %d bytes, %v", len(got), err)
	}
}

// FuzzRequest checks that arbitrary requests give bounded terms.
func FuzzRequest(f *testing.F) {
	f.Add(rrq(opRead, "start.ipxe", "octet", []string{"blksize", "1432", "tsize", "0", "windowsize", "9", "timeout", "1"}))
	f.Add([]byte("\x00\x01\x00\x00"))
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := parseRequest(p)
		if err != nil {
			return
		}
		terms := r.negotiate(1 << 40)
		if terms.block < minBlock || terms.block > maxBlock || terms.window < 1 || terms.window > maxWindow ||
			terms.timeout <= 0 || terms.block*terms.window > maxInFlight {
			t.Fatalf("terms %+v", terms)
		}
		if n := len(optionsPacket(terms.options)); n > 512 {
			t.Fatalf("an OACK of %d bytes", n)
		}
	})
}
