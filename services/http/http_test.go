package http

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waltos/waltos/services/bootfile"
	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/metrics"
	"github.com/waltos/waltos/services/state"
)

// platform is a state whose daemon answers image and log requests.
type platform struct {
	*state.Watcher
	mu      sync.Mutex
	asked   []any // guarded by mu
	away    bool
	missing []state.NotReady
	// logs sends the parts of a history; nil: one line.
	logs func(ctx context.Context, send func(state.LogsPart) error) error
}

// Stream plays server-main; parts travel as they do between processes.
func (p *platform) Stream(ctx context.Context, method string, arg any, take func(decode func(any) error) error) error {
	if p.away || method != state.StreamLogs {
		return errors.New("the other process went away")
	}
	p.mu.Lock()
	p.asked = append(p.asked, arg)
	p.mu.Unlock()
	send := func(part state.LogsPart) error {
		encoded, err := connector.Encode(part)
		if err != nil {
			return err
		}
		return take(func(v any) error { return connector.Decode(encoded, v) })
	}
	if p.logs != nil {
		return p.logs(ctx, send)
	}
	if err := send(state.LogsPart{Count: 1}); err != nil {
		return err
	}
	return send(state.LogsPart{Count: 1, Records: []state.LogRecord{{Timestamp: 1700000000.5, Line: "<a> & b", Issuer: "n1", Stream: "s"}}})
}

func (p *platform) Call(_ context.Context, method string, arg, reply any) error {
	if p.away {
		return errors.New("the other process went away")
	}
	p.mu.Lock()
	p.asked = append(p.asked, arg)
	p.mu.Unlock()
	switch reply := reply.(type) {
	case *[]state.Image:
		*reply = []state.Image{
			{FullName: "bob/img:latest", User: "bob", ID: "1", InUse: true, Created: "2026-11-22 10:00:00", Compatibility: []string{"pc-x86-64"}},
			{FullName: "waltplatform/x:latest", User: "waltplatform", ID: "2"},
		}
	case *[]state.NotReady:
		*reply = p.missing
	case *[]metrics.Family:
		*reply = []metrics.Family{metrics.Gauge("walt_process_up", "Up.", metrics.Value(1, "process", "server-main"))}
	default:
		return fmt.Errorf("no such method: %s", method)
	}
	return nil
}

var now = time.Unix(1800000000, 0)

