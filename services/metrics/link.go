package metrics

import (
	"context"

	"github.com/waltos/waltos/services/daemon/connector"
)

// method is the call that asks a process for its families.
const method = "metrics"

// Handler answers for a set, and leaves every other call to next.
func Handler(s *Set, next connector.Handler) connector.Handler {
	return func(ctx context.Context, p *connector.Peer, name string, body []byte) (any, error) {
		if name == method {
			return s.Collect(), nil
		}
		return next(ctx, p, name, body)
	}
}

// Caller is the connection to another process: a connector.Peer or a connector.Client.
type Caller interface {
	Call(ctx context.Context, method string, arg, reply any) error
}

// Ask returns the families of another process, whose calls pass through Handler.
func Ask(ctx context.Context, process Caller) ([]Family, error) {
	var families []Family
	err := process.Call(ctx, method, nil, &families)
	return families, err
}
