package http

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/bootfile"
	"github.com/waltos/waltos/services/state"
)

// ask returns status and text of the answer to a GET of a client.
func ask(t *testing.T, h nethttp.Handler, target, client string) (int, string) {
	t.Helper()
	r := get(t, h, "GET", target, client, "Prefer", "errors=text-only")
	return r.StatusCode, body(t, r)
}

func TestCN26NoNodeAtAll(t *testing.T) {
	h := NewHandler(Config{State: state.Fixed(state.Snapshot{})})
	if status, text := ask(t, h, "/api/v1/nodes", "127.0.0.1"); status != 200 || text != `{"num_nodes":0,"nodes":[]}` {
		t.Errorf("%d %s", status, text)
	}
}

func TestCN26BoundsAreRefusedInPlainWords(t *testing.T) {
	h, p := newPlatform(t)
	for _, query := range []string{"from=x&to=1700000000", "from=1&to=x", "from=1e999&to=x", "from=x&to=1&ts_unit=ms"} {
		if status, text := ask(t, h, "/api/v1/logs?"+query, "127.0.0.1"); status != 400 || !strings.HasPrefix(text, "cannot interpret '") || strings.Contains(text, "{") {
			t.Errorf("%s: %d %q", query, status, text)
		}
	}
	if len(p.asked) > 0 {
		t.Errorf("asked %v", p.asked)
	}
}

func TestCN26OnlyBooleansAndNumbersAreTruth(t *testing.T) {
	h, _ := newPlatform(t)
	for value, want := range map[string]string{
		"true": "n1", "1": "n1", "0.5": "n1", "false": "n2", "0": "n2", "-0": "n2",
		`"false"`: "", `""`: "", "[0]": "", "{}": "", "null": "", "yes": "", "1e999": "",
	} {
		status, text := ask(t, h, "/api/v1/nodes?booted="+strings.ReplaceAll(value, `"`, "%22"), "127.0.0.1")
		if want == "" {
			if status != 400 || text != "cannot interpret '"+value+"' as a 'bool'.\n" {
				t.Errorf("%s: %d %q", value, status, text)
			}
		} else if status != 200 || !strings.Contains(text, `"num_nodes":1`) || !strings.Contains(text, `"name":"`+want+`"`) {
			t.Errorf("%s: %d %q", value, status, text)
		}
	}
}

