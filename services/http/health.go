package http

import (
	"context"
	"fmt"
	"log"
	nethttp "net/http"
	"strings"
	"time"

	"github.com/waltos/waltos/services/metrics"
	"github.com/waltos/waltos/services/state"
)

// healthTimeout bounds how long the daemon may take to tell how it is.
const healthTimeout = 3 * time.Second

func (h *handler) measure() {
	h.requests = h.set.CountersBy("walt_http_requests_total", "HTTP requests, by route and status.", "route", "code")
	h.took = h.set.DurationsBy("walt_http_request_duration_seconds", "HTTP requests, by how long they took.", "route")
	h.set.Func(func() []metrics.Family {
		nodes, devices := map[bool]int{}, map[string]int{}
		for _, d := range h.cfg.State.Current().Devices {
			devices[d.Type]++
			if d.Type == "node" {
				nodes[d.Booted]++
			}
		}
		byType := metrics.Gauge("walt_devices", "Devices of the platform, by type.")
		for _, kind := range []string{"server", "node", "switch", "unknown"} {
			byType.Samples = append(byType.Samples, metrics.Value(float64(devices[kind]), "type", kind))
		}
		return []metrics.Family{
			metrics.Gauge("walt_nodes", "Nodes of the platform, by state.",
				metrics.Value(float64(nodes[true]), "state", "booted"), metrics.Value(float64(nodes[false]), "state", "down")),
			byType,
			metrics.Total("walt_connections_total", "Connections to processes of the daemon, made again when lost.",
				metrics.Value(float64(h.cfg.State.Connections()), "from", "httpd", "to", "server-main")),
			metrics.Gauge("walt_http_histories", "Answers of /api/v1/logs under way.", metrics.Value(float64(len(h.histories)))),
		}
	})
}

// metrics shows the figures of this process and of the daemon to users; of the daemon
// only that it is away, if it is.
func (h *handler) metrics(w nethttp.ResponseWriter, r *nethttp.Request) error {
	if !h.user(r) {
		return fail(nethttp.StatusForbidden, "Only the networks of users may read this.")
	}
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	var daemon []metrics.Family
	if err := h.cfg.State.Call(ctx, state.MethodMetrics, nil, &daemon); err != nil {
		log.Printf("cannot ask the daemon for its figures: %v", err)
		daemon = []metrics.Family{metrics.Gauge("walt_process_up", "Whether a process of the daemon answers.", metrics.Value(0, "process", "server-main"))}
	}
	var text strings.Builder
	if err := metrics.Write(&text, metrics.Merge(append(h.set.Collect(), daemon...))); err != nil {
		return err
	}
	write(w, r, nethttp.StatusOK, metrics.ContentType, []byte(text.String()))
	return nil
}

// ready tells whether calls of clients would be served: status 200 and an empty list, or
// 503 and what is missing.
func (h *handler) ready(w nethttp.ResponseWriter, r *nethttp.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	var missing []state.NotReady
	if err := h.cfg.State.Call(ctx, state.MethodReady, nil, &missing); err != nil {
		missing = []state.NotReady{{Part: "server-main", Reason: fmt.Sprintf("it does not answer: %v", err)}}
	}
	if len(missing) > 0 {
		writeJSON(w, r, nethttp.StatusServiceUnavailable, missing)
		return nil
	}
	writeJSON(w, r, nethttp.StatusOK, []state.NotReady{})
	return nil
}
