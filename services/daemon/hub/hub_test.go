package hub

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/daemon/session"
	"github.com/waltos/waltos/services/wire/client"
	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/services/wire/rpc"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
	os.Exit(m.Run())
}

// platform is a hub with a server-main of which tests give the methods.
type platform struct {
	t       testing.TB
	address string
	socket  string
	hub     *Hub
	stop    func() // ends server-main
}

type method func(ctx context.Context, s *session.Session, args pickle.Tuple) (any, error)

type methods map[string]method

func (m methods) Call(ctx context.Context, s *session.Session, name string, args pickle.Tuple, kwargs *pickle.Dict) (any, error) {
	f, ok := m[name]
	if !ok {
		return nil, fmt.Errorf("unknown method %s", name)
	}
	return f(ctx, s, args)
}

func start(t testing.TB, access Access, m methods) *platform {
	t.Helper()
	p := &platform{t: t, socket: filepath.Join(t.TempDir(), "main.sock")}
	p.startMain(m)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := New(Config{MainSocket: p.socket, Access: access})
	p.hub = h
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- h.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			t.Errorf("Serve: %v", err)
		}
		h.Close()
		if _, held := h.quota.Held(netip.Addr{}); len(h.sessions) > 0 || held > 0 {
			t.Errorf("the hub keeps %d sessions, %d connections", len(h.sessions), held)
		}
		if taken := h.memory.taken.Load(); taken != 0 {
			t.Errorf("the hub counts %d bytes of messages after their end", taken)
		}
	})
	p.address = ln.Addr().String()
	return p
}

func (p *platform) startMain(m methods) {
	p.t.Helper()
	ln, err := net.Listen("unix", p.socket)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- session.Serve(ctx, ln, m) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		<-over
	})
	p.t.Cleanup(p.stop)
}

func (p *platform) dial(o client.Options) *client.Session {
	p.t.Helper()
	s, err := client.Dial(p.t.Context(), p.address, o)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { s.Close() })
	return s
}

// talk sends bytes, and reads until the hub closes or has sent want.
func (p *platform) talk(data, want string) string {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.address)
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, data)
	var got strings.Builder
	r := bufio.NewReader(conn)
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	for want == "" || got.String() != want {
		c, err := r.ReadByte()
		if err != nil {
			break
		}
		got.WriteByte(c)
	}
	return got.String()
}

func TestCalls(t *testing.T) {
	p := start(t, Open, methods{
		"get_time": func(context.Context, *session.Session, pickle.Tuple) (any, error) { return 1718000000.5, nil },
		"fail": func(context.Context, *session.Session, pickle.Tuple) (any, error) {
			return nil, errors.New("cannot do it:\nno")
		},
		"panic": func(context.Context, *session.Session, pickle.Tuple) (any, error) { panic("oops") },
		"greet": func(ctx context.Context, s *session.Session, _ pickle.Tuple) (any, error) {
			name, err := s.Callback(ctx, "get_username")
			if err != nil {
				return nil, err
			}
			for _, path := range []string{"stdout.write", "stderr.write"} {
				if _, err := s.Callback(ctx, path, fmt.Sprintf("%s for %s\n", path, name)); err != nil {
					return nil, err
				}
			}
			return pickle.Tuple{"n1", "n2"}, nil
		},
	})
	for _, mode := range []rpc.Mode{rpc.Pickle, rpc.Lines} {
		var out, errs bytes.Buffer
		s := p.dial(client.Options{Mode: mode, Handler: (&client.User{Name: "alice", Out: &out, Err: &errs}).Serve})
		if s.Version != "10.0" {
			t.Errorf("version %q", s.Version)
		}
		if v, err := s.Call(t.Context(), "get_time"); v != 1718000000.5 || err != nil {
			t.Errorf("get_time: %v, %v", v, err)
		}
		if v, err := s.Call(t.Context(), "greet"); fmt.Sprint(v) != "[n1 n2]" || err != nil {
			t.Errorf("greet: %v, %v", v, err)
		}
		if out.String() != "stdout.write for alice\n" || errs.String() != "stderr.write for alice\n" {
			t.Errorf("output %q, %q", out.String(), errs.String())
		}
		for name, want := range map[string]string{"fail": "cannot do it: no", "panic": "oops", "none": "unknown method none"} {
			_, err := s.Call(t.Context(), name)
			var exception *client.Exception
			if !errors.As(err, &exception) || !strings.Contains(exception.Text, want) || strings.Contains(exception.Text, "\n") {
				t.Errorf("%s: got %v", name, err)
			}
		}
	}
}

