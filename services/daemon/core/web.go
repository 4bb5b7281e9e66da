package core

import (
	"context"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/state"
)

// webMethods are what the web API needs besides the published state.
func (d *Daemon) webMethods() map[string]state.Method {
	return map[string]state.Method{state.MethodImages: d.webImages, state.MethodMetrics: d.webMetrics, state.MethodReady: d.webReady}
}

// webStreams are those whose answers may be of any size.
func (d *Daemon) webStreams() map[string]state.Stream {
	return map[string]state.Stream{state.StreamLogs: d.webLogs}
}

func (d *Daemon) webImages(ctx context.Context, decode func(any) error) (any, error) {
	var request state.ImagesRequest
	if err := decode(&request); err != nil {
		return nil, err
	}
	if request.Refresh {
		if err := d.Images.Refresh(ctx); err != nil {
			return nil, err
		}
	}
	all := []state.Image{}
	for _, i := range d.images() {
		all = append(all, state.Image{
			FullName: i.FullName, User: i.User, ID: i.ID, InUse: i.InUse, Created: i.created(), Compatibility: i.Models,
		})
	}
	return all, nil
}

// webLogs sends the number of the lines selected, then the lines in blocks.
func (d *Daemon) webLogs(ctx context.Context, decode func(any) error, send func(any) error) error {
	var request state.LogsRequest
	if err := decode(&request); err != nil {
		return err
	}
	filter := db.LogFilter{Start: &request.From, End: &request.To}
	if request.Issuer != "" {
		filter.Issuers = []string{request.Issuer}
	}
	if request.Stream != "" {
		filter.StreamsRegexp = "^(" + request.Stream + ")$"
	}
	if err := d.Logs.Flush(ctx); err != nil {
		return databaseError(err)
	}
	var part state.LogsPart
	counted := func(n int64) error { part.Count = n; return send(part) }
	return databaseError(d.Store.QueryCountedLogs(ctx, filter, counted, func(records []db.Record) error {
		part.Records = part.Records[:0]
		for _, r := range records {
			part.Records = append(part.Records, state.LogRecord{Timestamp: seconds(r.Time), Line: r.Line, Issuer: r.Issuer, Stream: r.Stream})
		}
		return send(part)
	}))
}
