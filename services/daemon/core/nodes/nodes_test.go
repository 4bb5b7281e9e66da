package nodes

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// node answers one control request per connection.
func node(t *testing.T, serve func(net.Conn)) Control {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serve(conn)
			conn.Close()
		}
	}()
	return Control{Pause: time.Millisecond, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, ln.Addr().String())
	}}
}

func TestControlRequest(t *testing.T) {
	tests := []struct {
		name  string
		serve func(net.Conn)
		want  string
	}{
		{"ok", says("OK\n"), ""},
		{"split over segments", func(c net.Conn) {
			for _, b := range "OK\n" {
				io.WriteString(c, string(b))
			}
		}, ""},
		{"refused by the node", says("KO /bin/x is not executable on image\n"), "/bin/x is not executable on image"},
		{"nonsense", says("\n"), "Node did not respond properly"},
		{"control characters", says("KO a\x1b[1mb\n"), "a?[1mb"},
		{"no line", says("OK"), "Broken connection"},
		{"endless line", func(c net.Conn) { c.Write(make([]byte, 100000)) }, "Broken connection"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := node(t, func(conn net.Conn) {
				r := bufio.NewReader(conn)
				mode, _ := r.ReadString('\n')
				request, _ := r.ReadString('\n')
				if mode != "MODE single\n" || request != "REBOOT\n" {
					t.Errorf("the node got %q, %q", mode, request)
				}
				test.serve(conn)
			})
			got := ""
			if err := c.Request(t.Context(), "127.0.0.1", "REBOOT"); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("error %q, want %q", got, test.want)
			}
		})
	}
}

func says(reply string) func(net.Conn) { return func(c net.Conn) { io.WriteString(c, reply) } }

// TestDefectN9SplitReplies: a reply may come byte by byte, and a connection that breaks is
// an error at once.
func TestDefectN9SplitReplies(t *testing.T) {
	c := node(t, func(conn net.Conn) {
		for _, b := range "KO not now\n" {
			io.WriteString(conn, string(b))
		}
	})
	if err := c.Request(t.Context(), "127.0.0.1", "BLINK 1"); err == nil || err.Error() != "not now" {
		t.Errorf("error %v", err)
	}
	c = node(t, func(conn net.Conn) {
		conn.Read(make([]byte, 1))
		conn.(*net.TCPConn).SetLinger(0) // reset
	})
	if err := c.Request(t.Context(), "127.0.0.1", "BLINK 1"); err == nil || err.Error() != "Broken connection" {
		t.Errorf("error %v", err)
	}
	if err := c.Request(t.Context(), "", "BLINK 1"); err == nil || err.Error() != "Unknown IP address" {
		t.Errorf("error %v", err)
	}
}

// TestDefectN4ResetBootNotification: a peer that is gone right after its request changes
// nothing.
func TestDefectN4ResetBootNotification(t *testing.T) {
	kept := &supervisor{files: map[string][]*os.File{}}
	b := &BootStatus{Keeper: kept.keeper(), Changed: func(ip string, booted, _ bool) { t.Errorf("%s is booted: %v", ip, booted) }}
	for range 20 {
		ours, theirs := accept(t)
		theirs.(*net.TCPConn).SetLinger(0)
		theirs.Close()
		b.Serve(t.Context(), ours, ours)
	}
	if left := kept.names(); len(left) > 0 || b.Booted("127.0.0.1") {
		t.Errorf("kept %q", left)
	}
}

func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var expired []string
		i := NewIdle(2*time.Hour, func(_ context.Context, macs []string) {
			expired = append(expired, fmt.Sprint(time.Since(start), macs))
		})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go i.Run(ctx)
		i.Follow("a")
		i.Follow("b")
		i.Restart("none")
		time.Sleep(time.Hour)
		i.Follow("a") // already followed
		i.Follow("c")
		i.Restart("b")
		i.Leave("none")
		time.Sleep(3 * time.Hour)
		i.Leave("b")
		i.Leave("c")
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		want := "[2h0m0s [a] 3h0m0s [b c] 4h0m0s [a] 6h0m0s [a]]"
		if got := fmt.Sprint(expired); got != want {
			t.Errorf("expired %s, want %s", got, want)
		}
	})
}

func TestControlRefused(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	tries := 0
	c := Control{Pause: time.Millisecond, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		tries++
		return (&net.Dialer{}).DialContext(ctx, network, ln.Addr().String())
	}}
	if err := c.Request(t.Context(), "127.0.0.1", "REBOOT"); err == nil || err.Error() != "Connection refused" {
		t.Errorf("error %v", err)
	}
	if tries != 3 {
		t.Errorf("%d tries", tries)
	}
}

func TestControlTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		go io.Copy(io.Discard, theirs)
		c := Control{Dial: func(context.Context, string, string) (net.Conn, error) { return ours, nil }}
		if err := c.Request(t.Context(), "10.0.0.1", "REBOOT"); err == nil || err.Error() != "Timed out waiting for reply" {
			t.Errorf("error %v", err)
		}
		c.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
		if err := c.Request(t.Context(), "10.0.0.1", "REBOOT"); err == nil || err.Error() != "Connection timed out" {
			t.Errorf("error %v", err)
		}
	})
}

