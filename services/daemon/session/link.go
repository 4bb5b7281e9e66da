package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/metrics"
	"github.com/waltos/waltos/services/wire/pickle"
)

// Methods of the connector, and their arguments.
const (
	methodCall     = "session.call"     // callRequest → pickle of ("RESULT", value)
	methodCallback = "session.callback" // callbackRequest → callbackReply
	methodEnd      = "session.end"      // notification: number of the session
)

type callRequest struct {
	Session uint64
	API     string
	Peer    netip.Addr
	Call    uint64
	Method  string
	Args    []byte // pickle of (args, kwargs)
}

type callbackRequest struct {
	Session uint64
	Call    uint64 // the pending call that it belongs to; 0: any
	Message []byte // pickle of the whole message to the client
}

type callbackReply struct {
	Gone  bool   // the client has disconnected
	Value []byte // pickle of the result
}

// forwarded are the limits of what one of our processes sends the other. They are
// wider than those of clients, because writing a value again may make it longer.
var forwarded = pickle.Limits{Size: connector.MaxFrame, Depth: 100, Values: 1 << 20}

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
	// Nothing is lost if it does not arrive: then the connection is lost too.
	client.OnConnect(func(main *connector.Peer) { _ = main.Notify(methodHello, nil) })
	return &Link{client}
}

// Close ends the link, with the calls in flight.
func (l *Link) Close() { l.client.Close() }

// Call is one call of a client.
type Call struct {
	Session uint64
	API     string
	Peer    netip.Addr
	ID      uint64 // unique within the session, not 0
	Method  string
	Args    pickle.Tuple
	Kwargs  *pickle.Dict
}

// patience is how long a call waits for a server-main that is not there.
const patience = 20 * time.Second

// Call has server-main serve a call, and returns the pickle of the message
// ("RESULT", value) to the client. While server-main restarts, calls wait for it, up
// to 20 seconds.
func (l *Link) Call(ctx context.Context, c Call) ([]byte, error) {
	args, err := pickle.Marshal(pickle.Tuple{c.Args, c.Kwargs})
	if err != nil {
		return nil, err
	}
	request := &callRequest{Session: c.Session, API: c.API, Peer: c.Peer, Call: c.ID, Method: c.Method, Args: args}
	reachable, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		main, err := l.client.Peer(reachable)
		if err != nil {
			return nil, err
		}
		var message []byte
		if err := main.Call(ctx, methodCall, request, &message); !errors.Is(err, connector.ErrNotSent) {
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
