package hub

import (
	"net/netip"

	"github.com/waltos/waltos/services/metrics"
)

// measure has a set tell what the hub serves.
func (h *Hub) measure(set *metrics.Set) {
	h.refusals = set.Counter("walt_api_refused_total", "Connections to the API refused, because too many were open.")
	h.exceptions = set.Counter("walt_api_exceptions_total", "Calls of the API that ended with an exception.")
	set.Func(func() []metrics.Family {
		sessions := map[string]int{}
		for _, api := range apis {
			sessions[api] = 0
		}
		h.mu.Lock()
		for _, c := range h.sessions {
			if _, known := sessions[c.api]; known {
				sessions[c.api]++
			}
		}
		h.mu.Unlock()
		_, connections := h.quota.Held(netip.Addr{})
		open := metrics.Gauge("walt_sessions", "API sessions that have made a call.")
		for _, api := range apis {
			open.Samples = append(open.Samples, metrics.Value(float64(sessions[api]), "api", api))
		}
		return []metrics.Family{open, metrics.Gauge("walt_api_connections", "Connections to TCP 12345.", metrics.Value(float64(connections)))}
	})
}
