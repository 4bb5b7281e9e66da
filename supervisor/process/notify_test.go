package process

import (
	"io"
	"net"
	"os"
	"testing"
)

// TestEndedConnectionsMakeRoom: what a service left and its peer has closed takes no place
// from others, but for data that is still to be read.
func TestEndedConnectionsMakeRoom(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	connect := func() (peer net.Conn, kept *os.File) {
		peer, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer accepted.Close()
		if kept, err = accepted.(*net.TCPConn).File(); err != nil {
			t.Fatal(err)
		}
		return peer, kept
	}
	listening, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	alive, keptAlive := connect()
	defer alive.Close()
	full, keptFull := connect()
	io.WriteString(full, "not read yet")
	full.Close()
	over, keptOver := connect()
	over.Close()
	k := &kept{}
	for name, file := range map[string]*os.File{"listening": listening, "alive": keptAlive, "full": keptFull, "over": keptOver} {
		if err := k.add(name, file, 4); err != nil {
			t.Fatal(err)
		}
	}
	for !ended(keptOver) { // the end travels
	}
	more, keptMore := connect()
	defer more.Close()
	if err := k.add("more", keptMore, 4); err != nil {
		t.Errorf("no room where a connection has ended: %v", err)
	}
	again, keptAgain := connect()
	defer again.Close()
	if err := k.add("again", keptAgain, 4); err == nil {
		t.Error("there is room where none has ended")
	}
	for _, f := range k.store {
		if f.name == "over" {
			t.Error("the connection that has ended is kept")
		}
		f.file.Close()
	}
}
