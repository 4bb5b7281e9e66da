package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/logs/ere"
	"github.com/waltos/waltos/services/wire/pickle"
)

const (
	nodeMAC   = "52:54:00:00:00:02"
	serverMAC = "52:54:00:00:00:01"
)

// memory is a database that keeps lines in memory, and refuses them when told to.
type memory struct {
	mu     sync.Mutex
	refuse error
	gate   chan struct{} // if not nil, insertions wait for a value
	lines  []db.Line
	names  []string
}

func (m *memory) StreamIDs(_ context.Context, streams ...db.Stream) (ids []int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse != nil {
		return nil, m.refuse
	}
	for _, s := range streams {
		m.names = append(m.names, fmt.Sprint(s.IssuerMAC, " ", s.Name, " ", s.Chunk))
		ids = append(ids, int64(len(m.names)))
	}
	return ids, nil
}

func (m *memory) StageRows(context.Context, db.Batch, db.Rows) error { return nil }

func (m *memory) InsertRows(ctx context.Context, _ db.Batch, rows db.Rows) error {
	if m.gate != nil {
		select {
		case <-m.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse != nil {
		return m.refuse
	}
	for at, text := range rows.All() {
		m.lines = append(m.lines, db.Line{Time: at, Text: string(text)})
	}
	return nil
}

func (m *memory) OpenLogs(context.Context, db.LogFilter) (*db.Cursor, error) {
	return nil, errors.New("no history here")
}

func (m *memory) CountLogs(context.Context, db.LogFilter) (int, error) { return len(m.stored()), nil }

func (m *memory) setRefuse(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = err
}

func (m *memory) stored() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	texts := []string{}
	for _, l := range m.lines {
		texts = append(texts, l.Text)
	}
	return texts
}

// one is a line as a hub takes it.
func one(text string) (l lines) {
	l.add(time.Now(), []byte(text))
	return l
}

// warnings collects what a hub reports.
type warnings struct {
	mu   sync.Mutex
	text strings.Builder
}

func (w *warnings) add(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(&w.text, format+"\n", args...)
}

func (w *warnings) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

var (
	nodeDevice   = db.Device{MAC: nodeMAC, IP: "127.0.0.1", Name: "rpi", Type: "node"}
	serverDevice = db.Device{MAC: serverMAC, Name: "walt-server", Type: "server"}
)

// newHub returns a hub that knows the server and one node, at 127.0.0.1.
func newHub(database Database) (*Hub, *warnings) {
	w := &warnings{}
	return New(Config{
		DB: database,
		ByIP: func(ip netip.Addr) (db.Device, bool) {
			return nodeDevice, ip.IsLoopback()
		},
		ByMAC:  func(mac string) (db.Device, bool) { return nodeDevice, mac == nodeMAC },
		Server: func() (db.Device, bool) { return serverDevice, true },
		Warn:   w.add,
	}), w
}

// run runs the hub until the end of the test, or until the function returned is called.
func run(t testing.TB, h *Hub) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// send has a node send pieces of a log stream, each in a segment of its own, and
// waits until the hub has ended the connection or has read all.
func send(t *testing.T, h *Hub, header string, pieces ...string) {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.ServeIncoming(t.Context(), named{server}, bufio.NewReader(server))
	}()
	for _, p := range append([]string{header}, pieces...) {
		if _, err := client.Write([]byte(p)); err != nil {
			break // closed by the hub
		}
	}
	client.Close()
	<-done
	if err := h.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}

// named gives a pipe the address of the node.
type named struct{ net.Conn }

func (named) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1000} }

