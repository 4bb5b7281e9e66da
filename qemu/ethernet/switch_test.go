package ethernet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// host is the machine's end of a port.
type host struct {
	t    *testing.T
	mac  MAC
	conn net.Conn
	port *Port
}

func plugIn(t *testing.T, s *Switch, number byte) *host {
	t.Helper()
	file, port, err := s.Socket(fmt.Sprintf("host%d", number))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &host{t: t, mac: MAC{2, 0, 0, 0, 0, number}, conn: conn, port: port}
}

func (h *host) send(to MAC, text string) {
	h.t.Helper()
	frame := append(append(append([]byte{}, to[:]...), h.mac[:]...), 0x88, 0xb5)
	if err := WriteFrame(h.conn, append(frame, text...)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) expect(text string) {
	h.t.Helper()
	h.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	frame, err := ReadFrame(h.conn)
	if err != nil {
		h.t.Fatal(err)
	}
	if got := string(frame[MinFrame:]); got != text {
		h.t.Fatalf("%s received %q, want %q", h.port.Name(), got, text)
	}
}

var everybody = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func newSwitch(t *testing.T) *Switch {
	s := New()
	t.Cleanup(s.Close)
	return s
}

func TestLearning(t *testing.T) {
	s := newSwitch(t)
	a, b, c := plugIn(t, s, 1), plugIn(t, s, 2), plugIn(t, s, 3)
	a.send(everybody, "who is there?")
	b.expect("who is there?")
	c.expect("who is there?")
	b.send(a.mac, "me")
	a.expect("me")
	// c must not have seen the answer: what it gets next is the following broadcast.
	a.send(everybody, "thanks")
	b.expect("thanks")
	c.expect("thanks")
	if got := a.port.Counters(); got.Received != 2 || got.Sent != 1 || got.Dropped != 0 {
		t.Errorf("counters of a: %+v", got)
	}
}

func TestAgeing(t *testing.T) {
	s := newSwitch(t)
	now := time.Unix(1000, 0)
	s.now = func() time.Time { return now }
	a, b, c := plugIn(t, s, 1), plugIn(t, s, 2), plugIn(t, s, 3)
	b.send(everybody, "hello")
	a.expect("hello")
	c.expect("hello")
	s.mu.Lock()
	now = now.Add(addressLife)
	s.mu.Unlock()
	a.send(b.mac, "still there?")
	b.expect("still there?")
	c.expect("still there?")
}

func TestUnplug(t *testing.T) {
	s := newSwitch(t)
	a, b, c := plugIn(t, s, 1), plugIn(t, s, 2), plugIn(t, s, 3)
	b.port.Plug(false)
	a.send(everybody, "one")
	c.expect("one")
	b.port.Plug(true)
	a.send(everybody, "two")
	b.expect("two")
	c.expect("two")
}

func TestMachineEnds(t *testing.T) {
	s := newSwitch(t)
	a, b := plugIn(t, s, 1), plugIn(t, s, 2)
	a.conn.Close()
	<-a.port.Done()
	if s.Port("host1") != nil {
		t.Error("the port of a machine that ended is still there")
	}
	again := plugIn(t, s, 1)
	again.send(everybody, "back")
	b.expect("back")
}

func TestSlowMachineHoldsUpNobody(t *testing.T) {
	s := newSwitch(t)
	a, slow, c := plugIn(t, s, 1), plugIn(t, s, 2), plugIn(t, s, 3)
	payload := string(bytes.Repeat([]byte{'x'}, 1500))
	for range 3 * queueLength {
		a.send(everybody, payload)
		c.expect(payload)
	}
	if got := slow.port.Counters(); got.Dropped == 0 {
		t.Errorf("nothing was dropped: %+v", got)
	}
	if got := c.port.Counters(); got.Dropped != 0 {
		t.Errorf("frames for a machine that reads were dropped: %+v", got)
	}
}

func TestBadFraming(t *testing.T) {
	for _, length := range []uint32{0, MinFrame - 1, MaxFrame + 1, 1 << 31} {
		s := newSwitch(t)
		a := plugIn(t, s, 1)
		if err := binary.Write(a.conn, binary.BigEndian, length); err != nil {
			t.Fatal(err)
		}
		<-a.port.Done()
	}
}

func TestNames(t *testing.T) {
	s := newSwitch(t)
	plugIn(t, s, 1)
	if _, _, err := s.Socket("host1"); err == nil {
		t.Error("two ports of one name were accepted")
	}
	s.Close()
	if _, _, err := s.Socket("host2"); err == nil {
		t.Error("a closed switch took a port")
	}
}

func TestAddressesAreBounded(t *testing.T) {
	s := newSwitch(t)
	a, b := plugIn(t, s, 1), plugIn(t, s, 2)
	for i := range maxAddresses + 100 {
		binary.BigEndian.PutUint32(a.mac[2:], uint32(i))
		a.send(everybody, "x")
		b.expect("x")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.learnt) > maxAddresses {
		t.Errorf("%d addresses learnt", len(s.learnt))
	}
}

func TestCapture(t *testing.T) {
	s := newSwitch(t)
	a, b := plugIn(t, s, 1), plugIn(t, s, 2)
	var all, one bytes.Buffer
	stopAll, err := s.Capture(&all, "")
	if err != nil {
		t.Fatal(err)
	}
	stopOne, err := s.Capture(&one, "host2")
	if err != nil {
		t.Fatal(err)
	}
	a.send(everybody, "ping")
	b.expect("ping")
	b.send(a.mac, "pong")
	a.expect("pong")
	stopAll()
	stopOne()
	a.send(everybody, "unseen")
	b.expect("unseen")
	for name, data := range map[string][]byte{"all ports": all.Bytes(), "one port": one.Bytes()} {
		if want := 24 + 2*(16+MinFrame+4); len(data) != want {
			t.Errorf("capture of %s: %d bytes, want %d", name, len(data), want)
		}
		if !bytes.HasSuffix(data, []byte("pong")) || !bytes.Contains(data, []byte("ping")) {
			t.Errorf("capture of %s: %q", name, data)
		}
	}
	if _, err := s.Capture(brokenWriter{}, ""); err == nil {
		t.Error("a capture to a broken writer was started")
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, os.ErrClosed }

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 14, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14})
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0})
	f.Add([]byte{0, 0, 0, 20, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		var again bytes.Buffer
		for {
			frame, err := ReadFrame(r)
			if err != nil {
				if err == io.EOF && !bytes.Equal(again.Bytes(), data) {
					t.Fatalf("%x was read as %x", data, again.Bytes())
				}
				return
			}
			if len(frame) < MinFrame || len(frame) > MaxFrame {
				t.Fatalf("a frame of %d bytes was accepted", len(frame))
			}
			WriteFrame(&again, frame)
		}
	})
}
