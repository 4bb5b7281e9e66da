package logs

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/wire/rpc"
)

const (
	// headerTimeout bounds the sending of the two header lines, which may be typed.
	headerTimeout = time.Minute
	maxHeader     = 1024

	// keepAfter is the age at which a stream is handed to the supervisor: most
	// connections carry one line and are over at once.
	keepAfter = 2 * time.Second

	// Stamps of nodes outside this window are replaced (server-state 4.9).
	oldest = 10 * 365 * 24 * time.Hour
	newest = time.Second

	maxNumber = 64 // characters of a stamp

	// Sizes of reads.
	smallRead = 4 << 10
	largeRead = 64 << 10

	noTimestamps = "NO_TIMESTAMPS"
	closeLine    = "CLOSE"
	disconnected = "<disconnected!>"
)

// incoming is the log stream of one connection.
type incoming struct {
	hub     *Hub
	conn    net.Conn
	r       *bufio.Reader
	mac     string
	name    string
	stamped bool // each line begins with its time

	partial []byte    // of a line whose end has not come yet
	cutAt   time.Time // stamp of the line whose first part was cut off; zero: none
	latest  time.Time // of the lines that have the time of their arrival

	keep   sync.Mutex
	kept   string // name under which the supervisor has the connection
	closed bool
}

// ServeIncoming reads a node's log stream (request 0, after its request line) to its
// end, and closes conn.
func (h *Hub) ServeIncoming(ctx context.Context, conn net.Conn, r *bufio.Reader) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	if ctx.Err() == nil {
		conn.SetReadDeadline(time.Now().Add(headerTimeout))
	}
	name, err := rpc.ReadLine(r, maxHeader)
	var mode string
	if err == nil {
		mode, err = rpc.ReadLine(r, maxHeader)
	}
	if err != nil {
		// Its sender finds a connection closed while it writes, and not why.
		switch {
		case ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		case errors.Is(err, os.ErrDeadlineExceeded):
			h.config.Warn("log stream of %v refused: its two header lines did not come within %v", conn.RemoteAddr(), headerTimeout)
		default:
			h.config.Warn("log stream of %v refused: cannot read its two header lines: %v", conn.RemoteAddr(), err)
		}
		return
	}
	device, ok := h.config.ByIP(peerIP(conn.RemoteAddr()))
	if !ok {
		return
	}
	conn.SetReadDeadline(time.Time{})
	if ctx.Err() != nil {
		return
	}
	in := &incoming{hub: h, conn: conn, r: r, mac: device.MAC, name: db.Clean(name), stamped: mode != noTimestamps}
	timer := time.AfterFunc(keepAfter, in.handOver)
	defer timer.Stop()
	in.serve(ctx)
}