func TestCN26StreamStaysBetweenItsAnchors(t *testing.T) {
	h, p := newPlatform(t)
	for _, stream := range []string{"a)|(b", "(", "a\\", "[", "*a**(", "a{2,1}"} {
		target := "/api/v1/logs?from=1700000000&to=1700000001&stream=" + strings.ReplaceAll(stream, `\`, "%5c")
		if status, text := ask(t, h, target, "127.0.0.1"); status != 400 || !strings.HasPrefix(text, "Query parameter 'stream' is not a regular expression: ") {
			t.Errorf("%q: %d %q", stream, status, text)
		}
	}
	if len(p.asked) > 0 {
		t.Errorf("asked %v", p.asked)
	}
}

// TestCN26DefectS3DefectN5PathsAreConfined, also row 3 of server-state 8 and row 5 of
// node-protocols 9.1 for HTTP, has links that stay in the image, and some that do not.
func TestCN26DefectS3DefectN5PathsAreConfined(t *testing.T) {
	h, p := newPlatform(t)
	device, _ := p.Current().ByIP("192.168.152.2")
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"inside": "start.ipxe", "absolute": "/boot/pc-x86-64/start.ipxe", "outside": outside, "up": "../../../../../../../.." + outside,
	} {
		if err := os.Symlink(target, filepath.Join(device.BootDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, prefix := range []string{"/boot/", "/walt-vpn/per-ip/192-168-152-2/"} {
		for name, want := range map[string]string{
			"inside": "#!ipxe\n", "absolute": "#!ipxe\n", "outside": "No such file.\n", "up": "No such file.\n",
			"../../../secret": "Invalid path.\n", "%2e%2e/%2e%2e/%2e%2e/secret": "Invalid path.\n", "a/../../../../secret": "Invalid path.\n",
		} {
			if _, text := ask(t, h, prefix+name, "192.168.152.2"); text != want {
				t.Errorf("%s%s: %q", prefix, name, text)
			}
		}
	}
}

// TestCN26DefectN5NodesReadTheirOwnBootFiles is row 5 of node-protocols 9.1 for HTTP, too.
func TestCN26DefectN5NodesReadTheirOwnBootFiles(t *testing.T) {
	h, _ := newPlatform(t)
	for _, c := range []struct {
		target, client string
		status         int
	}{
		{"/boot/start.ipxe?node_ip=192.168.152.2", "192.168.152.2", 200}, // as before kexec
		{"/boot/start.ipxe?node_ip=192.168.152.2", "192.168.152.1", 200}, // a virtual node
		{"/boot/start.ipxe?node_ip=192.168.152.2", "10.0.0.1", 200},      // a user
		{"/boot/start.ipxe?node_ip=192.168.152.2", "192.168.152.3", 400},
		{"/walt-vpn/per-ip/192-168-152-2/start.ipxe", "192.168.152.2", 200},
		{"/walt-vpn/per-ip/192-168-152-2/start.ipxe", "10.0.0.1", 200}, // the proxy of the HTTP entrypoint
		{"/walt-vpn/per-ip/192-168-152-2/start.ipxe", "192.168.152.3", 400},
		{"/walt-vpn/per-ip/192-168-152-2/start.ipxe?fake_requester_ip=192.168.152.2", "192.168.152.3", 400},
	} {
		if status, text := ask(t, h, c.target, c.client); status != c.status {
			t.Errorf("%s of %s: %d %q", c.target, c.client, status, text)
		}
	}
}

// TestDefectN4DirectoryIsNoFile is node-protocols 9.1, row 4: such a request ended the daemon.
func TestDefectN4DirectoryIsNoFile(t *testing.T) {
	h, _ := newPlatform(t)
	for _, name := range []string{"/boot/", "/boot/.", "/boot/QEMU", "/boot/QEMU/"} {
		if status, text := ask(t, h, name, "192.168.152.2"); status != 404 || text != "No such file.\n" {
			t.Errorf("%s: %d %q", name, status, text)
		}
	}
}

// TestDefectN14AddressesOfClients is node-protocols 9.1, row 14: only the prefix of an
// address is taken away.
func TestDefectN14AddressesOfClients(t *testing.T) {
	for remote, want := range map[string]string{
		"192.168.152.2:1": "192.168.152.2", "[::ffff:192.168.152.2]:1": "192.168.152.2", "[::1]:1": "::1",
		"[fd00::f]:1": "fd00::f", "[fe80::2%eth0]:1": "fe80::2", "[::f]:1": "::f",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = remote
		if got, err := peer(r); err != nil || got.String() != want {
			t.Errorf("%s is %v, %v", remote, got, err)
		}
	}
}

func TestEnrolment(t *testing.T) {
	h, p := newPlatform(t)
	form := func(field string, size int) (string, []byte) {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		part, err := w.CreateFormFile(field, "key.pub")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := part.Write(bytes.Repeat([]byte("k"), size)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return w.FormDataContentType(), b.Bytes()
	}
	rpi := state.Fixed(state.Snapshot{Version: 1, Devices: []state.Device{{MAC: "02:00:00:00:00:05", IP: "192.168.152.5", Name: "r", Type: "node", Model: "rpi-5-b"}}})
	for _, c := range []struct {
		client, field string
		size          int
		want          string
	}{
		{"192.168.152.2", "ssh-pubkey", 100, "VPN enrollment request not coming from a rpi5 node of the WalT network.\n"},
		{"192.168.152.5", "ssh-pubkey", 100, "The VPN entrypoint is not fully configured (use 'walt-server-setup --edit-conf' on server-side).\n"},
		{"192.168.152.5", "other", 100, "Public key not provided.\n"},
		{"192.168.152.5", "ssh-pubkey", 2 * maxEnrolment, "Invalid request.\n"},
	} {
		if c.client == "192.168.152.5" {
			p.Watcher = rpi
		}
		kind, content := form(c.field, c.size)
		r := httptest.NewRequest("POST", "/walt-vpn/enroll", bytes.NewReader(content))
		r.RemoteAddr = c.client + ":1000"
		r.Header.Set("Content-Type", kind)
		r.Header.Set("Prefer", "errors=text-only")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 400 || w.Body.String() != c.want {
			t.Errorf("%+v: %d %q", c, w.Code, w.Body.String())
		}
	}
	if r := get(t, h, "GET", "/walt-vpn/enroll", "127.0.0.1"); r.StatusCode != 405 || r.Header.Get("Allow") != "POST" {
		t.Errorf("GET: %d, Allow %q", r.StatusCode, r.Header.Get("Allow"))
	}
}

func TestMetricsAreForUsers(t *testing.T) {
	h, p := newPlatform(t)
	if status, _ := ask(t, h, "/metrics", "192.168.152.2"); status != 403 {
		t.Errorf("a node: %d", status)
	}
	for _, away := range []bool{false, true} {
		p.away = away
		r := get(t, h, "GET", "/metrics", "10.1.2.3")
		parser := expfmt.NewTextParser(model.LegacyValidation)
		families, err := parser.TextToMetricFamilies(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		if r.StatusCode != 200 || expfmt.ResponseFormat(r.Header) == expfmt.NewFormat(expfmt.TypeUnknown) {
			t.Errorf("%d %v", r.StatusCode, r.Header)
		}
		up := families["walt_process_up"].GetMetric()[0].GetGauge().GetValue()
		if (up == 0) != away {
			t.Errorf("up %v while the daemon is away: %v", up, away)
		}
		for name, labels := range map[string]string{
			"walt_nodes": `state:booted`, "walt_http_requests_total": `route:/metrics code:403`, "process_open_fds": "process:httpd",
		} {
			var have []string
			found := false
			for _, m := range families[name].GetMetric() {
				var parts []string
				for _, l := range m.GetLabel() {
					parts = append(parts, l.GetName()+":"+l.GetValue())
				}
				have = append(have, strings.Join(parts, " "))
				found = found || strings.Join(parts, " ") == labels
			}
			if !found {
				t.Errorf("%s lacks %s: %q", name, labels, have)
			}
		}
	}
}

func TestReadiness(t *testing.T) {
	h, p := newPlatform(t)
	p.missing = []state.NotReady{{Part: "database", Reason: "cannot reach it"}}
	if status, text := ask(t, h, "/readyz", "192.168.152.2"); status != 503 || text != `[{"part":"database","reason":"cannot reach it"}]` {
		t.Errorf("%d %s", status, text)
	}
	p.away = true
	if status, text := ask(t, h, "/readyz", "192.168.152.2"); status != 503 || !strings.HasPrefix(text, `[{"part":"server-main","reason":"it does not answer: `) {
		t.Errorf("%d %s", status, text)
	}
}

// serveOn serves a platform on a real socket and returns its address.
func serveOn(t *testing.T, p *platform) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, ln, Config{State: p, Tree: &bootfile.Tree{Network: netip.MustParsePrefix("192.168.152.1/24"), State: p}})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

const logsTarget = "/api/v1/logs?from=1700000000&to=1700000001"

// TestHistoryIsSentAsItComes reads a history far larger than what the service may hold.
func TestHistoryIsSentAsItComes(t *testing.T) {
	const parts, lines = 40, 4096
	_, p := newPlatform(t)
	text := strings.Repeat("x", 200)
	p.logs = func(_ context.Context, send func(state.LogsPart) error) error {
		part := state.LogsPart{Count: parts * lines}
		for range lines {
			part.Records = append(part.Records, state.LogRecord{Timestamp: 1700000000.5, Line: text, Issuer: "n1", Stream: "s"})
		}
		for range parts {
			if err := send(part); err != nil {
				return err
			}
		}
		return nil
	}
	r, err := nethttp.Get("http://" + serveOn(t, p) + logsTarget)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	all, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(all, []byte(text)); n != parts*lines || !bytes.HasPrefix(all, fmt.Appendf(nil, `{"num_logs":%d,"logs":[{"timestamp":1700000000.5,`, n)) || !bytes.HasSuffix(all, []byte("}]}")) {
		t.Errorf("%d lines in %d bytes", n, len(all))
	}
}

// TestHistoryEndsWithItsReader shows that a client that goes away ends the reading, and
// that a reading that fails is not taken for a whole one.
func TestHistoryEndsWithItsReader(t *testing.T) {
	_, p := newPlatform(t)
	ended := make(chan error, 1)
	p.logs = func(ctx context.Context, send func(state.LogsPart) error) error {
		if err := send(state.LogsPart{Count: 1 << 40}); err != nil {
			return err
		}
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	address := serveOn(t, p)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: srv\r\n\r\n", logsTarget)
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "HTTP/1.1 200 OK\r\n" {
		t.Fatalf("%q, %v", line, err)
	}
	conn.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}

	p.logs = func(_ context.Context, send func(state.LogsPart) error) error {
		if err := send(state.LogsPart{Count: 2, Records: []state.LogRecord{{Line: "first"}}}); err != nil {
			return err
		}
		return errors.New("the database is away")
	}
	r, err := nethttp.Get("http://" + address + logsTarget)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if all, err := io.ReadAll(r.Body); err == nil {
		t.Errorf("taken for whole: %s", all)
	}
	p.away = true
	if r, err := nethttp.Get("http://" + address + logsTarget); err != nil || r.StatusCode != 500 {
		t.Errorf("daemon away: %v, %v", r, err)
	}
}

// TestSilentClientsDelayNobody opens 100 connections that say nothing, or not all.
func TestSilentClientsDelayNobody(t *testing.T) {
	_, p := newPlatform(t)
	address := serveOn(t, p)
	for i := range 100 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%2 == 0 {
			fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost:")
		}
	}
	client := nethttp.Client{Timeout: 20 * time.Second}
	r, err := client.Get("http://" + address + "/api/v1/nodes")
	if err != nil || r.StatusCode != 200 {
		t.Errorf("%v, %v", r, err)
	}
}

// FuzzLogsRequest checks that what is accepted of a query is within its bounds.
func FuzzLogsRequest(f *testing.F) {
	for _, query := range []string{"from=1700000000&to=1700000001&stream=a.*&issuer=n1", "from=1e3&to=x", "from=1700000000000&to=1700000000001&ts_unit=ms&stream=[[:alpha:]]{2}"} {
		f.Add(query)
	}
	h := &handler{cfg: Config{Now: func() time.Time { return now }}}
	f.Fuzz(func(t *testing.T, query string) {
		request, unit, err := h.logsRequest((&url.URL{RawQuery: query}).Query())
		if err != nil {
			if f := (*failure)(nil); !errors.As(err, &f) || f.status != 400 {
				t.Fatalf("%q: %v", query, err)
			}
			return
		}
		latest := float64(now.Unix() + 2)
		if unit != 1 && unit != 1000 || !(request.From >= projectStart && request.From <= latest && request.To >= projectStart && request.To <= latest) {
			t.Fatalf("%q: %+v, %v", query, request, unit)
		}
	})
}

// TestHistoriesTakeTurns shows that only so many histories are read at the same time.
func TestHistoriesTakeTurns(t *testing.T) {
	_, p := newPlatform(t)
	begun, release := make(chan struct{}), make(chan struct{})
	p.logs = func(ctx context.Context, send func(state.LogsPart) error) error {
		select {
		case begun <- struct{}{}:
		case <-ctx.Done():
		}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return send(state.LogsPart{})
	}
	address := serveOn(t, p)
	ended := make(chan error, maxHistories+1)
	for range maxHistories + 1 {
		go func() {
			r, err := nethttp.Get("http://" + address + logsTarget)
			if err == nil {
				_, err = io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
			ended <- err
		}()
	}
	for range maxHistories {
		<-begun
	}
	select {
	case <-begun:
		t.Error("one more is read")
	case release <- struct{}{}:
		<-begun // its turn has come
	}
	close(release)
	for range maxHistories + 1 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// TestImpatience shows that the kernel ends connections whose clients take nothing.
func TestImpatience(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := impatient{ln}.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var set int
	var failed error
	if err := raw.Control(func(fd uintptr) { set, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) }); err != nil {
		t.Fatal(err)
	}
	if failed != nil || time.Duration(set)*time.Millisecond != stallTimeout {
		t.Errorf("%d ms, %v", set, failed)
	}
}