// supervisor keeps descriptors as ours does.
type supervisor struct {
	mu    sync.Mutex
	files map[string][]*os.File
}

func (s *supervisor) keeper() Keeper {
	return Keeper{
		Store: func(name string, f *os.File) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			conn, err := net.FileConn(f)
			if err != nil {
				return err
			}
			defer conn.Close()
			kept, err := conn.(*net.TCPConn).File()
			s.files[name] = append(s.files[name], kept)
			return err
		},
		Remove: func(name string) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, f := range s.files[name] {
				f.Close()
			}
			delete(s.files, name)
			return nil
		},
	}
}

func (s *supervisor) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.files {
		names = append(names, name)
	}
	return names
}

// accept gives the server's end of a new connection, as a node would make it.
func accept(t *testing.T) (ours *net.TCPConn, theirs net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if theirs, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn), theirs
}

func TestBootStatus(t *testing.T) {
	events := make(chan string, 10)
	kept := &supervisor{files: map[string][]*os.File{}}
	serve := func() *BootStatus {
		return &BootStatus{Keeper: kept.keeper(), Changed: func(ip string, booted, resumed bool) {
			events <- fmt.Sprint(ip, " ", booted, " ", resumed)
		}}
	}
	expect := func(want string) {
		t.Helper()
		if got := <-events; got != want {
			t.Fatalf("event %q, want %q", got, want)
		}
	}
	b := serve()
	life, die := context.WithCancel(t.Context())
	ours, theirs := accept(t)
	served := make(chan bool)
	go func() { b.Serve(life, ours, ours); close(served) }()
	if line, err := bufio.NewReader(theirs).ReadString('\n'); line != "OK\n" {
		t.Fatalf("answer %q, %v", line, err)
	}
	if b.Booted("127.0.0.1") {
		t.Error("booted before its first byte")
	}
	io.WriteString(theirs, "\n")
	expect("127.0.0.1 true false")
	io.WriteString(theirs, "\n")

	// A second life of the daemon takes the connection over; the node notices nothing.
	die()
	<-served
	if got := kept.names(); len(got) != 1 || got[0] != "bootstatus:127.0.0.1" {
		t.Fatalf("kept %q", got)
	}
	again, stop := context.WithCancel(t.Context())
	defer stop()
	b = serve()
	files := kept.files
	all := b.Resume(again, files)
	expect("127.0.0.1 true true")
	if !b.Booted("127.0.0.1") {
		t.Error("the node is not booted any more")
	}
	if _, err := io.WriteString(theirs, "\n"); err != nil {
		t.Error(err)
	}

	// A newer connection of the same node counts; the end of the old one does not.
	ours2, theirs2 := accept(t)
	go b.Serve(again, ours2, ours2)
	bufio.NewReader(theirs2).ReadString('\n')
	theirs.Close()
	all.Wait()
	io.WriteString(theirs2, "\n")
	expect("127.0.0.1 true false")
	theirs2.Close()
	expect("127.0.0.1 false false")
	if len(events) != 0 || b.Booted("127.0.0.1") || len(kept.names()) != 0 {
		t.Errorf("left: %d events, kept %q", len(events), kept.names())
	}
}

func TestMonitor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type expiry struct {
			after time.Duration
			mac   string
			left  int
		}
		start := time.Now()
		expired := make(chan expiry, 100)
		m := NewMonitor(func(_ context.Context, mac string, left int) {
			expired <- expiry{time.Since(start), mac, left}
		})
		expect := func(want expiry) {
			t.Helper()
			if got := <-expired; got != want {
				t.Fatalf("expired %+v, want %+v", got, want)
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go m.Run(ctx)
		m.Watch("slow", Limits{180 * time.Second, 2})
		m.Watch("patient", Limits{0, 2})
		m.Watch("good", Limits{180 * time.Second, 2})
		m.Watch("off", Limits{180 * time.Second, 2})
		m.Down("off", true)
		m.Booted("good")
		expect(expiry{180 * time.Second, "slow", 1})
		expect(expiry{360 * time.Second, "slow", 0})
		time.Sleep(time.Hour)
		if len(expired) > 0 {
			t.Fatalf("expired without retries: %+v", <-expired)
		}
		now := time.Since(start)
		m.Watch("slow", Limits{60 * time.Second, 3})
		expect(expiry{now, "slow", 0})
		m.Starting("slow", true)
		expect(expiry{now + 60*time.Second, "slow", 2})
		m.Booted("slow")
		m.Down("good", false)
		expect(expiry{now + 240*time.Second, "good", 1})
		m.Forget("good")
		m.Forget("slow")
		time.Sleep(time.Hour)
		if len(expired) > 0 {
			t.Fatalf("expired although forgotten: %+v", <-expired)
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add("OK\n")
	f.Add("KO \xff\n")
	f.Fuzz(func(t *testing.T, line string) {
		if err := reply(line); err != nil && err.Error() == "" {
			t.Errorf("reply(%q) gives an empty reason", line)
		}
	})
}
