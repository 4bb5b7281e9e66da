package db

import (
	"context"
	"fmt"

	"github.com/waltos/waltos/services/daemon/connector"
)

// handle serves one call of Client.
func (s *store) handle(ctx context.Context, p *connector.Peer, method string, body []byte) (any, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	switch method {
	case "insertLines", "countLogs", "openLogs", "nextLogs": // as long as it takes, and the caller waits
	default:
		bounded, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		ctx = bounded
	}
	switch method {
	case "ping":
		return nil, s.ping(ctx)
	case "loadAll":
		return s.loadAll(ctx)
	case "saveDevice":
		return with(body, func(d wireDevice) (any, error) { return nil, s.saveDevice(ctx, d) })
	case "deleteDevice":
		return with(body, func(mac string) (any, error) { return nil, s.deleteDevice(ctx, mac) })
	case "fixServer":
		return with(body, func(a [2]string) (any, error) { return nil, s.fixServer(ctx, a[0], a[1]) })
	case "saveImage":
		return with(body, func(name string) (any, error) { return nil, s.saveImage(ctx, name) })
	case "deleteImage":
		return with(body, func(name string) (any, error) { return nil, s.deleteImage(ctx, name) })
	case "renameImage":
		return with(body, func(a [2]string) (any, error) { return nil, s.renameImage(ctx, a[0], a[1]) })
	case "saveSwitchPort":
		return with(body, func(p SwitchPort) (any, error) { return nil, s.saveSwitchPort(ctx, p) })
	case "setTopology":
		return with(body, func(links []wireTopology) (any, error) { return nil, s.setTopology(ctx, links) })
	case "savePoEOff":
		return with(body, func(p PoEOff) (any, error) { return nil, s.savePoEOff(ctx, p) })
	case "deletePoEOff":
		return with(body, func(p PoEOff) (any, error) { return nil, s.deletePoEOff(ctx, p) })
	case "checkpoints":
		return with(body, func(user string) (any, error) { return s.checkpoints(ctx, user) })
	case "saveCheckpoint":
		return with(body, func(w wireCheckpoint) (any, error) { return s.saveCheckpoint(ctx, w) })
	case "deleteCheckpoint":
		return with(body, func(a [2]string) (any, error) { return s.deleteCheckpoint(ctx, a[0], a[1]) })
	case "streamIDs":
		return with(body, func(streams []Stream) (any, error) { return s.streamIDs(ctx, streams) })
	case "stageLines":
		return with(body, func(w wireBatch) (any, error) { return nil, s.stageLines(w) })
	case "insertLines":
		return with(body, func(w wireBatch) (any, error) { return s.insertLines(ctx, w) })
	case "sqlAccess":
		return s.sqlAccess()
	case "countLogs":
		return with(body, func(f LogFilter) (any, error) { return s.countLogs(ctx, f) })
	case "openLogs":
		return with(body, func(w wireHistory) (any, error) { return s.openLogs(ctx, cursorKey{p, w.Cursor}, w) })
	case "nextLogs":
		return with(body, func(id uint64) (any, error) { return s.nextLogs(ctx, cursorKey{p, id}) })
	case "closeLogs":
		return with(body, func(id uint64) (any, error) { s.closeLogs(cursorKey{p, id}); return nil, nil })
	}
	return nil, fmt.Errorf("server-db has no call %q", method)
}

// with decodes the argument of a call.
func with[T any](body []byte, f func(T) (any, error)) (any, error) {
	var arg T
	if err := connector.Decode(body, &arg); err != nil {
		return nil, fmt.Errorf("cannot read a call: %w", err)
	}
	return f(arg)
}
