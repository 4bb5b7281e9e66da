package logs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/logs/ere"
	"github.com/waltos/waltos/services/wire/pickle"
)

// parameterTimeout bounds the sending of the parameters of a request.
const parameterTimeout = time.Minute

// parameterLimits are far above what clients send: names of all their nodes, two
// regular expressions.
var parameterLimits = pickle.Limits{Size: 1 << 20}

// request is a decoded request for logs.
type request struct {
	history, realtime bool
	filter            db.LogFilter
	streams, lines    *ere.Expr
	format            timeFormat
}

// ServeDump answers a request for logs (request 1, after its request line), and
// closes conn. A request that is not valid is closed without an answer, as the
// protocol has no other, and reported.
func (h *Hub) ServeDump(ctx context.Context, conn net.Conn, r *bufio.Reader) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	conn.SetReadDeadline(time.Now().Add(parameterTimeout))
	value, err := pickle.NewDecoder(r, parameterLimits).Decode()
	if err != nil {
		h.config.Warn("request for logs of %v refused: %v", conn.RemoteAddr(), err)
		return
	}
	req, err := parseRequest(value)
	if err != nil {
		h.config.Warn("request for logs of %v refused: %v", conn.RemoteAddr(), err)
		return
	}
	conn.SetReadDeadline(time.Time{})
	// Any byte, or the end of the connection, ends the dump.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		r.ReadByte()
		cancel()
		conn.Close() // a blocked write ends too
	}()
	err = h.dump(ctx, conn, req)
	if err != nil && ctx.Err() == nil {
		h.config.Warn("logs for %v: %v", conn.RemoteAddr(), err)
	}
}

// dump sends a history, or lines in real time, or the one then the other.
func (h *Hub) dump(ctx context.Context, conn net.Conn, req *request) error {
	out := bufio.NewWriterSize(conn, 64<<10)
	watch := &watcher{streams: req.streams, lines: req.lines, arrived: make(chan struct{}, 1)}
	if req.filter.Issuers != nil {
		watch.issuers = map[string]bool{}
		for _, name := range req.filter.Issuers {
			watch.issuers[name] = true
		}
	}
	defer h.unwatch(watch)
	cursor, err := h.open(ctx, watch, req)
	if err != nil {
		return err
	}
	if cursor != nil {
		err := h.sendHistory(ctx, conn, out, cursor, req.format)
		cursor.Close()
		if err != nil {
			return err
		}
		conn.SetWriteDeadline(time.Time{}) // a watcher holds nothing but a bounded memory
	}
	if !req.realtime {
		if !req.history {
			<-ctx.Done() // nothing was asked for: wait for the client to leave
		}
		return nil
	}
	for {
		blocks, err := watch.next(ctx)
		if err != nil {
			return err
		}
		for _, b := range blocks {
			for at, text := range b.rows.All() {
				if watch.lines != nil && !watch.lines.MatchBytes(text) {
					continue
				}
				if err := writeRecord(out, req.format, at, text, b.issuer, b.stream); err != nil {
					return err
				}
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
}

// open starts the watcher and opens the history at the same point of the flow of
// lines: while nobody else stores lines, the watcher is put in place, the lines
// that came before it are stored, and the snapshot of the history is taken. So a
// line is in the history or goes to the watcher, never in both or none.
func (h *Hub) open(ctx context.Context, watch *watcher, req *request) (cursor *db.Cursor, err error) {
	start := func() uint64 {
		h.mu.Lock()
		defer h.mu.Unlock()
		if req.realtime {
			h.watchers[watch] = true
		}
		return h.added
	}
	if !req.history {
		start()
		return nil, nil
	}
	err = h.locked(ctx, func() error {
		if err := h.storeUntil(ctx, start()); err != nil {
			return err
		}
		cursor, err = h.config.DB.OpenLogs(ctx, req.filter)
		return err
	})
	return cursor, err
}

func (h *Hub) sendHistory(ctx context.Context, conn net.Conn, out *bufio.Writer, cursor *db.Cursor, format timeFormat) error {
	for {
		records, err := cursor.Next(ctx)
		if err != nil {
			return err
		}
		if err := conn.SetWriteDeadline(time.Now().Add(h.config.Stall)); err != nil {
			return err
		}
		for _, r := range records {
			if err := writeRecord(out, format, r.Time, r.Line, r.Issuer, r.Stream); err != nil {
				return err
			}
		}
		if err := out.Flush(); err != nil || len(records) == 0 {
			return err
		}
	}
}

// parseRequest checks the parameters (client-api 3.3); unknown keys are ignored.
func parseRequest(value any) (*request, error) {
	dict, ok := value.(*pickle.Dict)
	if !ok {
		return nil, errors.New("parameters are not a dict")
	}
	req := &request{}
	get := func(key string) any { v, _ := dict.Get(key); return v }
	if v := get("history"); v != nil {
		bounds, ok := items(v)
		if !ok || len(bounds) != 2 {
			return nil, errors.New("history is not a pair")
		}
		var err1, err2 error
		req.filter.Start, err1 = bound(bounds[0])
		req.filter.End, err2 = bound(bounds[1])
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		req.history = true
	}
	if v := get("realtime"); v != nil {
		if req.realtime, ok = v.(bool); !ok {
			return nil, errors.New("realtime is not a bool")
		}
	}
	if v := get("issuers"); v != nil {
		names, ok := items(v)
		if !ok {
			return nil, errors.New("issuers is no collection")
		}
		req.filter.Issuers = []string{}
		for _, n := range names {
			name, ok := n.(string)
			if !ok {
				return nil, errors.New("issuers holds other values than names")
			}
			req.filter.Issuers = append(req.filter.Issuers, db.Clean(name))
		}
	}
	var err error
	if req.filter.StreamsRegexp, req.streams, err = expression(get("streams_regexp")); err != nil {
		return nil, err
	}
	if req.filter.LineRegexp, req.lines, err = expression(get("logline_regexp")); err != nil {
		return nil, err
	}
	switch v := get("timestamps_format"); v {
	case nil, "datetime":
	case "float-s":
		req.format = floatSeconds
	case "float-ms":
		req.format = floatMilliseconds
	default:
		return nil, fmt.Errorf("timestamps_format %.40v is unknown", v)
	}
	if v := get("output_format"); v != nil && v != "dict-pickles" {
		return nil, fmt.Errorf("output_format %.40v is unknown", v)
	}
	return req, nil
}

// items returns the content of a tuple, list or set.
func items(v any) ([]any, bool) {
	switch v := v.(type) {
	case pickle.Tuple:
		return v, true
	case *pickle.List:
		return v.Items, true
	case *pickle.Set:
		return v.Items, true
	}
	return nil, false
}

// bound returns one end of a history; nil is none.
func bound(v any) (*float64, error) {
	var f float64
	switch v := v.(type) {
	case nil:
		return nil, nil
	case float64:
		f = v
	case int64:
		f = float64(v)
	default:
		return nil, errors.New("a bound of history is no number")
	}
	// What PostgreSQL can hold, with some room: the years 1 to 9999 or so.
	if math.IsNaN(f) || f < -60e9 || f > 250e9 {
		return nil, errors.New("a bound of history is out of range")
	}
	return &f, nil
}

func expression(v any) (string, *ere.Expr, error) {
	if v == nil {
		return "", nil, nil
	}
	text, ok := v.(string)
	if !ok {
		return "", nil, errors.New("a regular expression is no text")
	}
	e, err := ere.Parse(text)
	return text, e, err
}
