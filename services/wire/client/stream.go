package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/services/wire/rpc"
)

// Stream is a connection to port 12347. What is not read yet is in R, never below it.
type Stream struct {
	net.Conn
	R       *bufio.Reader
	pickles *pickle.Decoder
}

// DialStream connects to the server at an address "host:port" and sends the request
// line. ctx bounds the connection only.
func DialStream(ctx context.Context, address string, request rpc.Request) (*Stream, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot open stream: %w", err)
	}
	if _, err := fmt.Fprintf(conn, "%d\n", request); err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot open stream: %w", err)
	}
	r := bufio.NewReader(conn)
	return &Stream{Conn: conn, R: r, pickles: pickle.NewDecoder(r, limits)}, nil
}

// Line reads the line that some requests are answered with, as "READY".
func (s *Stream) Line() (string, error) { return rpc.ReadLine(s.R, 4096) }

// Send sends a value as a pickle.
func (s *Stream) Send(v any) error {
	data, err := pickle.Marshal(v)
	if err != nil {
		return err
	}
	_, err = s.Write(data)
	return err
}

// Receive reads a pickle; the error is io.EOF when the server has closed.
func (s *Stream) Receive() (any, error) { return s.pickles.Decode() }

// LogQuery is the parameters of DumpLogs, see client-api 3.3.
type LogQuery struct {
	History        bool
	Start, End     any      // with History: float64 seconds, or nil
	Realtime       bool     // stay for what comes
	Issuers        []string // nil: everybody
	Streams, Lines string   // regular expressions; "": no filter
}

// Record is a log line. Time is in the local time of the server, without zone.
type Record struct {
	Time                 time.Time
	Line, Issuer, Stream string
}

// DumpLogs calls f with each log line that the query selects, until the server has no
// more, ctx ends (which is no error), or f fails.
func DumpLogs(ctx context.Context, address string, q LogQuery, f func(Record) error) error {
	s, err := DialStream(ctx, address, rpc.DumpLogs)
	if err != nil {
		return err
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Send(q.parameters()); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("cannot ask for logs: %w", err)
	}
	for {
		v, err := s.Receive()
		if err == io.EOF || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read logs: %w", err)
		}
		record, err := newRecord(v)
		if err != nil {
			return err
		}
		if err := f(record); err != nil {
			return err
		}
	}
}

func (q LogQuery) parameters() *pickle.Dict {
	orNone := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	var history, issuers any
	if q.History {
		history = pickle.Tuple{q.Start, q.End}
	}
	if q.Issuers != nil {
		t := pickle.Tuple{}
		for _, name := range q.Issuers {
			t = append(t, name)
		}
		issuers = t
	}
	return pickle.NewDict("history", history, "realtime", q.Realtime, "issuers", issuers,
		"streams_regexp", orNone(q.Streams), "logline_regexp", orNone(q.Lines))
}

func newRecord(v any) (Record, error) {
	d, ok := v.(*pickle.Dict)
	if !ok || d.Len() != 4 {
		return Record{}, errors.New("cannot read logs: a record is not a dict of 4 entries")
	}
	var r Record
	ok = true
	text := func(key string) string {
		v, _ := d.Get(key)
		s, isText := v.(string)
		ok = ok && isText
		return s
	}
	r.Line, r.Issuer, r.Stream = text("line"), text("issuer"), text("stream")
	at, _ := d.Get("timestamp")
	r.Time, _ = at.(time.Time)
	if !ok || r.Time.IsZero() {
		return Record{}, errors.New("cannot read logs: a record lacks something")
	}
	return r, nil
}

// SendLogs sends log lines as a node does, and waits until the server has closed.
func SendLogs(ctx context.Context, address, stream string, lines ...string) error {
	l, err := OpenLogs(ctx, address, stream, false)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { l.stream.Close() })()
	for _, line := range lines {
		if err = l.Line(time.Time{}, line); err != nil {
			break
		}
	}
	if closeErr := l.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("cannot send logs: %w", err)
	}
	return nil
}
