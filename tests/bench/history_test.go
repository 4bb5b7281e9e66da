package bench

import (
	"fmt"
	"io"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/waltos/waltos/services/wire/client"
	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/services/wire/rpc"
)

// BenchmarkHistory reads the log lines of a platform, in the client's default format, as
// one client does: with what our own takes to decode each line, and only received. The
// limit is a bare COPY of the same rows, in the same order.
func BenchmarkHistory(b *testing.B) {
	const streams, perStream = 16, 20_000
	const all = streams * perStream
	d := newDaemon(b)
	lines := make([]string, perStream)
	for i := range lines {
		lines[i] = fmt.Sprintf("measure %d: temperature 21.5 humidity 40 light 300 lux", i)
	}
	var group errgroup.Group
	for i := range streams {
		group.Go(func() error { return client.SendLogs(b.Context(), d.Streams, fmt.Sprint("bench.", i), lines...) })
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	if _, err := d.session().CallKeywords(b.Context(), "count_logs", nil, pickle.NewDict("streams_regexp", "bench")); err != nil {
		b.Fatal(err) // it is answered once everything received is stored
	}
	conn := d.Postgres.Connect("walt")
	history := pickle.NewDict("history", pickle.Tuple{nil, nil}, "realtime", false, "issuers", nil,
		"streams_regexp", "^bench", "logline_regexp", nil)
	for b.Loop() {
		rate := func(read func() error) float64 {
			began := time.Now()
			if err := read(); err != nil {
				b.Fatal(err)
			}
			return all / time.Since(began).Seconds()
		}
		bare := rate(func() error {
			_, err := conn.PgConn().CopyTo(b.Context(), io.Discard, `COPY (
				SELECT l.timestamp, l.line, d.name, s.name FROM logs l, logstreams s, devices d
				WHERE l.stream_id = s.id AND s.issuer_mac = d.mac AND s.name ~ '^bench' ORDER BY l.timestamp) TO STDOUT`)
			return err
		})
		received := rate(func() error {
			s, err := client.DialStream(b.Context(), d.Streams, rpc.DumpLogs)
			if err != nil {
				return err
			}
			defer s.Close()
			if err := s.Send(history); err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, s.R)
			return err
		})
		count := 0
		decoded := rate(func() error {
			return client.DumpLogs(b.Context(), d.Streams, client.LogQuery{History: true, Streams: "^bench"}, func(client.Record) error {
				count++
				return nil
			})
		})
		if count != all {
			b.Fatalf("%d of %d lines are read", count, all)
		}
		t := newTable("LINES read by one client", "PER SECOND", "OF BARE COPY")
		for _, r := range []struct {
			name string
			rate float64
		}{{"bare COPY", bare}, {"received", received}, {"received and decoded", decoded}} {
			t.row(r.name, fmt.Sprintf("%.0f", r.rate), fmt.Sprintf("%.3f", r.rate/bare))
		}
		t.print(b)
		b.ReportMetric(received, "lines/s")
		b.ReportMetric(decoded, "decoded-lines/s")
		b.ReportMetric(bare, "bare-lines/s")
	}
}