func TestIncoming(t *testing.T) {
	long := strings.Repeat("é", MaxLine)
	for name, c := range map[string]struct {
		pieces []string
		want   []string
	}{
		"lines":                        {[]string{"a\nb\n", "CLOSE\n"}, []string{"a", "b"}},
		"all in one segment":           {[]string{"a\nCLOSE\n"}, []string{"a"}},
		"byte by byte":                 {strings.Split("aé\n\nCLOSE\n", ""), []string{"aé", ""}},
		"CLOSE followed by more":       {[]string{"CLOSE\nb\n", "CLOSE\n"}, []string{"CLOSE", "b"}},
		"CLOSE followed by a part":     {[]string{"CLOSE\nb", "\nCLOSE\n"}, []string{"CLOSE", "b"}},
		"CLOSE inside":                 {[]string{"a CLOSE\n", "CLOSED\n", "CLOSE\n"}, []string{"a CLOSE", "CLOSED"}},
		"abrupt end":                   {[]string{"a\n"}, []string{"a", "<disconnected!>"}},
		"abrupt end within a line":     {[]string{"a\npart"}, []string{"a", "part<disconnected!>"}},
		"a character split (D4)":       {[]string{"\xc3", "\xa9\nCLOSE\n"}, []string{"é"}},
		"bytes that are not UTF-8":     {[]string{"a\xffb\xc3\nCLOSE\n"}, []string{"a\uFFFDb\uFFFD"}},
		"NUL (D4)":                     {[]string{"a\x00b\nCLOSE\n"}, []string{"a\uFFFDb"}},
		"long line":                    {[]string{long + "\nCLOSE\n"}, []string{long[:MaxLine], long[MaxLine:]}},
		"long line with odd start":     {[]string{"x" + long + "\nCLOSE\n"}, []string{"x" + long[:MaxLine-2], long[MaxLine-2:]}},
		"long line without end":        {[]string{long}, nil},
		"a carriage return is content": {[]string{"a\r\nCLOSE\n"}, []string{"a\r"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := &memory{}
			h, w := newHub(m)
			send(t, h, "app\nNO_TIMESTAMPS\n", c.pieces...)
			got := m.stored()
			if c.want == nil {
				if all := strings.Join(got, ""); all != long+"<disconnected!>" || len(got) > 4 {
					t.Errorf("%d lines of %d bytes in all", len(got), len(all))
				}
			} else if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				// Where a long line is cut depends on reads; that it is cut does not.
				if len(c.want) != 2 || strings.Join(got, "") != strings.Join(c.want, "") || len(got) > 4 {
					t.Errorf("stored %.80q, want %.80q", got, c.want)
				}
			}
			for _, text := range got {
				if len(text) > MaxLine+len("<disconnected!>") {
					t.Errorf("a line of %d bytes", len(text))
				}
			}
			if diff := cmp.Diff([]string{nodeMAC + " app false"}, m.names); diff != "" {
				t.Error(diff)
			}
			if w.String() != "" {
				t.Error(w)
			}
		})
	}
}

