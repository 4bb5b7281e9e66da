package http

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	nethttp "net/http"
	"net/url"
	"slices"

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

// truth reads a boolean: true, false or a number, in JSON (CN-26).
func truth(text string) (bool, error) {
	if text == "" {
		return false, nil
	}
	var v any
	if err := json.Unmarshal([]byte(text), &v); err == nil {
		switch v := v.(type) {
		case bool:
			return v, nil
		case float64:
			return v != 0, nil
		}
	}
	return false, fail(nethttp.StatusBadRequest, "cannot interpret '%s' as a 'bool'.", text)
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
