package core

import (
	"context"
	"errors"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/state"
)

// maxWebLogs bounds the answer to a query of logs by the web API, in bytes: it is one
// message to the HTTP service.
const maxWebLogs = 8 << 20

// webMethods are what the web API needs besides the published state.
func (d *Daemon) webMethods() map[string]state.Method {
	return map[string]state.Method{state.MethodImages: d.webImages, state.MethodLogs: d.webLogs, state.MethodMetrics: d.webMetrics, state.MethodReady: d.webReady}
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

func (d *Daemon) webLogs(ctx context.Context, decode func(any) error) (any, error) {
	var request state.LogsRequest
	if err := decode(&request); err != nil {
		return nil, err
	}
	filter := db.LogFilter{Start: &request.From, End: &request.To}
	if request.Issuer != "" {
		filter.Issuers = []string{request.Issuer}
	}
	if request.Stream != "" {
		filter.StreamsRegexp = "^(" + request.Stream + ")$"
	}
	if err := d.Logs.Flush(ctx); err != nil {
		return nil, databaseError(err)
	}
	found, size := []state.LogRecord{}, 0
	err := d.Store.QueryLogs(ctx, filter, func(records []db.Record) error {
		for _, r := range records {
			found = append(found, state.LogRecord{Timestamp: seconds(r.Time), Line: r.Line, Issuer: r.Issuer, Stream: r.Stream})
			size += len(r.Line) + len(r.Issuer) + len(r.Stream) + 64
		}
		if size > maxWebLogs {
			return errors.New("there are too many log lines for one answer: ask for less time")
		}
		return nil
	})
	return found, databaseError(err)
}
