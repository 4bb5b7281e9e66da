// Package blocking is the process server-blocking: what talks to strangers or may take
// long, apart from server-main so that it can hang or crash alone (design §6). It serves
// calls of server-main on a connector.
//
// Nothing of that kind is provided yet, hence every call is refused with words.
package blocking

import (
	"context"
	"flag"
	"fmt"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/daemon/trackexec"
	"github.com/waltos/waltos/services/notify"
)

// Main runs server-blocking until ctx ends.
func Main(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("server-blocking", flag.ContinueOnError)
	sockets := flags.String("socket-dir", "/run/walt/daemon", "`folder` of the sockets of the daemon, when the supervisor passes none")
	tracing := flags.String("trackexec", trackexec.Root, trackexec.Usage)
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
	return connector.Listen(ctx, ln, trace.Handler(trackexec.Task, serve))
}

// serve answers calls of server-main.
func serve(_ context.Context, _ *connector.Peer, method string, _ []byte) (any, error) {
	return nil, fmt.Errorf("%s is not available on this server yet", method)
}
