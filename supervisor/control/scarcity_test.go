package control

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/waltos/waltos/supervisor/journal"
	"github.com/waltos/waltos/supervisor/unit"
	"golang.org/x/sys/unix"
)

// TestNoDescriptors: a client that comes while there are none waits, and is answered once
// there are some.
func TestNoDescriptors(t *testing.T) {
	_, c := open(t)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: min(256, before.Max), Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &before) }()
	var held []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		held = append(held, f)
	}
	held[0].Close() // for the client
	conn, err := net.Dial("unix", c.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /v1/graph HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	var one [1]byte
	_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if n, err := conn.Read(one[:]); n > 0 || !os.IsTimeout(err) {
		t.Fatalf("an answer without descriptors: %d, %v", n, err)
	}
	for _, f := range held[1:] {
		f.Close()
	}
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", answer, err)
	}
	answer.Body.Close()
}

// TestPanic: a defect in the answer to a request is the end of the program, which a crash
// reporter tells of.
func TestPanic(t *testing.T) {
	const role = "WALT_PANIC"
	if os.Getenv(role) != "" {
		mortal(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("the reason") })).ServeHTTP(nil, nil)
		return
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestPanic$")
	cmd.Env = append(os.Environ(), role+"=yes")
	output, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(output), "panic: the reason") || !strings.Contains(string(output), "control.TestPanic.func") {
		t.Errorf("%v\n%s", err, output)
	}
}

// TestFlood: while units write more than the journal takes, requests are answered, and what
// was said by another unit is found.
func TestFlood(t *testing.T) {
	_, c := open(t)
	dir := t.TempDir()
	j := journal.New(journal.DefaultLimit)
	j.Bound(journal.Standard)
	if err := j.Attach(dir); err != nil {
		t.Fatal(err)
	}
	server := &Server{Machine: &house{}, Journal: j, History: NewHistory()}
	c.Path += "2"
	ln, err := Listen(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { _ = server.Serve(ln) }()
	end := make(chan struct{})
	var flood sync.WaitGroup
	for range 4 {
		flood.Go(func() {
			for line := strings.Repeat("z", 1000); ; {
				select {
				case <-end:
					return
				default:
					j.Append("loud", line)
				}
			}
		})
	}
	for range 50 {
		if _, err := c.Graph(t.Context()); err != nil {
			t.Error(err)
		}
		if err := c.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	}
	j.Append("quiet", "heard")
	close(end)
	flood.Wait()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	lines := map[string]int{}
	if err := journal.Last(dir, journal.Query{}, func(r journal.Record) error { lines[r.Unit]++; return nil }); err != nil {
		t.Fatal(err)
	}
	if lines["quiet"] != 1 || lines["loud"] < 1000 {
		t.Errorf("lines %v", lines)
	}
}

// TestSlowBodies: who promises a body and does not send it holds no connection for that, and
// those who wait for events are not cut off.
func TestSlowBodies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	history := NewHistory()
	server := &Server{Machine: &house{}, History: history, Journal: journal.New(journal.DefaultLimit), BodyTime: 20 * time.Millisecond}
	go func() { _ = server.Serve(ln) }()
	heard := make(chan Event)
	go func() {
		defer close(heard)
		_ = Client{path}.Events(t.Context(), "", true, func(e Event) error { heard <- e; return nil })
	}()
	for _, request := range []string{"GET /v1/status", "PUT /v1/site", "POST /v1/units/a/start", "GET /v1/events?follow=yes", "GET /nothing", "BREW /"} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: walt\r\nContent-Length: 100\r\n\r\nslow", request)
		if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", request, err)
		}
	}
	history.Add(unit.Change{Unit: "a"})
	if e, ok := <-heard; !ok || e.Unit != "a" {
		t.Errorf("heard %v, %v", e, ok)
	}
}
