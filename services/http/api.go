package http

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	nethttp "net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/waltos/waltos/services/state"
)

// node is one entry of /api/v1/nodes, client-api 5.3.
type node struct {
	Name    string         `json:"name"`
	Model   string         `json:"model"`
	Virtual bool           `json:"virtual"`
	Image   string         `json:"image"`
	Booted  bool           `json:"booted"`
	IP      string         `json:"ip"`
	MAC     string         `json:"mac"`
	Config  map[string]any `json:"config"`
}

func (h *handler) nodes(w nethttp.ResponseWriter, r *nethttp.Request) error {
	keep, err := filters(r.URL.Query(), map[string]func(node) any{
		"name":    func(n node) any { return n.Name },
		"model":   func(n node) any { return n.Model },
		"virtual": func(n node) any { return n.Virtual },
		"image":   func(n node) any { return n.Image },
		"booted":  func(n node) any { return n.Booted },
		"ip":      func(n node) any { return n.IP },
		"mac":     func(n node) any { return n.MAC },
	})
	if err != nil {
		return err
	}
	nodes := []node{}
	for _, d := range h.cfg.State.Current().Devices { // sorted by name
		if d.Type != "node" {
			continue
		}
		config := d.Config
		if config == nil {
			config = map[string]any{}
		}
		n := node{d.Name, d.Model, d.Virtual, d.Image, d.Booted, d.IP, d.MAC, config}
		if keep(n) {
			nodes = append(nodes, n)
		}
	}
	writeJSON(w, r, nethttp.StatusOK, struct {
		Count int    `json:"num_nodes"`
		Nodes []node `json:"nodes"`
	}{len(nodes), nodes})
	return nil
}

// image is one entry of /api/v1/images, client-api 5.4.
type image struct {
	FullName      string   `json:"fullname"`
	User          string   `json:"user"`
	ID            string   `json:"id"`
	InUse         bool     `json:"in_use"`
	Created       string   `json:"created"`
	Compatibility []string `json:"compatibility"`
}

func (h *handler) images(w nethttp.ResponseWriter, r *nethttp.Request) error {
	query := r.URL.Query()
	refresh, err := truth(last(query, "refresh"))
	if err != nil {
		return err
	}
	query.Del("refresh")
	keep, err := filters(query, map[string]func(image) any{
		"fullname": func(i image) any { return i.FullName },
		"user":     func(i image) any { return i.User },
		"id":       func(i image) any { return i.ID },
		"in_use":   func(i image) any { return i.InUse },
	})
	if err != nil {
		return err
	}
	var all []state.Image
	if err := h.call(r.Context(), state.MethodImages, state.ImagesRequest{Refresh: refresh}, &all); err != nil {
		return err
	}
	images := []image{}
	for _, s := range all {
		i := image{s.FullName, s.User, s.ID, s.InUse, s.Created, s.Compatibility}
		if i.Compatibility == nil {
			i.Compatibility = []string{}
		}
		if keep(i) {
			images = append(images, i)
		}
	}
	writeJSON(w, r, nethttp.StatusOK, struct {
		Count  int     `json:"num_images"`
		Images []image `json:"images"`
	}{len(images), images})
	return nil
}

// record is one entry of /api/v1/logs, client-api 5.5.
type record struct {
	Timestamp float64 `json:"timestamp"`
	Line      string  `json:"line"`
	Issuer    string  `json:"issuer"`
	Stream    string  `json:"stream"`
}

// projectStart is the earliest time of a log query.
const projectStart = 1340000000

func (h *handler) logs(w nethttp.ResponseWriter, r *nethttp.Request) error {
	query := r.URL.Query()
	if last(query, "from") == "" || last(query, "to") == "" {
		return fail(nethttp.StatusBadRequest, "Query parameters 'from' and 'to' are required.")
	}
	var bounds [2]float64
	for i, name := range []string{"from", "to"} {
		value, err := strconv.ParseFloat(last(query, name), 64)
		if err != nil || math.IsNaN(value) || math.IsInf(value, 0) {
			// The body is such a text, not JSON: clients know it (CN-26).
			return fail(nethttp.StatusBadRequest, `{"code": 400, "message": "cannot interpret '%s' as a 'float'."}`, last(query, name))
		}
		bounds[i] = value
	}
	unit := 1.0
	switch last(query, "ts_unit") {
	case "", "s":
	case "ms":
		unit = 1000
	default:
		return fail(nethttp.StatusBadRequest, "Query parameter 'ts_unit' should be 's' (seconds) or 'ms' (milliseconds)")
	}
	latest := float64(h.cfg.Now().Add(2*time.Second).UnixMilli()) / 1000
	for i, name := range []string{"ts_from", "ts_to"} {
		bounds[i] /= unit
		switch {
		case bounds[i] < projectStart:
			return fail(nethttp.StatusBadRequest, "Query parameter '%s' is invalid (earlier than WALT project startup date!)", name)
		case bounds[i] > latest:
			return fail(nethttp.StatusBadRequest, "Query parameter '%s' is invalid, it refers to a date in the future.\n"+
				"Note: you can use 'ts_unit' query parameter to specify the unit (i.e. 's' for seconds, 'ms' for milliseconds).", name)
		}
	}
	var found []state.LogRecord
	request := state.LogsRequest{From: bounds[0], To: bounds[1], Issuer: last(query, "issuer"), Stream: last(query, "stream")}
	if err := h.call(r.Context(), state.MethodLogs, request, &found); err != nil {
		return err
	}
	logs := make([]record, len(found))
	for i, l := range found {
		logs[i] = record{l.Timestamp * unit, l.Line, l.Issuer, l.Stream}
	}
	writeJSON(w, r, nethttp.StatusOK, struct {
		Count int      `json:"num_logs"`
		Logs  []record `json:"logs"`
	}{len(logs), logs})
	return nil
}

func (h *handler) call(ctx context.Context, method string, arg, reply any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := h.cfg.State.Call(ctx, method, arg, reply); err != nil {
		return fmt.Errorf("cannot ask the main service: %w", err)
	}
	return nil
}

// last returns the last value of a parameter, as upstream's server does.
func last(query url.Values, name string) string {
	values := query[name]
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

// truth reads a boolean: any JSON value, tested as Python tests it.
func truth(text string) (bool, error) {
	if text == "" {
		return false, nil
	}
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return false, fail(nethttp.StatusBadRequest, "cannot interpret '%s' as a 'bool'.", text)
	}
	switch v := v.(type) {
	case nil:
		return false, nil
	case bool:
		return v, nil
	case float64:
		return v != 0, nil
	case string:
		return v != "", nil
	case []any:
		return len(v) > 0, nil
	case map[string]any:
		return len(v) > 0, nil
	}
	return false, nil
}

// filters makes a predicate of the query: every field given must be equal. An empty
// value is ignored.
func filters[T any](query url.Values, fields map[string]func(T) any) (func(T) bool, error) {
	var zero T
	var tests []func(T) bool
	for _, name := range slices.Sorted(maps.Keys(query)) {
		get, ok := fields[name]
		if !ok {
			return nil, fail(nethttp.StatusBadRequest, "'%s' is not a valid filtering field.", name)
		}
		text := last(query, name)
		if text == "" {
			continue
		}
		var want any = text
		if _, isBool := get(zero).(bool); isBool {
			value, err := truth(text)
			if err != nil {
				return nil, err
			}
			want = value
		}
		tests = append(tests, func(v T) bool { return get(v) == want })
	}
	return func(v T) bool {
		for _, test := range tests {
			if !test(v) {
				return false
			}
		}
		return true
	}, nil
}
