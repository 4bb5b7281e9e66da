package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// requestTimeout is the default of Client.Timeout.
	requestTimeout = 10 * time.Second
	// maxAnswer bounds an answer that is no layer.
	maxAnswer = 4 << 20
	// maxParallel bounds the requests that one registry is made at once.
	maxParallel = 8
)

// guard bounds what a registry can do with a request: its answer ends in time and has
// bounded size, and nothing goes over another scheme than the site file says, passwords
// above all. Other hosts, which a registry sends its users to, may also be asked by https.
type guard struct {
	transport *http.Transport
	host      string // of the registry
	scheme    string
	timeout   time.Duration
}

// CloseIdleConnections ends the connections.
func (g *guard) CloseIdleConnections() { g.transport.CloseIdleConnections() }

// layerKey marks the context of requests whose answer is a layer; the value is how long
// it may be.
type layerKey struct{}

// RoundTrip is that of http.RoundTripper.
func (g *guard) RoundTrip(request *http.Request) (*http.Response, error) {
	if scheme := request.URL.Scheme; scheme != g.scheme && (scheme != "https" || request.URL.Host == g.host) {
		return nil, fmt.Errorf("cannot ask %s: %s is not safe, or not what the site file says of the registry", request.URL.Host, scheme)
	}
	size, layer := request.Context().Value(layerKey{}).(int64)
	if !layer {
		size = maxAnswer
	}
	ctx, cancel := context.WithCancelCause(request.Context())
	late := time.AfterFunc(g.timeout, func() {
		cancel(fmt.Errorf("cannot wait for %s: no answer within %v", request.URL.Host, g.timeout))
	})
	answer, err := g.transport.RoundTrip(request.WithContext(ctx))
	if err != nil {
		late.Stop()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	body := &guardedBody{ReadCloser: answer.Body, ctx: ctx, cancel: cancel, late: late, left: size}
	if layer {
		body.pause = g.timeout
	}
	answer.Body = body
	return answer, nil
}

// guardedBody ends with an error if it is longer than it may be, or too slow.
type guardedBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	late   *time.Timer
	left   int64
	pause  time.Duration // longest between two pieces of a layer; 0: it is none
}

func (b *guardedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.pause > 0 && n > 0 {
		b.late.Reset(b.pause)
	}
	if b.left -= int64(n); b.left < 0 {
		return 0, errors.New("cannot read an answer: it is longer than can be meant")
	}
	if err != nil && err != io.EOF && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

func (b *guardedBody) Close() error {
	b.late.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
