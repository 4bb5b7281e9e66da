package http

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math"
	nethttp "net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/waltos/waltos/services/daemon/logs/ere"
	"github.com/waltos/waltos/services/state"
)

const (
	// projectStart is the earliest time of a log query.
	projectStart = 1340000000
	// maxHistories is how many histories are sent at the same time: each holds one of a
	// limited number of places of the database for as long as its client takes.
	maxHistories = 8
	// partTimeout bounds how long a client may take for a part of a history, a megabyte
	// or so, and how long the daemon may take to find the next one.
	partTimeout = time.Minute
)

// record is one entry of /api/v1/logs, client-api 5.5.
type record struct {
	Timestamp float64 `json:"timestamp"`
	Line      string  `json:"line"`
	Issuer    string  `json:"issuer"`
	Stream    string  `json:"stream"`
}

// logs sends the lines selected as they come from the database, in bounded memory.
func (h *handler) logs(w nethttp.ResponseWriter, r *nethttp.Request) error {
	request, unit, err := h.logsRequest(r.URL.Query())
	if err != nil {
		return err
	}
	place := time.NewTimer(callTimeout)
	defer place.Stop()
	select {
	case h.histories <- struct{}{}:
		defer func() { <-h.histories }()
	case <-r.Context().Done():
		return r.Context().Err()
	case <-place.C:
		return fail(nethttp.StatusServiceUnavailable, "%d histories are being read already.", maxHistories)
	}

	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	silence := time.AfterFunc(partTimeout, func() { cancel(errSilence) })
	defer silence.Stop()
	out := newHistory(w, r, unit)
	err = h.cfg.State.Stream(ctx, state.StreamLogs, request, func(decode func(any) error) error {
		silence.Stop()
		defer silence.Reset(partTimeout)
		var part state.LogsPart
		if err := decode(&part); err != nil {
			return err
		}
		return out.part(part)
	})
	switch {
	case out.head && out.begun:
		return nil
	case err == nil && out.begun:
		return out.end()
	case err == nil:
		err = errors.New("the daemon sent nothing")
	case context.Cause(ctx) != nil:
		err = context.Cause(ctx)
	}
	if !out.begun {
		return fmt.Errorf("cannot read log lines: %w", err)
	}
	if r.Context().Err() == nil {
		log.Printf("%s %.200s of %s: cannot read more log lines: %v", r.Method, r.URL.Path, r.RemoteAddr, err)
	}
	panic(nethttp.ErrAbortHandler) // so that the client does not take it for the whole
}

var (
	errSilence = errors.New("the daemon takes too long")
	errHead    = errors.New("only the head of the answer is wanted")
)

// logsRequest reads the parameters, with the errors of client-api 5.5 in their order.
func (h *handler) logsRequest(query url.Values) (request state.LogsRequest, unit float64, err error) {
	refuse := func(format string, args ...any) (state.LogsRequest, float64, error) {
		return state.LogsRequest{}, 0, fail(nethttp.StatusBadRequest, format, args...)
	}
	if last(query, "from") == "" || last(query, "to") == "" {
		return refuse("Query parameters 'from' and 'to' are required.")
	}
	var bounds [2]float64
	for i, name := range []string{"from", "to"} {
		value, err := strconv.ParseFloat(last(query, name), 64)
		if err != nil || math.IsNaN(value) || math.IsInf(value, 0) {
			return refuse("cannot interpret '%s' as a 'float'.", last(query, name))
		}
		bounds[i] = value
	}
	unit = 1.0
	switch last(query, "ts_unit") {
	case "", "s":
	case "ms":
		unit = 1000
	default:
		return refuse("Query parameter 'ts_unit' should be 's' (seconds) or 'ms' (milliseconds)")
	}
	latest := float64(h.cfg.Now().Add(2*time.Second).UnixMilli()) / 1000
	for i, name := range []string{"ts_from", "ts_to"} {
		bounds[i] /= unit
		switch {
		case bounds[i] < projectStart:
			return refuse("Query parameter '%s' is invalid (earlier than WALT project startup date!)", name)
		case bounds[i] > latest:
			return refuse("Query parameter '%s' is invalid, it refers to a date in the future.\n"+
				"Note: you can use 'ts_unit' query parameter to specify the unit (i.e. 's' for seconds, 'ms' for milliseconds).", name)
		}
	}
	stream := last(query, "stream")
	// By itself, because it is put between anchors (CN-26).
	if _, err := ere.Parse(stream); err != nil {
		return refuse("Query parameter 'stream' is not a regular expression: %v", err)
	}
	return state.LogsRequest{From: bounds[0], To: bounds[1], Issuer: last(query, "issuer"), Stream: stream}, unit, nil
}

// history writes the answer to a query of logs.
type history struct {
	w     nethttp.ResponseWriter
	unit  float64
	head  bool // the request is HEAD
	begun bool
	any   bool // a line has been written
	buf   bytes.Buffer
	lines *json.Encoder // to buf
}

func newHistory(w nethttp.ResponseWriter, r *nethttp.Request, unit float64) *history {
	o := &history{w: w, unit: unit, head: r.Method == nethttp.MethodHead}
	o.lines = newEncoder(&o.buf)
	return o
}

// part writes a part of the history.
func (o *history) part(part state.LogsPart) error {
	if !o.begun {
		o.begun = true
		o.w.Header().Set("Content-Type", "application/json")
		o.w.WriteHeader(nethttp.StatusOK)
		fmt.Fprintf(&o.buf, `{"num_logs":%d,"logs":[`, part.Count)
	}
	if o.head {
		return errHead
	}
	for _, l := range part.Records {
		if o.any {
			o.buf.WriteByte(',')
		}
		o.any = true
		if err := o.lines.Encode(record{l.Timestamp * o.unit, l.Line, l.Issuer, l.Stream}); err != nil {
			return err
		}
		o.buf.Truncate(o.buf.Len() - 1) // a line feed
	}
	return o.send()
}

func (o *history) end() error {
	o.buf.WriteString("]}")
	// An error means that the client has gone.
	_ = o.send()
	return nil
}

func (o *history) send() error {
	connection := nethttp.NewResponseController(o.w)
	// An error means that there is no connection, as in tests.
	_ = connection.SetWriteDeadline(time.Now().Add(partTimeout))
	if _, err := o.buf.WriteTo(o.w); err != nil {
		return err
	}
	return connection.Flush()
}
