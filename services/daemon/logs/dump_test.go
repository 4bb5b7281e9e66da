package logs_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
	"github.com/waltos/waltos/services/daemon/logs"
	"github.com/waltos/waltos/services/wire/pickle"
)

const nodeMAC = "52:54:00:00:00:02"

// platform is a hub on a real database, with a server and a node.
func platform(t testing.TB) *logs.Hub { return patientPlatform(t, 0) }

// patientPlatform waits so long for a reader of a history.
func patientPlatform(t testing.TB, stall time.Duration) *logs.Hub {
	t.Helper()
	c, _ := dbtest.Client(t)
	return hubOn(t, c, stall)
}

// hubOn is a hub on a database that a test provides.
func hubOn(t testing.TB, c *db.Client, stall time.Duration) *logs.Hub {
	t.Helper()
	ctx := context.Background()
	server := db.Device{MAC: "52:54:00:00:00:01", IP: "192.168.152.1", Name: "walt-server", Type: "server"}
	node := db.Device{MAC: nodeMAC, IP: "192.168.152.2", Name: "rpi", Type: "unknown"}
	for _, d := range []db.Device{server, node} {
		if err := c.SaveDevice(ctx, d); err != nil {
			t.Fatal(err)
		}
	}
	h := logs.New(logs.Config{
		DB:     c,
		ByIP:   func(ip netip.Addr) (db.Device, bool) { return node, true },
		ByMAC:  func(mac string) (db.Device, bool) { return node, mac == nodeMAC },
		Server: func() (db.Device, bool) { return server, true },
		Warn:   t.Logf,
		Stall:  stall,
	})
	run, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); h.Run(run) }()
	t.Cleanup(func() { cancel(); <-ended })
	return h
}

// dump is a request for logs under way.
type dump struct {
	conn  net.Conn
	r     *bufio.Reader
	ended chan struct{} // closed when the hub is done with it
}

func open(t testing.TB, h *logs.Hub, params ...any) *dump {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.ServeDump(context.Background(), server, bufio.NewReader(server))
	}()
	t.Cleanup(func() { client.Close(); <-ended })
	text, err := pickle.Marshal(pickle.NewDict(params...))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write(text); err != nil {
		t.Fatal(err)
	}
	return &dump{client, bufio.NewReader(client), ended}
}

// record reads one record, as "issuer.stream line".
func (d *dump) record() (string, error) {
	v, err := pickle.NewDecoder(d.r, pickle.Limits{Datetime: true}).Decode()
	if err != nil {
		return "", err
	}
	r := v.(*pickle.Dict)
	get := func(key string) any { v, _ := r.Get(key); return v }
	if _, ok := get("timestamp").(time.Time); !ok || r.Len() != 4 {
		return "", fmt.Errorf("record %v", r.Entries())
	}
	return fmt.Sprintf("%v.%v %v", get("issuer"), get("stream"), get("line")), nil
}

// rest reads all records until the hub closes the connection.
func (d *dump) rest(t testing.TB) []string {
	t.Helper()
	found := []string{}
	for {
		r, err := d.record()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, r)
	}
}

var all = pickle.Tuple{nil, nil}