// TestNodeScript is the exact exchange of the script injected in images.
func TestNodeScript(t *testing.T) {
	p := start(t, Open, methods{
		"sync_clock": func(context.Context, *session.Session, pickle.Tuple) (any, error) { return 1718000000, nil },
	})
	got := p.talk("REQ_API_SESSION\nNSAPI\n('API_CALL', 'sync_clock', (), {})\n('CLOSE')\n", "10.0\n('RESULT', 1718000000)\n")
	if got != "10.0\n" && got != "10.0\n('RESULT', 1718000000)\n" { // CLOSE may come before the result
		t.Errorf("got %q", got)
	}
	if got := p.talk("REQ_API_SESSION\nNSAPI\n('API_CALL', 'sync_clock', (), {})\n", "10.0\n('RESULT', 1718000000)\n"); got != "10.0\n('RESULT', 1718000000)\n" {
		t.Errorf("got %q", got)
	}
}

// TestCN06NestedCalls is the exchange about credentials of client-api 1.4.
func TestCN06NestedCalls(t *testing.T) {
	var mu sync.Mutex
	var events []string
	event := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, fmt.Sprintf(format, args...))
	}
	nested := make(chan bool)
	p := start(t, Open, methods{
		"clone": func(ctx context.Context, s *session.Session, _ pickle.Tuple) (any, error) {
			other := make(chan error)
			go func() { // another task of the same call must wait for its turn
				<-nested
				_, err := s.Callback(ctx, "stdout.write", "other")
				other <- err
			}()
			v, err := s.Callback(ctx, "prompt_missing_registry_credentials", "hub")
			event("prompt answered %v %v", v, err)
			if err := <-other; err != nil {
				return nil, err
			}
			return "cloned", nil
		},
		"registry_login": func(ctx context.Context, s *session.Session, _ pickle.Tuple) (any, error) {
			close(nested)
			v, err := s.Callback(ctx, "get_registry_encrypted_credentials", "hub", 5)
			event("credentials %v %v", v, err)
			return true, nil
		},
	})
	user := &client.User{}
	user.Other = func(ctx context.Context, s *client.Session, path string, args pickle.Tuple, _ *pickle.Dict) (any, error) {
		event("client: %s", path)
		switch path {
		case "prompt_missing_registry_credentials":
			v, err := s.Call(ctx, "registry_login", args...)
			event("login %v %v", v, err)
			return nil, err
		case "get_registry_encrypted_credentials":
			return "secret", nil
		}
		return nil, errors.New(path)
	}
	v, err := p.dial(client.Options{Handler: user.Serve}).Call(t.Context(), "clone")
	if v != "cloned" || err != nil {
		t.Fatalf("got %v, %v", v, err)
	}
	want := "client: prompt_missing_registry_credentials; client: get_registry_encrypted_credentials; credentials secret <nil>; login true <nil>; prompt answered <nil> <nil>"
	if got := strings.Join(events, "; "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDisconnection(t *testing.T) {
	started := make(chan *session.Session, 1)
	ended := make(chan error, 1)
	p := start(t, Open, methods{
		"wait": func(ctx context.Context, s *session.Session, _ pickle.Tuple) (any, error) {
			started <- s
			<-ctx.Done()
			_, err := s.Callback(context.WithoutCancel(ctx), "stdout.write", "late")
			ended <- err
			return nil, nil
		},
		"ask": func(ctx context.Context, s *session.Session, _ pickle.Tuple) (any, error) {
			started <- s
			_, err := s.Callback(context.WithoutCancel(ctx), "get_username")
			ended <- err
			return nil, err
		},
	})
	for _, name := range []string{"wait", "ask"} {
		conn, err := net.Dial("tcp", p.address)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "10\nCSAPI\n('API_CALL', '%s', (), {})\n", name)
		s := <-started
		conn.Close()
		if err := <-ended; !errors.Is(err, session.ErrGone) {
			t.Errorf("%s: the callback got %v", name, err)
		}
		<-s.Context().Done()
	}
}

func TestCN05MainRestarts(t *testing.T) {
	started := make(chan bool)
	m := methods{
		"wait": func(ctx context.Context, _ *session.Session, _ pickle.Tuple) (any, error) {
			close(started)
			<-ctx.Done()
			return nil, ctx.Err()
		},
		"get_time": func(context.Context, *session.Session, pickle.Tuple) (any, error) { return 1.5, nil },
	}
	p := start(t, Open, m)
	s := p.dial(client.Options{})
	stopped := make(chan bool)
	go func() {
		<-started
		p.stop()
		close(stopped)
	}()
	_, err := s.Call(t.Context(), "wait")
	var exception *client.Exception
	if !errors.As(err, &exception) || !strings.Contains(exception.Text, "restarted") {
		t.Fatalf("call in flight: %v", err)
	}
	result := make(chan error)
	go func() {
		_, err := s.Call(t.Context(), "get_time")
		result <- err
	}()
	<-stopped
	p.startMain(m)
	if err := <-result; err != nil {
		t.Errorf("call while it restarts: %v", err)
	}
}

