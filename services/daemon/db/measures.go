package db

import (
	"context"
	"time"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/metrics"
)

// measured counts the calls that a handler serves, and answers those who ask for the
// figures of this process.
func (s *store) measured(next connector.Handler) connector.Handler {
	set := metrics.New("server-db")
	took := set.DurationsBy("walt_database_call_duration_seconds", "Calls of the database by server-main, by how long they took.", "call")
	failed := set.CountersBy("walt_database_call_failures_total", "Calls of the database that failed.", "call")
	set.Func(func() []metrics.Family {
		pool := s.pool.Stat()
		s.mu.Lock()
		histories := len(s.cursors)
		s.mu.Unlock()
		return []metrics.Family{
			metrics.Gauge("walt_database_connections", "Connections to PostgreSQL.",
				metrics.Value(float64(pool.AcquiredConns()), "state", "used"), metrics.Value(float64(pool.IdleConns()), "state", "idle")),
			metrics.Total("walt_database_connections_opened_total", "Connections to PostgreSQL made, again if they were lost.", metrics.Value(float64(pool.NewConnsCount()))),
			metrics.Gauge("walt_log_histories", "Histories of log lines that are being read.", metrics.Value(float64(histories))),
		}
	})
	return metrics.Handler(set, func(ctx context.Context, p *connector.Peer, method string, body []byte) (any, error) {
		began := time.Now()
		reply, err := next(ctx, p, method, body)
		took.With(method).Since(began)
		if err != nil {
			failed.With(method).Add(1)
		}
		return reply, err
	})
}
