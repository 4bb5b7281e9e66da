package ipxe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/waltos/waltos/services/wire/client"
)

// Server is the boot server of a node: a WalT server.
type Server struct {
	Address string // next-server
	MAC, IP string // of the node
}

// Ports of the server.
const (
	streamPort = "12347"
	httpPort   = "80"
)

// idleLimit is how long the server may send nothing.
const idleLimit = 30 * time.Second

var errIdle = fmt.Errorf("the server has sent nothing for %v", idleLimit)

// Fetch implements Source.
func (s Server) Fetch(ctx context.Context, file Location, w io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(idleLimit, func() { cancel(errIdle) })
	defer idle.Stop()
	w = &watched{w, idle}
	var err error
	if file.HTTP {
		err = s.byHTTP(ctx, file.Path, w)
	} else {
		// In the place of TFTP, which has no address of the node to tell it by.
		err = client.BootFile(ctx, net.JoinHostPort(s.Address, streamPort), s.MAC, file.Path, w)
		if errors.Is(err, client.ErrNoBootFile) {
			err = ErrNoFile
		}
	}
	if err != nil && context.Cause(ctx) == errIdle {
		return errIdle
	}
	return err
}

func (s Server) byHTTP(ctx context.Context, file string, w io.Writer) error {
	at := url.URL{Scheme: "http", Host: net.JoinHostPort(s.Address, httpPort), Path: file,
		RawQuery: url.Values{"node_ip": {s.IP}}.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return err
	}
	// No proxy of the environment: the server is the one of the platform. Connections
	// are not kept, as each file is large or rare.
	transport := &http.Transport{DisableKeepAlives: true}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
		_, err = io.Copy(w, answer.Body)
		return err
	case http.StatusNotFound:
		return ErrNoFile
	}
	return fmt.Errorf("the server answers %s", answer.Status)
}

// watched tells a timer of each write.
type watched struct {
	w    io.Writer
	idle *time.Timer
}

func (w *watched) Write(p []byte) (int, error) {
	w.idle.Reset(idleLimit)
	return w.w.Write(p)
}