// newPlatform makes a node n1 at 192.168.152.2 and n2 at 127.0.0.1, with boot files.
func newPlatform(t testing.TB) (nethttp.Handler, *platform) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "fs")
	dir := filepath.Join(root, "boot/pc-x86-64")
	for name, text := range map[string]string{
		"kernel":     strings.Repeat("k", 3<<20),
		"start.ipxe": "#!ipxe\n",
		"QEMU/Standard PC (i440FX + PIIX, 1996)/boot-params.ipxe": "params",
		"../../../secret": "secret",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	doc := t.TempDir()
	if err := os.Mkdir(filepath.Join(doc, "_static"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"index.html": "<p>doc", "_static/font.woff2": "font"} {
		if err := os.WriteFile(filepath.Join(doc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := &platform{Watcher: state.Fixed(state.Snapshot{Version: 1, Devices: []state.Device{
		{MAC: "02:00:00:00:00:02", IP: "192.168.152.2", Name: "n1", Type: "node", Model: "pc-x86-64", Booted: true,
			Image: "waltplatform/pc-x86-64-default:latest", Root: root, BootDir: dir,
			Config: map[string]any{"netsetup": "LAN", "boot.timeout": 180}},
		{MAC: "02:00:00:00:00:03", IP: "127.0.0.1", Name: "n2", Type: "node", Model: "pc-x86-32", Virtual: true, Image: "bob/i<&>:x",
			Root: root, BootDir: dir},
		{MAC: "02:00:00:00:00:04", IP: "192.168.152.4", Name: "sw", Type: "switch"},
	}})}
	return NewHandler(Config{
		Tree:  &bootfile.Tree{Network: netip.MustParsePrefix("192.168.152.1/24"), Static: filepath.Join(doc, "none"), State: p},
		State: p, Doc: doc, Name: "localhost", Server: netip.MustParsePrefix("192.168.152.1/24"),
		Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		Now:     func() time.Time { return now },
	}), p
}

// get asks the handler directly; the target is not cleaned in any way.
func get(t testing.TB, h nethttp.Handler, method, target, client string, header ...string) *nethttp.Response {
	t.Helper()
	r, err := nethttp.ReadRequest(bufio.NewReader(strings.NewReader(method + " " + target + " HTTP/1.1\r\nHost: srv\r\n\r\n")))
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(client), 4000).String()
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t testing.TB, r *nethttp.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestBootFiles(t *testing.T) {
	h, _ := newPlatform(t)
	for _, c := range []struct {
		target, client string
		status         int
		body           string
	}{
		{"/boot/start.ipxe", "192.168.152.2", 200, "#!ipxe\n"},
		{"/boot/start.ipxe", "::ffff:192.168.152.2", 200, "#!ipxe\n"},
		{"/boot//start.ipxe", "192.168.152.2", 200, "#!ipxe\n"},
		{"/boot/start.ipxe?node_ip=192.168.152.2", "10.0.0.1", 200, "#!ipxe\n"},
		{"/boot/QEMU/Standard%20PC%20(i440FX%20+%20PIIX,%201996)/boot-params.ipxe", "192.168.152.2", 200, "params"},
		{"/boot/start.ipxe", "192.168.152.99", 404, "No such file.\n"},
		{"/boot/start.ipxe", "192.168.152.4", 404, "No such file.\n"},
		{"/boot/missing", "192.168.152.2", 404, "No such file.\n"},
		{"/boot/", "192.168.152.2", 404, "No such file.\n"},
		{"/boot/QEMU", "192.168.152.2", 404, "No such file.\n"},
		{"/boot/../../../secret", "192.168.152.2", 400, "Invalid path.\n"},
		{"/boot/%2e%2e/%2e%2e/%2e%2e/secret", "192.168.152.2", 400, "Invalid path.\n"},
		{"/boot/..%2f..%2f..%2fsecret", "192.168.152.2", 400, "Invalid path.\n"},
		{"/boot/a%00b", "192.168.152.2", 404, "No such file.\n"},
		{"/boot/start.ipxe?node_ip=192.168.152.2", "192.168.152.1", 200, "#!ipxe\n"}, // a virtual node
		{"/boot/start.ipxe?node_ip=x", "192.168.152.2", 400, "Invalid node_ip.\n"},
	} {
		r := get(t, h, "GET", c.target, c.client, "Prefer", "errors=text-only")
		if got := body(t, r); r.StatusCode != c.status || got != c.body {
			t.Errorf("%s of %s: %d %q, want %d %q", c.target, c.client, r.StatusCode, got, c.status, c.body)
		}
	}
	r := get(t, h, "HEAD", "/boot/kernel", "192.168.152.2")
	if r.StatusCode != 200 || r.Header.Get("Content-Length") != "3145728" || body(t, r) != "" || r.Header.Get("Content-Type") != textType {
		t.Errorf("HEAD: %d, %v", r.StatusCode, r.Header)
	}
	r = get(t, h, "GET", "/boot/kernel", "192.168.152.2", "Range", "bytes=10-19")
	if r.StatusCode != 206 || len(body(t, r)) != 10 {
		t.Errorf("range: %d, %v", r.StatusCode, r.Header)
	}
}

func TestPagesAndErrors(t *testing.T) {
	h, p := newPlatform(t)
	for _, c := range []struct {
		method, target, prefer string
		status                 int
		kind, holds            string
	}{
		{"GET", "/", "", 200, textType, "WalT server HTTP service"},
		{"GET", "/index.html", "", 200, textType, "Available sub-directories:"},
		{"GET", "/api", "", 200, textType, "WalT web API"},
		{"GET", "/api/index.html", "", 200, textType, "/api/v1/nodes"},
		{"GET", "/doc", "", 303, textType, ""},
		{"GET", "/favicon.ico", "", 303, textType, ""},
		{"GET", "/doc/", "", 200, "text/html; charset=utf-8", "<p>doc"},
		{"GET", "/doc/missing", "errors=text-only", 404, "text/plain; charset=UTF-8", "File does not exist.\n"},
		{"GET", "/doc/../../x", "errors=text-only", 404, "text/plain; charset=UTF-8", "File does not exist.\n"},
		{"GET", "/doc/_static/font.woff2", "", 200, "font/woff2", "font"},
		{"GET", "/readyz", "", 200, "application/json", "[]"},
		{"GET", "/walt-vpn/server", "", 200, textType, "localhost"},
		{"GET", "/walt-vpn/node-conf/vpn-mac", "", 200, textType, ""},
		{"GET", "/walt-vpn/node-conf/ssh-pubkey-cert", "", 200, textType, ""},
		{"GET", "/walt-vpn/node-conf/http-path", "", 200, textType, "walt-vpn/per-ip/127-0-0-1"},
		{"GET", "/walt-vpn/node-conf/http-path?fake_requester_ip=192.168.152.2", "", 200, textType, "walt-vpn/per-ip/192-168-152-2"},
		{"GET", "/walt-vpn/node-conf/public.pem", "errors=text-only", 404, "text/plain; charset=UTF-8", "File does not exist.\n"},
		{"GET", "/walt-vpn/per-ip/192-168-152-2/start.ipxe", "", 200, textType, "#!ipxe\n"},
		{"GET", "/walt-vpn/per-ip/192-168-152-2/boot.sig", "errors=text-only", 404, "text/plain; charset=UTF-8", "No such file.\n"},
		{"GET", "/walt-vpn/per-ip/x/start.ipxe", "errors=text-only", 400, "text/plain; charset=UTF-8", "Invalid request.\n"},
		{"GET", "/walt-vpn/other", "errors=text-only", 404, "text/plain; charset=UTF-8", "Not found: '/walt-vpn/other'\n"},
		{"POST", "/walt-vpn/enroll", "errors=text-only", 400, "text/plain; charset=UTF-8", "Public key not provided.\n"},
		{"GET", "/x", "", 404, textType, "<title>Error: 404 Not Found</title>"},
		{"GET", "/<x>", "", 404, textType, "Not found: &#39;/&lt;x&gt;&#39;"},
		{"GET", "/x", "errors=text-only", 404, "text/plain; charset=UTF-8", "Not found: '/x'\n"},
		{"GET", "/x", "errors=json", 404, "application/json", `{"error":"Not found: '/x'","status_code":404}`},
		{"POST", "/api/v1/nodes", "errors=text-only", 405, "text/plain; charset=UTF-8", "Method not allowed.\n"},
		{"DELETE", "/boot/kernel", "errors=text-only", 405, "text/plain; charset=UTF-8", "Method not allowed.\n"},
	} {
		r := get(t, h, c.method, c.target, "127.0.0.1", "Prefer", c.prefer)
		got := body(t, r)
		if r.StatusCode != c.status || r.Header.Get("Content-Type") != c.kind || !strings.Contains(got, c.holds) {
			t.Errorf("%s %s: %d %s %q", c.method, c.target, r.StatusCode, r.Header.Get("Content-Type"), got)
		}
		if r.Header.Get("Content-Length") == "" {
			t.Errorf("%s %s: no Content-Length", c.method, c.target)
		}
		if allow := r.Header.Get("Allow"); (allow == "GET,HEAD") != (c.status == 405) {
			t.Errorf("%s %s: Allow %q", c.method, c.target, allow)
		}
	}
	if got := get(t, h, "GET", "/doc", "127.0.0.1").Header.Get("Location"); got != "http://srv/doc/" {
		t.Errorf("Location %q", got)
	}
	p.away = true
	if r := get(t, h, "GET", "/api/v1/images", "127.0.0.1", "Prefer", "errors=text-only"); r.StatusCode != 500 {
		t.Errorf("daemon away: %d", r.StatusCode)
	}
}

func TestNodes(t *testing.T) {
	h, _ := newPlatform(t)
	r := get(t, h, "GET", "/api/v1/nodes", "127.0.0.1")
	want := `{"num_nodes":2,"nodes":[` +
		`{"name":"n1","model":"pc-x86-64","virtual":false,"image":"waltplatform/pc-x86-64-default:latest","booted":true,` +
		`"ip":"192.168.152.2","mac":"02:00:00:00:00:02","config":{"boot.timeout":180,"netsetup":"LAN"}},` +
		`{"name":"n2","model":"pc-x86-32","virtual":true,"image":"bob/i<&>:x","booted":false,` +
		`"ip":"127.0.0.1","mac":"02:00:00:00:00:03","config":{}}]}`
	if got := body(t, r); got != want || r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s\nwant %s", got, want)
	}
	for query, want := range map[string]string{
		"name=n1":                   "n1",
		"name=":                     "n1 n2",
		"name=x&name=n2":            "n2",
		"booted=true":               "n1",
		"booted=1":                  "n1",
		"booted=0":                  "n2",
		"virtual=false&booted=true": "n1",
		"virtual=true&booted=true":  "",
		"model=pc-x86-32":           "n2",
		"ip=192.168.152.2":          "n1",
		"mac=02:00:00:00:00:03":     "n2",
		"image=bob/i%3C%26%3E:x":    "n2",
		"booted=null":               "400 cannot interpret 'null' as a 'bool'.\n",
		"booted=True":               "400 cannot interpret 'True' as a 'bool'.\n",
		"config=x":                  "400 'config' is not a valid filtering field.\n",
		"type=":                     "400 'type' is not a valid filtering field.\n",
	} {
		r := get(t, h, "GET", "/api/v1/nodes?"+query, "127.0.0.1", "Prefer", "errors=text-only")
		text := body(t, r)
		got := fmt.Sprintf("%d %s", r.StatusCode, text)
		if r.StatusCode == 200 {
			var answer struct {
				Nodes []struct{ Name string } `json:"nodes"`
			}
			if err := json.Unmarshal([]byte(text), &answer); err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, n := range answer.Nodes {
				names = append(names, n.Name)
			}
			got = strings.Join(names, " ")
		}
		if got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

func TestImagesAndLogs(t *testing.T) {
	h, p := newPlatform(t)
	r := get(t, h, "GET", "/api/v1/images?in_use=false&refresh=true", "127.0.0.1")
	if got, want := body(t, r), `{"num_images":1,"images":[{"fullname":"waltplatform/x:latest","user":"waltplatform","id":"2","in_use":false,"created":"","compatibility":[]}]}`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	r = get(t, h, "GET", "/api/v1/logs?from=1700000000000&to=1700000001000&ts_unit=ms&issuer=n1&stream=s.*", "127.0.0.1")
	if got, want := body(t, r), `{"num_logs":1,"logs":[{"timestamp":1700000000500,"line":"<a> & b","issuer":"n1","stream":"s"}]}`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	r = get(t, h, "HEAD", "/api/v1/logs?from=1700000000&to=1700000001", "127.0.0.1")
	if got := body(t, r); got != "" || r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("HEAD: %d %v %q", r.StatusCode, r.Header, got)
	}
	p.asked = p.asked[:2]
	if want := []any{state.ImagesRequest{Refresh: true}, state.LogsRequest{From: 1.7e9, To: 1700000001, Issuer: "n1", Stream: "s.*"}}; !reflect.DeepEqual(p.asked, want) {
		t.Errorf("asked %+v", p.asked)
	}
	for query, want := range map[string]string{
		"":                       "Query parameters 'from' and 'to' are required.\n",
		"from=1700000000":        "Query parameters 'from' and 'to' are required.\n",
		"from=x&to=1700000000":   "cannot interpret 'x' as a 'float'.\n",
		"from=1700000000&to=nan": "cannot interpret 'nan' as a 'float'.\n",
		"from=1700000000&to=1700000000&ts_unit=m": "Query parameter 'ts_unit' should be 's' (seconds) or 'ms' (milliseconds)\n",
		"from=1&to=1700000000":                    "Query parameter 'ts_from' is invalid (earlier than WALT project startup date!)\n",
		"from=1700000000&to=1800000003":           "Query parameter 'ts_to' is invalid, it refers to a date in the future.\nNote: you can use 'ts_unit' query parameter to specify the unit (i.e. 's' for seconds, 'ms' for milliseconds).\n",
	} {
		r := get(t, h, "GET", "/api/v1/logs?"+query, "127.0.0.1", "Prefer", "errors=text-only")
		if got := body(t, r); r.StatusCode != 400 || got != want {
			t.Errorf("%s: %d %q, want %q", query, r.StatusCode, got, want)
		}
	}
}

// TestServe uses one connection for many requests, and a real client.
func TestServe(t *testing.T) {
	h, p := newPlatform(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	cfg := h.(*handler).cfg
	cfg.State = p
	go func() { done <- Serve(ctx, ln, cfg) }()

	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	for _, target := range []string{"/boot/start.ipxe", "/boot/missing", "/boot/QEMU", "/boot/../x", "/boot/kernel", "/api/v1/nodes"} {
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: srv\r\nUser-Agent: iPXE/1.21.1+ (gd79f5)\r\nConnection: keep-alive\r\n\r\n", target)
		r, err := nethttp.ReadResponse(reader, nil)
		if err != nil {
			t.Fatalf("%s: %v", target, err)
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil || n != r.ContentLength || n == 0 {
			t.Errorf("%s: %d bytes of %d, %v", target, n, r.ContentLength, err)
		}
	}
	if curl, err := exec.LookPath("curl"); err == nil {
		out, err := exec.CommandContext(t.Context(), curl, "-s", "--path-as-is", "--noproxy", "*", "-w", " %{http_code}",
			"http://"+ln.Addr().String()+"/boot/QEMU/Standard%20PC%20(i440FX%20+%20PIIX,%201996)/boot-params.ipxe?node_ip=192.168.152.2").Output()
		if err != nil || string(out) != "params 200" {
			t.Errorf("curl: %q, %v", out, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// FuzzRequest checks that no request ends the server or reads the secret.
func FuzzRequest(f *testing.F) {
	for _, target := range []string{"/", "/walt-vpn/per-ip/192-168-152-2/../../secret?fake_requester_ip=::1", "/doc/../index.html", "/boot/kernel?node_ip=192.168.152.2", "/boot/../../../secret", "/api/v1/logs?from=1&to=2", "/api/v1/nodes?booted=[]"} {
		f.Add(target)
	}
	h, _ := newPlatform(f)
	f.Fuzz(func(t *testing.T, target string) {
		r, err := nethttp.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: srv\r\n\r\n")))
		if err != nil {
			return
		}
		r.RemoteAddr = "192.168.152.2:99"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Body.String() == "secret" {
			t.Fatalf("%q reads the secret", target)
		}
	})
}

func TestDocumentationIsConditional(t *testing.T) {
	h, _ := newPlatform(t)
	r := get(t, h, "GET", "/doc/", "127.0.0.1")
	date := r.Header.Get("Last-Modified")
	if date == "" || body(t, r) != "<p>doc" {
		t.Fatalf("%v", r.Header)
	}
	if r := get(t, h, "GET", "/doc/index.html", "127.0.0.1", "If-Modified-Since", date); r.StatusCode != 304 || body(t, r) != "" {
		t.Errorf("not modified: %d", r.StatusCode)
	}
	if r := get(t, h, "GET", "/doc/index.html", "127.0.0.1", "Range", "bytes=3-"); r.StatusCode != 206 || body(t, r) != "doc" {
		t.Errorf("range: %d", r.StatusCode)
	}
	if r := get(t, h, "GET", "/doc/index.html", "127.0.0.1", "Range", "bytes=99-"); r.StatusCode != 416 {
		t.Errorf("range beyond the end: %d", r.StatusCode)
	}
	if r := get(t, h, "HEAD", "/doc/", "127.0.0.1"); r.StatusCode != 200 || r.Header.Get("Content-Length") != "6" || body(t, r) != "" {
		t.Errorf("HEAD: %d, %v", r.StatusCode, r.Header)
	}
}

// TestRedirectOfHTTP10 has a client that knows neither status 303 nor the header Host.
func TestRedirectOfHTTP10(t *testing.T) {
	_, p := newPlatform(t)
	address := serveOn(t, p)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /doc HTTP/1.0\r\n\r\n")
	r, err := nethttp.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || r.StatusCode != 302 || r.Header.Get("Location") != "http://"+address+"/doc/" {
		t.Errorf("%v, %v", r, err)
	}
}
