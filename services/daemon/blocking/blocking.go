// Package blocking is the process server-blocking: what talks to strangers or may take
// long, apart from server-main so that it can hang or crash alone (design §6). It serves
// calls of server-main on a connector.
//
// Nothing of that kind is provided yet, hence every call is refused with words.
package blocking

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/notify"
)

// Main runs server-blocking until ctx ends.
func Main(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("server-blocking", flag.ContinueOnError)
	sockets := flags.String("socket-dir", "/run/walt/daemon", "`folder` of the sockets of the daemon, when the supervisor passes none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ln, err := listen(*sockets)
	if err != nil {
		return fmt.Errorf("cannot listen for server-main: %w", err)
	}
	if err := notify.Ready(); err != nil {
		return err
	}
	return connector.Listen(ctx, ln, serve)
}

func listen(folder string) (net.Listener, error) {
	ln, err := notify.Listener("blocking")
	if !errors.Is(err, notify.ErrNoSocket) {
		return ln, err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(folder, "blocking.sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if ln, err = net.Listen("unix", path); err != nil {
		return nil, err
	}
	return ln, os.Chmod(path, 0o600)
}

// serve answers calls of server-main.
func serve(_ context.Context, _ *connector.Peer, method string, _ []byte) (any, error) {
	return nil, fmt.Errorf("%s is not available on this server yet", method)
}