// CN-32: the result of a wait whose client gave up must not be
// taken for that of the next call.
func TestCN32AbandonedWait(t *testing.T) {
	started := make(chan bool, 1)
	p := start(t, Open, methods{
		waitMethod: func(ctx context.Context, _ *session.Session, _ pickle.Tuple) (any, error) {
			started <- true
			<-ctx.Done()
			return "late", nil
		},
		"get_time": func(context.Context, *session.Session, pickle.Tuple) (any, error) { return 7, nil },
	})
	conn, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	fmt.Fprintf(conn, "10\nCSAPI\n('API_CALL', '%s', ('n1',), {})\n", waitMethod)
	<-started
	io.WriteString(conn, "('API_CALL', 'get_time', (), {})\n")
	for _, want := range []string{"10.0", "('RESULT', 7)"} {
		if line, err := rpc.ReadLine(r, 100); line != want || err != nil {
			t.Errorf("got %q, %v; want %q", line, err, want)
		}
	}
}

func TestPipelinedCallsKeepTheirOrder(t *testing.T) {
	p := start(t, Open, methods{
		"echo": func(_ context.Context, _ *session.Session, args pickle.Tuple) (any, error) { return args[0], nil },
	})
	for _, api := range []string{"NSAPI", "CSAPI"} {
		data, want := "10\n"+api+"\n", "10.0\n"
		for i := range 20 {
			data += fmt.Sprintf("('API_CALL', 'echo', (%d,), {})\n", i)
			want += fmt.Sprintf("('RESULT', %d)\n", i)
		}
		if got := p.talk(data, want); got != want {
			t.Errorf("%s: got %q", api, got)
		}
	}
}

// TestDefectN2ClosedAPIs: nodes may call neither what users may nor what tools of the
// server may.
func TestDefectN2ClosedAPIs(t *testing.T) {
	site, err := hcl.ParseSite([]byte(`
network "walt-net" { ip = "192.168.152.1/24" }
access { clients = ["10.0.0.0/8"] }
`), "walt.hcl")
	if err != nil {
		t.Fatal(err)
	}
	access := SiteAccess(site)
	tests := []struct {
		peer  string
		local bool
		want  string
	}{
		{"192.168.152.7", false, "NSAPI VSAPI"},
		{"10.1.2.3", false, "CSAPI"},
		{"203.0.113.9", false, ""},
		{"192.168.152.1", true, "CSAPI NSAPI VSAPI SSAPI"},
		{"127.0.0.1", true, "CSAPI NSAPI VSAPI SSAPI"},
	}
	for _, test := range tests {
		var got []string
		for _, api := range apis {
			if access(api, netip.MustParseAddr(test.peer), test.local) {
				got = append(got, api)
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: got %v, want %s", test.peer, got, test.want)
		}
	}
}

func TestRefusedAPI(t *testing.T) {
	p := start(t, func(api string, _ netip.Addr, local bool) bool { return local && api != "SSAPI" }, methods{
		"get_time": func(context.Context, *session.Session, pickle.Tuple) (any, error) { return 7, nil },
	})
	for api, want := range map[string]string{"SSAPI": "is not open to 127.0.0.1", "XSAPI": "unknown target API", "__class__": "unknown target API"} {
		_, err := p.dial(client.Options{API: api}).Call(t.Context(), "get_time")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", api, err)
		}
	}
}