func TestHistory(t *testing.T) {
	h := platform(t)
	h.Emit("platform.nodes", "one")
	h.EmitChunk(t.Context(), nodeMAC, "virtualconsole", time.Now(), []byte("two"))
	one, two := "walt-server.platform.nodes one", "rpi.virtualconsole b'two'"
	for name, c := range map[string]struct {
		params []any
		want   []string
	}{
		"all":           {nil, []string{one, two}},
		"issuers":       {[]any{"issuers", pickle.Tuple{"rpi"}}, []string{two}},
		"no issuer":     {[]any{"issuers", pickle.Tuple{}}, []string{}},
		"streams":       {[]any{"streams_regexp", "^platform"}, []string{one}},
		"lines":         {[]any{"logline_regexp", "o(n)e"}, []string{one}},
		"unknown keys":  {[]any{"other", int64(1), "timestamps_format", "datetime", "output_format", "dict-pickles"}, []string{one, two}},
		"bounds":        {[]any{"history", pickle.Tuple{float64(time.Now().Unix() + 60), nil}}, []string{}},
		"integer bound": {[]any{"history", pickle.Tuple{int64(1), int64(0)}}, []string{one, two}},
	} {
		got := open(t, h, append([]any{"history", all, "realtime", false}, c.params...)...).rest(t)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	n, err := h.Count(t.Context(), db.LogFilter{StreamsRegexp: "platform"})
	if err != nil || n != 1 {
		t.Errorf("Count: %d, %v", n, err)
	}
}

func TestRefusedRequests(t *testing.T) {
	h := platform(t)
	h.Emit("platform.nodes", "one")
	for _, params := range [][]any{
		{"streams_regexp", "(a"}, {"logline_regexp", "*"}, {"logline_regexp", int64(1)},
		{"output_format", "numpy-pickles"}, {"timestamps_format", "x"}, {"issuers", "rpi"}, {"issuers", pickle.Tuple{int64(1)}},
		{"history", pickle.Tuple{nil}}, {"history", pickle.Tuple{"x", nil}}, {"history", pickle.Tuple{1e300, nil}}, {"realtime", int64(1)},
	} {
		for _, realtime := range []bool{false, true} { // refused the same
			if got := open(t, h, append([]any{"history", all, "realtime", realtime}, params...)...).rest(t); len(got) > 0 {
				t.Errorf("%v: %q", params, got)
			}
		}
	}
	if got := open(t, h, "history", all, "realtime", false).rest(t); len(got) != 1 {
		t.Errorf("afterwards: %q", got)
	}
}

func TestRealtime(t *testing.T) {
	h := platform(t)
	d := open(t, h, "history", nil, "realtime", true, "logline_regexp", "keep", "issuers", pickle.NewList("walt-server"))
	// Nothing tells a client that it is being served: lines are sent until one arrives.
	stop := make(chan struct{})
	var sender sync.WaitGroup
	sender.Go(func() {
		for {
			h.EmitChunk(t.Context(), nodeMAC, "virtualconsole", time.Now(), []byte("keep"))
			h.Emit("s", "drop")
			h.Emit("s", "keep")
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	for range 5 {
		r, err := d.record()
		if err != nil || r != "walt-server.s keep" {
			t.Errorf("record %q, %v", r, err)
		}
	}
	// A byte of the client ends the dump.
	fmt.Fprint(d.conn, "x")
	io.Copy(io.Discard, d.r)
	close(stop)
	sender.Wait()
}

// TestStalledReader: who asks for a history and does not read it gives its place to
// others in the end.
func TestStalledReader(t *testing.T) {
	h := patientPlatform(t, time.Millisecond)
	text := strings.Repeat("x", 60<<10)
	for range 500 { // more than the buffers of a connection hold
		h.Emit("s", text)
		if err := h.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	<-open(t, h, "history", all).ended
}

// TestBoundary: with history and realtime together, each line comes exactly once,
// whenever the request arrives.
func TestBoundary(t *testing.T) {
	h := platform(t)
	const senders, lines, dumps = 4, 2000, 6
	asked := make([]chan struct{}, dumps) // closed when a dump has been asked for
	for n := range asked {
		asked[n] = make(chan struct{})
	}
	var sending sync.WaitGroup
	for s := range senders {
		sending.Go(func() {
			for i := range lines {
				h.Emit(fmt.Sprint("s", s), fmt.Sprint(i))
				if share := lines / (dumps + 1); i%share == 0 && i/share < dumps {
					<-asked[i/share] // requests come in between
				}
			}
		})
	}
	var reading sync.WaitGroup
	for n := range dumps {
		d := open(t, h, "history", all, "realtime", true)
		close(asked[n])
		reading.Go(func() {
			var got []string
			for len(got) < senders*lines {
				r, err := d.record()
				if err != nil {
					t.Errorf("dump %d, after %d records: %v", n, len(got), err)
					return
				}
				got = append(got, r)
			}
			sort.Strings(got)
			for i := 1; i < len(got); i++ {
				if got[i] == got[i-1] {
					t.Errorf("dump %d: %q came twice", n, got[i])
				}
			}
		})
	}
	sending.Wait()
	reading.Wait()
}

// BenchmarkDump prints lines sent to one client per second.
func BenchmarkDump(b *testing.B) {
	h := platform(b)
	const n = 200_000
	for i := range n {
		h.Emit("app", fmt.Sprintf("temperature sensor %d: 21.5 degrees, battery at 87%%", i))
		if i%10_000 == 0 {
			if err := h.Flush(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	}
	for b.Loop() {
		d := open(b, h, "history", all, "realtime", false)
		if _, err := io.Copy(io.Discard, d.r); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "lines/s")
}