func peerIP(a net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// serve reads until the stream ends, in one way or another. Its buffer is large while
// much is coming only: most streams are silent most of the time.
func (in *incoming) serve(ctx context.Context) {
	small := make([]byte, smallRead)
	buf := small
	for {
		n, err := in.r.Read(buf)
		if n > 0 {
			l, end := in.split(buf[:n], time.Now(), in.r.Buffered() == 0)
			if !in.add(ctx, l) {
				return
			}
			if end {
				in.finish()
				return
			}
		}
		if err == nil {
			if n == smallRead {
				buf = make([]byte, largeRead)
			} else if n < smallRead {
				buf = small
			}
			continue
		}
		if ctx.Err() != nil { // it is us who stop: the stream goes on after the restart
			return
		}
		in.finish()
		var l lines
		in.stamp(&l, append(in.partial, disconnected...), time.Now(), false)
		in.partial = nil
		in.add(ctx, l)
		if !errors.Is(err, io.EOF) {
			in.hub.config.Warn("log stream %q of %s ended: %v", in.name, in.mac, err)
		}
		return
	}
}

// add gives lines to the hub; it returns false if the stream is to be ended.
func (in *incoming) add(ctx context.Context, l lines) bool {
	device, ok := in.hub.config.ByMAC(in.mac)
	if !ok { // forgotten
		in.finish()
		return false
	}
	return in.hub.add(ctx, device, in.name, false, true, l) == nil
}

var lineFeed = []byte{'\n'}

// split cuts what was read into lines, and keeps the rest for the next read. end is
// true if the last line closes the stream; only then is it not a line of its own.
// last says that nothing more has been received.
func (in *incoming) split(data []byte, now time.Time, last bool) (l lines, end bool) {
	if i := bytes.LastIndexByte(data, '\n'); i >= 0 { // the rest has been searched before
		text := data[:i]
		if len(in.partial) > 0 {
			text = append(in.partial, text...)
		}
		rest := data[i+1:]
		l.rows = make(db.Rows, 0, len(text)+(bytes.Count(text, lineFeed)+1)*db.RowSize(0))
		clean := isClean(text)
		for more := true; more; {
			var line []byte
			line, text, more = bytes.Cut(text, lineFeed)
			if !more && string(line) == closeLine && last && len(rest) == 0 {
				return l, true
			}
			in.stamp(&l, line, now, clean)
		}
		if cap(in.partial) > smallRead {
			in.partial = nil
		}
		in.partial = append(in.partial[:0], rest...)
	} else {
		in.partial = append(in.partial, data...)
	}
	if len(in.partial) > MaxLine {
		n := whole(in.partial)
		at := in.cutAt
		if part := in.stamp(&l, in.partial[:n], now, false); at.IsZero() {
			at = part
		}
		in.cutAt = at
		in.partial = append(in.partial[:0], in.partial[n:]...)
	}
	return l, false
}

// whole returns how much of a text does not end in the middle of a character, as far
// as the end of the text tells.
func whole(text []byte) int {
	n := len(text)
	for back := 1; back <= min(3, n); back++ {
		if c := text[n-back]; c >= 0xc0 {
			return n - back
		} else if c < 0x80 {
			break
		}
	}
	return n
}

// stamp appends the line or lines that a text makes, with its own time or now, which
// it returns.
func (in *incoming) stamp(l *lines, text []byte, now time.Time, clean bool) time.Time {
	at := now
	switch {
	case !in.cutAt.IsZero(): // the rest of a line that was cut
		at, in.cutAt = in.cutAt, time.Time{}
	case in.stamped:
		at, text = parseStamp(text, now)
	default:
		at = in.arrival(now)
	}
	if !clean && !isClean(text) {
		text = []byte(db.Clean(string(text)))
	}
	l.add(at, text)
	return at
}

// arrival is the time of a line that has come now. Lines of one stream are a microsecond
// apart at least: the database gives them back by their time, and those of one time in
// any order.
func (in *incoming) arrival(now time.Time) time.Time {
	at := now.Truncate(time.Microsecond)
	if !at.After(in.latest) {
		at = in.latest.Add(time.Microsecond)
	}
	in.latest = at
	return at
}

// parseStamp splits "SECONDS TEXT". A line without a valid number is kept whole.
func parseStamp(text []byte, now time.Time) (time.Time, []byte) {
	number, rest, _ := bytes.Cut(text, []byte{' '})
	if len(number) > maxNumber {
		return now, text
	}
	seconds, err := strconv.ParseFloat(string(number), 64)
	if err != nil || math.IsNaN(seconds) {
		return now, text
	}
	age := float64(now.UnixMicro())/1e6 - seconds
	if age > oldest.Seconds() || age < -newest.Seconds() {
		return now, rest
	}
	return time.UnixMicro(int64(math.Round(seconds * 1e6))), rest
}

// Connections handed to the supervisor are named keptPrefix, then a random number,
// the mode ("t" if lines are stamped) and the stream name in base64.
const keptPrefix = "log:"

// maxKeptName is the longest name the supervisor takes.
const maxKeptName = 200

func (in *incoming) handOver() {
	if in.hub.config.Keep == nil {
		return
	}
	in.keep.Lock()
	defer in.keep.Unlock()
	filer, ok := in.conn.(interface{ File() (*os.File, error) })
	if in.closed || !ok {
		return
	}
	var id [8]byte
	rand.Read(id[:])
	mode := "n"
	if in.stamped {
		mode = "t"
	}
	name := keptPrefix + hex.EncodeToString(id[:]) + ":" + mode + ":" + base64.RawURLEncoding.EncodeToString([]byte(in.name))
	if len(name) > maxKeptName {
		return
	}
	f, err := filer.File()
	if err == nil {
		err = in.hub.config.Keep(name, f)
		f.Close()
	}
	if err != nil {
		in.hub.config.Warn("log stream %q of %s would not survive a restart: %v", in.name, in.mac, err)
		return
	}
	in.kept = name
}

// finish takes the connection back from the supervisor: it is over.
func (in *incoming) finish() {
	in.keep.Lock()
	defer in.keep.Unlock()
	in.closed = true
	if in.kept != "" {
		if err := in.hub.config.Drop(in.kept); err != nil {
			in.hub.config.Warn("cannot take a log stream back from the supervisor: %v", err)
		}
		in.kept = ""
	}
}

// IsKept tells whether a descriptor that the supervisor passed is one for Resume.
func IsKept(name string) bool { return strings.HasPrefix(name, keptPrefix) }

// Resume goes on with a log connection that an earlier life of this process had
// handed to the supervisor under this name; it returns at its end. It closes f.
func (h *Hub) Resume(ctx context.Context, name string, f *os.File) error {
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return fmt.Errorf("cannot resume log stream %s: %w", name, err)
	}
	defer conn.Close()
	in := &incoming{hub: h, conn: conn, r: bufio.NewReader(conn), kept: name}
	parts := strings.Split(strings.TrimPrefix(name, keptPrefix), ":")
	device, known := h.config.ByIP(peerIP(conn.RemoteAddr()))
	if len(parts) != 3 || !known {
		in.finish()
		return fmt.Errorf("cannot resume log stream %s of %v: unknown name or device", name, conn.RemoteAddr())
	}
	stream, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		in.finish()
		return fmt.Errorf("cannot resume log stream %s: %w", name, err)
	}
	in.mac, in.name, in.stamped = device.MAC, db.Clean(string(stream)), parts[1] == "t"
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	in.serve(ctx)
	return nil
}