// TestCN02HostileBytes sends what is no protocol; each connection is closed and the next
// client is served.
func TestCN02HostileBytes(t *testing.T) {
	p := start(t, Open, methods{
		"get_time": func(context.Context, *session.Session, pickle.Tuple) (any, error) { return 7, nil },
		"ask": func(ctx context.Context, s *session.Session, _ pickle.Tuple) (any, error) {
			return s.Callback(ctx, "get_username")
		},
	})
	const open, binary = "10\nCSAPI\n", "10\nCSAPI\n('SET_MODE', 'pickle4')\n"
	tests := map[string]string{
		"stream id":           "0\nx\n",
		"HTTP":                "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"endless id":          strings.Repeat("1", 1<<16),
		"zeroes":              strings.Repeat("\x00", 1000),
		"endless API":         "10\n" + strings.Repeat("A", 1<<16),
		"code":                open + "__import__('os').system('id')\n",
		"endless line":        open + "(" + strings.Repeat("1,", 1<<18),
		"unknown mode":        open + "('SET_MODE', 'pickle9')\n",
		"short call":          open + "('API_CALL', 'get_time', ())\n",
		"stray result":        open + "('RESULT', 1)\n",
		"CLOSE":               open + "('CLOSE',)\n",
		"unknown message":     open + "('HELLO', 1)\n",
		"class in a pickle":   binary + "\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.",
		"deep pickle":         binary + "\x80\x04" + strings.Repeat("]", 1000) + strings.Repeat("a", 999) + ".",
		"huge str":            binary + "\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
		"doubling tuples":     binary + "\x80\x04)" + strings.Repeat("2\x86", 60) + ".",
		"line in pickle mode": binary + "('CLOSE',)\n",
		"many calls":          open + strings.Repeat("('API_CALL', 'ask', (), {})\n", 100),
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			got := p.talk(data, "") // returns when the hub has closed
			if strings.Contains(got, "RESULT") {
				t.Errorf("got %q", got)
			}
			if v, err := p.dial(client.Options{}).Call(t.Context(), "get_time"); v != int64(7) || err != nil {
				t.Errorf("the next client gets %v, %v", v, err)
			}
		})
	}
}

func TestEmptySessionsAreClosedQuietly(t *testing.T) {
	p := start(t, Open, nil)
	p.stop() // they do not concern server-main
	for _, data := range []string{"", "10", "10\n", "10\nCS", "10\nCSAPI\n", "10\nCSAPI\n('SET_MODE', 'pickle4')\n"} {
		conn, err := net.Dial("tcp", p.address)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, data)
		conn.Close()
	}
	for range 100 {
		s, err := client.Dial(t.Context(), p.address, client.Options{})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
}

// Those who connect and say nothing, or not all, delay nobody.
func TestCN07SilentPeersDelayNobody(t *testing.T) {
	p := start(t, Open, methods{"get_time": func(context.Context, *session.Session, pickle.Tuple) (any, error) { return int64(1), nil }})
	for i := range 100 {
		conn, err := net.Dial("tcp", p.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, []string{"", "1", "10\nCS", "10\nCSAPI\n('API_CALL', "}[i%4])
	}
	s, err := client.Dial(t.Context(), p.address, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if v, err := s.Call(t.Context(), "get_time"); v != int64(1) || err != nil {
		t.Errorf("got %v, %v", v, err)
	}
}

func TestConnectionsOfOneAddressAreBounded(t *testing.T) {
	p := start(t, Open, nil)
	var open []net.Conn
	defer func() {
		for _, conn := range open {
			conn.Close()
		}
	}()
	for range maxPerAddress {
		conn, err := net.Dial("tcp", p.address)
		if err != nil {
			t.Skipf("cannot open that many connections here: %v", err)
		}
		open = append(open, conn)
		io.WriteString(conn, "10\nCSAPI\n")
		if line, err := rpc.ReadLine(bufio.NewReader(conn), 10); line != Version || err != nil {
			t.Fatalf("connection %d: got %q, %v", len(open), line, err)
		}
	}
	if got := p.talk("10\nCSAPI\n", ""); got != "" {
		t.Errorf("one more gets %q", got)
	}
	open[0].Close()
	for { // until the hub has noticed
		s, err := client.Dial(t.Context(), p.address, client.Options{})
		if err == nil {
			s.Close()
			break
		}
	}
}

func TestMainFlags(t *testing.T) {
	site := filepath.Join(t.TempDir(), "site.hcl")
	if err := os.WriteFile(site, []byte(`network "walt-net" { ip = "192.168.152.1/24" }`), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error)
	go func() {
		over <- Main(ctx, []string{"-listen", "127.0.0.1:0", "-socket-dir", t.TempDir(), "-site", site})
	}()
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
	for _, args := range [][]string{{"-site", "/none"}, {"-listen", "256.0.0.1:1"}, {"-x"}} {
		if err := Main(t.Context(), args); err == nil {
			t.Errorf("%v: accepted", args)
		}
	}
}

func BenchmarkGetTime(b *testing.B) {
	p := start(b, Open, methods{
		"get_time": func(context.Context, *session.Session, pickle.Tuple) (any, error) { return 1718000000.5, nil },
	})
	b.RunParallel(func(pb *testing.PB) {
		s, err := client.Dial(context.Background(), p.address, client.Options{})
		if err != nil {
			b.Error(err)
			return
		}
		defer s.Close()
		for pb.Next() {
			if _, err := s.Call(context.Background(), "get_time"); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

func BenchmarkEmptySession(b *testing.B) {
	p := start(b, Open, nil)
	for b.Loop() {
		s, err := client.Dial(context.Background(), p.address, client.Options{})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
