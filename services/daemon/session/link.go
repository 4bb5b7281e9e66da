package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/metrics"
)

// Link is server-hub's end of the connection to server-main. It is made again when
// server-main restarts.
type Link struct{ client *connector.Client }

// Callback sends a message to the client of a session, on behalf of one of its
// pending calls, and returns the result as a pickle. The error is ErrGone if that
// client has disconnected.
type Callback func(ctx context.Context, session, call uint64, message []byte) ([]byte, error)

// Dial returns the link to the server-main that listens on a unix socket, which may ask
// for the set of measures.
func Dial(socket string, callback Callback, measures *metrics.Set) *Link {
	client := connector.Dial(socket, metrics.Handler(measures, func(ctx context.Context, _ *connector.Peer, method string, body []byte) (any, error) {
		if method != methodCallback {
			return nil, fmt.Errorf("server-hub has no method %q", method)
		}
		var request callbackRequest
		if err := connector.Decode(body, &request); err != nil {
			return nil, err
		}
		value, err := callback(ctx, request.Session, request.Call, request.Message)
		if errors.Is(err, ErrGone) {
			return &callbackReply{Gone: true}, nil
		}
		return &callbackReply{Value: value}, err
	}))
	connected := measures.Counter("walt_connections_total", "Connections to processes of the daemon, made again when lost.", "from", "server-hub", "to", "server-main")
	client.OnConnect(func(main *connector.Peer) {
		connected.Add(1)
		// Nothing is lost if it does not arrive: then the connection is lost too.
		_ = main.Notify(methodHello, nil)
	})
	return &Link{client}
}

// Close ends the link, with the calls in flight.
func (l *Link) Close() { l.client.Close() }

// Pending is a call that server-main serves.
type Pending struct {
	main *connector.Peer
	id   uint64
}

// Cancel gives up the call, and tells whether its end will not be told any more.
func (p Pending) Cancel() bool { return p.main == nil || p.main.Cancel(p.id) }

// Start has server-main serve a call, whose end, with the pickle of the message
// ("RESULT", value), is told to done. It never waits: if server-main is not there, or
// very busy, it tells so, and the call is one for Call.
func (l *Link) Start(c *Call, done connector.Completion) (pending Pending, started bool, err error) {
	main := l.client.Present()
	if main == nil {
		return Pending{}, false, nil
	}
	id, err := main.Start(methodCall, c, done)
	if errors.Is(err, connector.ErrNotSent) || errors.Is(err, connector.ErrBusy) {
		return Pending{}, false, nil
	}
	return Pending{main, id}, err == nil, err
}

// patience is how long a call waits for a server-main that is not there.
const patience = 20 * time.Second

// Call is Start that waits: for server-main, up to 20 seconds while it restarts, and for
// the end of the call.
func (l *Link) Call(ctx context.Context, c *Call) ([]byte, error) {
	reachable, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		main, err := l.client.Peer(reachable)
		if err != nil {
			return nil, err
		}
		var message connector.Raw
		if err := main.Call(ctx, methodCall, c, &message); !errors.Is(err, connector.ErrNotSent) {
			return message, err
		}
	}
}

// End tells server-main that the client of a session has gone. Its calls must have
// been cancelled before.
func (l *Link) End(session uint64) {
	// If server-main is not there, neither is the session.
	_ = l.client.Notify(methodEnd, session)
}
