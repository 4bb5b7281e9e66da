package quota

import (
	"io"
	"net"
	"net/netip"
	"testing"
)

func TestQuota(t *testing.T) {
	q := New(3, 2)
	a, b, c := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	for _, step := range []struct {
		client netip.Addr
		want   bool
	}{{a, true}, {a, true}, {a, false}, {b, true}, {b, false}, {c, false}} {
		if got := q.Take(step.client); got != step.want {
			t.Errorf("Take(%v) = %v", step.client, got)
		}
	}
	if own, all := q.Held(a); own != 2 || all != 3 {
		t.Errorf("Held: %d of %d", own, all)
	}
	if !q.Take(netip.Addr{}) {
		t.Error("the process itself is refused")
	}
	q.Give(netip.Addr{})
	q.Give(a)
	if !q.Take(c) {
		t.Error("what was given back is not there")
	}
	for _, client := range []netip.Addr{a, b, c} {
		q.Give(client)
	}
	if len(q.counts) != 0 || q.sum != 0 {
		t.Errorf("left over: %v, %d", q.counts, q.sum)
	}
}

func TestListener(t *testing.T) {
	inner, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := New(10, 1).Listener(inner)
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp4", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	dial()
	first := <-accepted
	if n, err := dial().Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("a connection beyond the quota is served")
	}
	first.Close()
	first.Close() // counts once
	next := dial()
	second := <-accepted
	io.WriteString(second, "x")
	if n, err := next.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("after the first has gone: %v", err)
	}
	second.Close()
	ln.Close()
	if _, more := <-accepted; more {
		t.Error("a connection of nobody")
	}
}