func TestIncomingStamps(t *testing.T) {
	m := &memory{}
	h, _ := newHub(m)
	now := time.Now().Truncate(time.Microsecond)
	stamp := func(at time.Time) string { return fmt.Sprintf("%.6f", float64(at.UnixMicro())/1e6) }
	past, ancient, future := now.Add(-time.Hour), now.Add(-11*365*24*time.Hour), now.Add(time.Minute)
	send(t, h, "app\nTIMESTAMPS_INSIDE\n", strings.Join([]string{
		stamp(past) + " a line", stamp(past) + "  two spaces", stamp(ancient) + " old", stamp(future) + " new",
		"no number", "", stamp(past), "nan x", "1e400 x", "CLOSE\n"}, "\n"))
	type stored struct {
		Past bool
		Text string
	}
	var got []stored
	for _, l := range m.lines {
		if !l.Time.Equal(past) && (l.Time.Before(now.Add(-time.Second)) || l.Time.After(time.Now())) {
			t.Errorf("%q is at %v", l.Text, l.Time)
		}
		got = append(got, stored{l.Time.Equal(past), l.Text})
	}
	want := []stored{{true, "a line"}, {true, " two spaces"}, {false, "old"}, {false, "new"}, {false, "no number"},
		{false, ""}, {true, ""}, {false, "nan x"}, {false, "1e400 x"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	// The parts of a long line have the time of the line.
	m.lines = nil
	send(t, h, "app\nT\n", stamp(past)+" "+strings.Repeat("x", 3*MaxLine), "y\n", stamp(past)+" z\nCLOSE\n")
	for _, l := range m.lines {
		if !l.Time.Equal(past) {
			t.Errorf("%.20q is at %v", l.Text, l.Time)
		}
	}
	if all := strings.Join(m.stored(), ""); all != strings.Repeat("x", 3*MaxLine)+"yz" {
		t.Errorf("%d bytes stored", len(all))
	}
}

// Lines received at once can be told apart, and so put in order, by their time.
func TestIncomingOrder(t *testing.T) {
	in := &incoming{}
	now := time.Now()
	var latest time.Time
	for _, read := range []string{"a\nb\nc\n", "d\ne\n"} {
		l, _ := in.split([]byte(read), now, false)
		for at, text := range l.rows.All() {
			if !at.After(latest) {
				t.Errorf("line %q is of %v, the one before of %v", text, at, latest)
			}
			latest = at
		}
	}
	if late := latest.Sub(now); late > time.Millisecond {
		t.Errorf("the last line is %v late", late)
	}
}

func TestIncomingRefused(t *testing.T) {
	m := &memory{}
	h, _ := newHub(m)
	send(t, h, strings.Repeat("x", 2*maxHeader)+"\n", "NO_TIMESTAMPS\n", "a\n")
	h.config.ByIP = func(netip.Addr) (db.Device, bool) { return db.Device{}, false }
	send(t, h, "app\nNO_TIMESTAMPS\n", "a\nCLOSE\n")
	if got := m.stored(); len(got) > 0 {
		t.Errorf("stored %q", got)
	}
}

// A node that never uses a stream name twice costs no memory for long.
func TestManyStreams(t *testing.T) {
	m := &memory{}
	h, _ := newHub(m)
	const n = 2*maxStreams + 10
	for i := range n {
		if err := h.add(t.Context(), nodeDevice, fmt.Sprint("s", i), false, true, one(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if len(h.streams) > maxStreams {
		t.Errorf("%d streams are remembered", len(h.streams))
	}
	if err := h.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := m.stored(); len(got) != n || got[n-1] != fmt.Sprint(n-1) {
		t.Errorf("%d of %d lines were stored", len(got), n)
	}
}

// TestSlowHeader: a silent connection is ended, and delays nobody.
func TestSlowHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(&memory{})
		client, server := net.Pipe()
		defer client.Close()
		h.ServeIncoming(t.Context(), named{server}, bufio.NewReader(server))
	})
}

func TestForgotten(t *testing.T) {
	m := &memory{}
	h, _ := newHub(m)
	known := true
	h.config.ByMAC = func(string) (db.Device, bool) { return nodeDevice, known }
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.ServeIncoming(t.Context(), named{server}, bufio.NewReader(server))
	}()
	fmt.Fprint(client, "app\nNO_TIMESTAMPS\na\n")
	for len(m.stored()) == 0 {
		if err := h.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	known = false
	if err := h.Forget(t.Context(), nodeMAC); err != nil {
		t.Error(err)
	}
	fmt.Fprint(client, "b\n")
	<-done
	if diff := cmp.Diff([]string{"a"}, m.stored()); diff != "" || len(h.streams) > 0 {
		t.Error(diff, h.streams)
	}
}

func TestEmit(t *testing.T) {
	m := &memory{}
	h, _ := newHub(m)
	stop := run(t, h)
	h.Emit("platform.nodes", "node rpi is booted")
	h.EmitChunk(t.Context(), nodeMAC, "virtualconsole", time.Now(), []byte("login: \x1b'"))
	h.EmitChunk(t.Context(), "52:54:00:ff:ff:ff", "virtualconsole", time.Now(), []byte("unknown"))
	stop() // what is queued at the end is stored
	if diff := cmp.Diff([]string{"node rpi is booted", `b"login: \x1b'"`}, m.stored()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{serverMAC + " platform.nodes false", nodeMAC + " virtualconsole true"}, m.names); diff != "" {
		t.Error(diff)
	}
}

// TestDelay: lines are stored by themselves, soon.
func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		h, _ := newHub(m)
		run(t, h)
		start := time.Now()
		h.Emit("s", "one")
		for len(m.stored()) == 0 {
			time.Sleep(time.Millisecond)
		}
		if d := time.Since(start); d > batchDelay+2*time.Millisecond {
			t.Errorf("stored after %v", d)
		}
	})
}

// TestDefectS4NoAliasingUnderBackPressure: a sender faster than the database waits; nothing is lost, and
// lines already taken are not changed by those that follow (D4, aliasing).
func TestDefectS4NoAliasingUnderBackPressure(t *testing.T) {
	m := &memory{gate: make(chan struct{})}
	h, w := newHub(m)
	stop := run(t, h)
	const n = 800
	text := strings.Repeat("x", MaxLine-10)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range n {
			if err := h.add(context.Background(), nodeDevice, "app", false, true, one(fmt.Sprint(text, i))); err != nil {
				t.Error(err)
			}
		}
	}()
	for full := false; !full; {
		h.mu.Lock()
		full = h.queued > maxQueued
		if h.queued > maxQueued+2*MaxLine {
			t.Errorf("%d bytes are queued", h.queued)
		}
		h.mu.Unlock()
	}
	select {
	case <-sent:
		t.Error("the sender was not slowed down")
	default:
	}
	close(m.gate)
	<-sent
	stop()
	got := m.stored()
	if len(got) != n {
		t.Fatalf("%d lines stored, want %d", len(got), n)
	}
	for i, g := range got {
		if g != fmt.Sprint(text, i) {
			t.Fatalf("line %d is ...%s", i, g[len(g)-5:])
		}
	}
	if w.String() != "" {
		t.Error(w)
	}
}

