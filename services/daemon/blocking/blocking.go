// Package blocking is the process server-blocking: what talks to strangers or may take
// long, apart from server-main so that it can hang or crash alone (design §6). It serves
// calls of server-main on a connector, each in its own goroutine.
//
// It speaks SNMP: the neighbours and the forwarding tables of switches, and the power of
// their ports; and with registries of images (package registry). Each answer comes within
// a bounded time, whatever a stranger says. Calls of other names are refused.
package blocking

import (
	"context"
	"flag"
	"fmt"

	"github.com/waltos/waltos/services/daemon/blocking/registry"
	"github.com/waltos/waltos/services/daemon/blocking/snmp"
	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/daemon/trackexec"
	"github.com/waltos/waltos/services/internal/selfcheck"
	"github.com/waltos/waltos/services/metrics"
	"github.com/waltos/waltos/services/notify"
)

// CacheFile is where server-blocking remembers how switches are talked to.
const CacheFile = "/var/cache/walt/blocking/switches.json"

// Main runs server-blocking until ctx ends.
func Main(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("server-blocking", flag.ContinueOnError)
	sockets := flags.String("socket-dir", "/run/walt/daemon", "`folder` of the sockets of the daemon, when the supervisor passes none")
	tracing := flags.String("trackexec", trackexec.Root, trackexec.Usage)
	cacheFile := flags.String("cache", CacheFile, "`file` that remembers how switches are talked to; empty: none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ln, err := notify.UnixListener("blocking", *sockets)
	if err != nil {
		return err
	}
	trace := trackexec.OpenFlag(*tracing, "server-blocking")
	defer trace.Close()
	if err := notify.Ready(); err != nil {
		return err
	}
	handler := trace.Handler(trackexec.Task, NewService(snmp.NewClient(), *cacheFile).Handle)
	own := selfcheck.New(ln)
	go notify.KeepAlive(ctx, own.Answers)
	return connector.Listen(ctx, own, metrics.Handler(metrics.New("server-blocking"), handler))
}

// Service is what server-blocking does.
type Service struct {
	snmp       *snmp.Client
	cache      *cache
	registries registry.Client
}

// NewService returns a service that talks to switches by a client, and remembers how in a
// file; "" is none.
func NewService(client *snmp.Client, cacheFile string) *Service {
	return &Service{snmp: client, cache: openCache(cacheFile)}
}

// Handle serves calls of Client: a connector.Handler.
func (s *Service) Handle(ctx context.Context, caller *connector.Peer, method string, body []byte) (any, error) {
	switch method {
	case "explore":
		return with(body, func(sw Switch) (any, error) { return s.explore(ctx, sw), nil })
	case "labels":
		return with(body, func(sw Switch) (any, error) { return s.labels(ctx, sw) })
	case "power":
		return with(body, func(request powerRequest) (any, error) { return s.power(ctx, request), nil })
	case "login":
		return with(body, func(request loginRequest) (any, error) {
			ctx, cancel := context.WithTimeout(ctx, loginLimit)
			defer cancel()
			return nil, s.registries.Login(ctx, request.Registry, request.Account)
		})
	case "search":
		return with(body, func(request searchRequest) (any, error) { return nil, s.search(ctx, caller, request) })
	case "describe":
		return with(body, func(request imageRequest) (any, error) { return s.describe(ctx, request) })
	case "contents":
		return with(body, func(request imageRequest) (any, error) { return s.contents(ctx, request) })
	case "layer":
		return with(body, func(request layerRequest) (any, error) { return nil, s.layer(ctx, caller, request) })
	case "announce":
		return with(body, func(request announceRequest) (any, error) { return nil, s.announce(ctx, request) })
	}
	return nil, fmt.Errorf("%s is not available on this server yet", method)
}

// with decodes the argument of a call.
func with[T any](body []byte, f func(T) (any, error)) (any, error) {
	var arg T
	if err := connector.Decode(body, &arg); err != nil {
		return nil, fmt.Errorf("cannot read a call: %w", err)
	}
	return f(arg)
}
