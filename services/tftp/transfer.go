package tftp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/ipv4"
)

// A client that is silent is sent the same again, for giveUp, but at least minTries
// times.
const (
	giveUp   = 10 * time.Second
	minTries = 4
)

// errClient ends a transfer that the client does not want: firmware often asks for a
// file only to learn its size.
var errClient = errors.New("ended by the client")

// transfer sends one file to one client.
type transfer struct {
	conn  *net.UDPConn // connected: the kernel drops what comes from other ports
	batch *ipv4.PacketConn
	terms terms
	file  io.Reader

	pending [][]byte // packets sent and not acknowledged, in order
	spare   [][]byte // packets for reuse
	base    uint64   // number of the first pending block; on the wire modulo 65536
	ended   bool     // the last block is in pending, or was
	bytes   int64
	// started is called at the first acknowledgement.
	started func()
}

func newTransfer(conn *net.UDPConn, t terms, file io.Reader, started func()) *transfer {
	return &transfer{conn: conn, batch: ipv4.NewPacketConn(conn), terms: t, file: file, base: 1, started: started}
}

// run sends the whole file. It returns when the last block is acknowledged, the client
// ends the transfer or stays silent, or ctx ends.
func (t *transfer) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { t.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if len(t.terms.options) > 0 {
		t.pending = [][]byte{optionsPacket(t.terms.options)}
		t.base = 0
		if err := t.exchange(ctx); err != nil {
			return err
		}
	}
	for {
		if err := t.fill(); err != nil {
			t.conn.Write(errorPacket(codeOther, "cannot read the file"))
			return fmt.Errorf("cannot read the file: %w", err)
		}
		if len(t.pending) == 0 {
			return nil
		}
		if err := t.exchange(ctx); err != nil {
			return err
		}
	}
}

// fill reads blocks until the window is full. The last block of a file is always
// shorter than the others, even if empty.
func (t *transfer) fill() error {
	for len(t.pending) < t.terms.window && !t.ended {
		var p []byte
		if n := len(t.spare); n > 0 {
			p, t.spare = t.spare[n-1], t.spare[:n-1]
		}
		p = append(p[:0], 0, opData)
		p = binary.BigEndian.AppendUint16(p, uint16(t.base+uint64(len(t.pending))))
		if cap(p) < 4+t.terms.block {
			p = append(make([]byte, 0, 4+t.terms.block), p...)
		}
		n, err := io.ReadFull(t.file, p[4:4+t.terms.block])
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			t.ended = true
		} else if err != nil {
			return err
		}
		t.bytes += int64(n)
		t.pending = append(t.pending, p[:4+n])
	}
	return nil
}

// exchange sends what is pending until some of it is acknowledged.
func (t *transfer) exchange(ctx context.Context) error {
	tries := max(minTries, int(giveUp/t.terms.timeout))
	for range tries {
		if err := t.send(); err != nil {
			return err
		}
		progress, err := t.wait(ctx)
		if progress || err != nil {
			return err
		}
	}
	return errors.New("the client does not answer any more")
}

func (t *transfer) send() error {
	messages := make([]ipv4.Message, len(t.pending))
	for i, p := range t.pending {
		messages[i].Buffers = [][]byte{p}
	}
	for len(messages) > 0 {
		n, err := t.batch.WriteBatch(messages, 0)
		if err != nil {
			return fmt.Errorf("cannot send: %w", err)
		}
		messages = messages[n:]
	}
	return nil
}

// wait reads packets of the client until one moves the transfer on; it returns false
// when everything pending must be sent again.
func (t *transfer) wait(ctx context.Context) (progress bool, err error) {
	t.conn.SetReadDeadline(time.Now().Add(t.terms.timeout))
	repeated := false
	buffer := make([]byte, 600)
	for {
		if ctx.Err() != nil { // the deadline of AfterFunc may have been overwritten
			return false, ctx.Err()
		}
		n, err := t.conn.Read(buffer)
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			return false, nil
		case err != nil:
			return false, fmt.Errorf("the client has gone: %w", err)
		case n < 4:
			continue
		}
		switch number := binary.BigEndian.Uint16(buffer[2:]); binary.BigEndian.Uint16(buffer) {
		case opError:
			return false, errClient
		case opAck:
			// How many of the pending packets the client has, counted on the circle of
			// block numbers.
			acked := int(number - uint16(t.base-1))
			if acked >= 1 && acked <= len(t.pending) {
				t.advance(acked)
				return true, nil
			}
			// The number before the window again: with a window of one, a duplicate, to be
			// ignored lest every later block be sent twice (RFC 1123, 4.2.3.1); with a
			// larger one, the client lost its first block. One answer to that is enough.
			if acked == 0 && t.base > 1 && t.terms.window > 1 && !repeated {
				repeated = true
				if err := t.send(); err != nil {
					return false, err
				}
			}
		}
	}
}

func (t *transfer) advance(n int) {
	if t.started != nil {
		t.started()
		t.started = nil
	}
	if t.base > 0 {
		t.spare = append(t.spare, t.pending[:n]...)
	}
	t.pending = append(t.pending[:0], t.pending[n:]...)
	t.base += uint64(n)
}

// netascii translates line ends, RFC 764: LF becomes CR LF, CR becomes CR NUL.
type netascii struct {
	r    io.ByteReader
	next int // a byte owed, or -1
}

func (n *netascii) Read(p []byte) (int, error) {
	for i := range p {
		if n.next >= 0 {
			p[i], n.next = byte(n.next), -1
			continue
		}
		b, err := n.r.ReadByte()
		if err != nil {
			if i > 0 && err == io.EOF {
				return i, nil
			}
			return i, err
		}
		p[i] = b
		switch b {
		case '\n':
			p[i], n.next = '\r', '\n'
		case '\r':
			n.next = 0
		}
	}
	return len(p), nil
}