// TestMinuteWithoutDatabase: a sender is held back while the database is away for a minute,
// and none of its lines is lost.
func TestMinuteWithoutDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{refuse: errors.New("it is restarting")}
		h, _ := newHub(m)
		stop := run(t, h)
		text := strings.Repeat("x", MaxLine)
		const n = 2 * maxQueued / MaxLine
		sent := make(chan int, 1)
		go func() {
			for i := range n {
				if h.add(t.Context(), nodeDevice, "app", false, true, one(text)) != nil {
					sent <- i
					return
				}
			}
			sent <- n
		}()
		time.Sleep(time.Minute) // of the clock of this test
		synctest.Wait()
		if len(sent) > 0 {
			t.Error("the sender was not held back")
		}
		m.setRefuse(nil)
		if <-sent != n {
			t.Error("not all lines were taken")
		}
		if err := h.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		stop()
		if s := h.Stats(); s.Lost != 0 || s.Stored < n {
			t.Errorf("%+v", s)
		}
	})
}

// TestRefusal: while the database refuses lines, a bounded number is kept, the rest
// is lost and counted, and what was kept is stored later.
func TestRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{refuse: errors.New("no space left on its disk")}
		h, w := newHub(m)
		stop := run(t, h)
		text := strings.Repeat("x", MaxLine)
		const n = 1000
		for range n {
			if err := h.add(t.Context(), nodeDevice, "app", false, true, one(text)); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.Flush(t.Context()); err == nil {
			t.Error("Flush: no error")
		}
		m.setRefuse(nil)
		if err := h.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		stop()
		var own []string // what the hub says of itself is stored too
		kept := 0
		for _, line := range m.stored() {
			if line == text {
				kept++
			} else {
				own = append(own, line+"\n")
			}
		}
		if kept < maxQueued/(MaxLine+2*batchCost) || kept > maxQueued/MaxLine+2 {
			t.Errorf("%d lines were kept", kept)
		}
		want := fmt.Sprintf("log lines cannot be stored: no space left on its disk; trying again\n"+
			"log lines are being lost: %d bytes wait for the database already\n"+
			"log lines are stored again; %d were lost\n", maxQueued, n-kept)
		for _, got := range []string{w.String(), strings.Join(own, "")} {
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		}
		if s := h.Stats(); s.Lost != uint64(n-kept) || s.Stored != uint64(kept+len(own)) || s.Queued != 0 || s.QueuedBytes != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestNetconsole(t *testing.T) {
	m := &memory{}
	h, _ := newHub(m)
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- h.ServeNetconsole(ctx, server) }()
	client, err := net.Dial("udp4", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, d := range []string{"[1.0] usb 1-1: new", " device\n[1.1] \xff\x00bad\n", "", "[1.2] part", " end\n"} {
		client.Write([]byte(d))
	}
	want := []string{"[1.0] usb 1-1: new device", "[1.1] \uFFFD\uFFFDbad", "[1.2] part end"}
	deadline := time.Now().Add(time.Minute)
	for len(m.stored()) < len(want) && time.Now().Before(deadline) {
		if err := h.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, m.stored()); diff != "" {
		t.Error(diff)
	}
}

// TestKeep hands a connection over as a restart does, between two hubs.
func TestKeep(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{}
	kept := make(chan string, 1)
	dropped := make(chan string, 1)
	var file *os.File
	setUp := func() *Hub {
		h, _ := newHub(m)
		h.config.Keep = func(name string, f *os.File) error {
			copied, err := net.FileConn(f)
			if err == nil {
				file, err = copied.(*net.TCPConn).File()
				copied.Close()
			}
			kept <- name
			return err
		}
		h.config.Drop = func(name string) error { dropped <- name; return nil }
		return h
	}
	first := setUp()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		first.ServeIncoming(ctx, server, bufio.NewReader(server))
	}()
	fmt.Fprint(client, "my app: 1\nTIMESTAMPS_INSIDE\n1 one\n")
	name := <-kept
	cancel()
	<-ended
	if !IsKept(name) {
		t.Errorf("name %q", name)
	}
	fmt.Fprint(client, "1 two\nCLOSE\n")
	second := setUp()
	if err := second.Resume(t.Context(), name, file); err != nil {
		t.Error(err)
	}
	if got := <-dropped; got != name {
		t.Errorf("dropped %q, kept %q", got, name)
	}
	for _, h := range []*Hub{first, second} {
		if err := h.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff([]string{"one", "two"}, m.stored()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{nodeMAC + " my app: 1 false", nodeMAC + " my app: 1 false"}, m.names); diff != "" {
		t.Error(diff)
	}
}

func FuzzIncoming(f *testing.F) {
	f.Add([]byte("a\nCLOSE\n"), true, 3)
	f.Add([]byte("1700000000.5 text\n\xff\x00\xc3"), false, 1)
	f.Add(bytes.Repeat([]byte("é"), MaxLine), true, 4000)
	f.Fuzz(func(t *testing.T, data []byte, stamped bool, step int) {
		in := &incoming{stamped: stamped}
		step = max(step, 1)
		for len(data) > 0 {
			n := min(step, len(data))
			lines, end := in.split(data[:n], time.Now(), len(data) == n)
			count := 0
			for _, text := range lines.rows.All() {
				count++
				if len(text) > MaxLine || db.Clean(string(text)) != string(text) {
					t.Fatalf("line %.40q of %d bytes", text, len(text))
				}
			}
			if count != lines.n {
				t.Fatalf("%d lines, said to be %d", count, lines.n)
			}
			if len(in.partial) > MaxLine+len(data) {
				t.Fatalf("%d bytes are kept", len(in.partial))
			}
			if data = data[n:]; end {
				break
			}
		}
	})
}

// TestRecordPython has Python read what is sent to clients.
// FuzzDump checks the parameters of a request for logs, which any client sends.
func FuzzDump(f *testing.F) {
	for _, params := range []*pickle.Dict{
		pickle.NewDict("history", pickle.Tuple{1.5, nil}, "realtime", true, "issuers", pickle.NewList("rpi"), "streams_regexp", "^a(b|c)*$"),
		pickle.NewDict("logline_regexp", "[[:alpha:]]{1,3}", "timestamps_format", "float-s", "output_format", "dict-pickles"),
		pickle.NewDict("history", pickle.Tuple{"x"}, "issuers", 7, "timestamps_format", pickle.NewList()),
	} {
		data, err := pickle.Marshal(params)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		value, err := pickle.Unmarshal(data, parameterLimits)
		if err != nil {
			return
		}
		req, err := parseRequest(value)
		if err != nil {
			return
		}
		for _, e := range []*ere.Expr{req.streams, req.lines} {
			if e != nil {
				e.Match("temperature 21.5")
			}
		}
	})
}

func TestRecordPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 on this machine")
	}
	var sent bytes.Buffer
	out := bufio.NewWriter(&sent)
	at := time.Date(2026, 7, 14, 15, 16, 17, 123456789, time.Local)
	for _, format := range []timeFormat{datetime, floatSeconds, floatMilliseconds} {
		if err := writeRecord(out, format, at, "é 'line'", "rpi", "app"); err != nil {
			t.Fatal(err)
		}
	}
	writeRecord(out, datetime, time.Unix(1<<40, 0), strings.Repeat("x", 100_000), "", "")
	out.Flush()
	cmd := exec.Command(python, "-c", `
import sys, pickle
for i in range(3): print(pickle.load(sys.stdin.buffer))
d = pickle.load(sys.stdin.buffer)
print(d["timestamp"].year, len(d["line"]), len(sys.stdin.buffer.read()))`)
	cmd.Stdin = &sent
	got, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, got)
	}
	micros := float64(at.UnixMicro())
	want := fmt.Sprintf(`{'timestamp': datetime.datetime(2026, 7, 14, 15, 16, 17, 123456), 'line': "é 'line'", 'issuer': 'rpi', 'stream': 'app'}
{'timestamp': %.6f, 'line': "é 'line'", 'issuer': 'rpi', 'stream': 'app'}
{'timestamp': %.3f, 'line': "é 'line'", 'issuer': 'rpi', 'stream': 'app'}
9999 100000 0
`, micros/1e6, micros/1e3)
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

// TestHeaders: who may be looked for is told why a stream is not taken.
func TestHeaders(t *testing.T) {
	for _, test := range []struct{ header, warning string }{
		{strings.Repeat("n", maxHeader) + "\nNO_TIMESTAMPS\n", ""},
		{strings.Repeat("n", maxHeader+1) + "\n", "log stream of 127.0.0.1:1000 refused: cannot read its two header lines: a line is longer than 1024 bytes\n"},
		{"left in the middle", ""},
		{"", ""},
	} {
		h, warned := newHub(&memory{})
		send(t, h, test.header, "line\n", "CLOSE\n")
		if got := warned.String(); got != test.warning {
			t.Errorf("%.20q: warned %q", test.header, got)
		}
	}
}
