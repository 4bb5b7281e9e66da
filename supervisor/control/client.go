package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/waltos/waltos/supervisor/journal"
	"github.com/waltos/waltos/supervisor/security"
	"github.com/waltos/waltos/supervisor/watchdog"
)

// ErrUnreachable is the error of a client that finds no supervisor.
var ErrUnreachable = errors.New("cannot reach the supervisor")

// ErrForbidden is the error of a client that may not do what it asks for.
var ErrForbidden = errors.New("not permitted")

// answerTime bounds the wait for an answer that is no stream.
const answerTime = 30 * time.Second

// Client asks the supervisor that listens at Path.
type Client struct{ Path string }

// Status asks for the whole machine.
func (c Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.ask(ctx, "GET", "/v1/status", &s)
}

// Unit asks for all that is known of a unit.
func (c Client) Unit(ctx context.Context, name string) (d Detail, err error) {
	return d, c.ask(ctx, "GET", "/v1/units/"+url.PathEscape(name), &d)
}

// Graph asks for the dependencies of all units.
func (c Client) Graph(ctx context.Context) (g []Node, err error) {
	return g, c.ask(ctx, "GET", "/v1/graph", &g)
}

// Security asks what each unit can do.
func (c Client) Security(ctx context.Context) (r []security.Report, err error) {
	return r, c.ask(ctx, "GET", "/v1/security", &r)
}

// Boot asks for the report of the boot.
func (c Client) Boot(ctx context.Context) (b Boot, err error) {
	return b, c.ask(ctx, "GET", "/v1/boot", &b)
}

// Flush has the journal on disk hold all lines so far.
func (c Client) Flush(ctx context.Context) error {
	return c.ask(ctx, "POST", "/v1/journal/flush", &struct{}{})
}

// Configure has a site file checked and made the one in effect, and returns in words what
// that has done.
func (c Client) Configure(ctx context.Context, text []byte) (string, error) {
	body, err := c.open(ctx, "PUT", "/v1/site", bytes.NewReader(text))
	if err != nil {
		return "", err
	}
	defer body.Close()
	var done Configured
	if err := json.NewDecoder(body).Decode(&done); err != nil {
		return "", fmt.Errorf("cannot read the supervisor's answer: %w", err)
	}
	return done.Done, nil
}

// Shutdown orders "poweroff" or "reboot".
func (c Client) Shutdown(ctx context.Context, order string) error {
	return c.ask(ctx, "POST", "/v1/machine/"+url.PathEscape(order), &struct{}{})
}

// Watchdog lets the watchdog reset the machine ("on") or not ("off").
func (c Client) Watchdog(ctx context.Context, order string) (s watchdog.Status, err error) {
	return s, c.ask(ctx, "POST", "/v1/watchdog/"+url.PathEscape(order), &s)
}

// Change orders "start", "stop", "restart" or "reload" and, if wait is true, tells the
// events on the way and waits for the result.
func (c Client) Change(ctx context.Context, order, name string, wait bool, progress func(Event)) (Unit, error) {
	path := "/v1/units/" + url.PathEscape(name) + "/" + url.PathEscape(order)
	if !wait {
		path += "?wait=no"
	}
	var result *Unit
	err := stream(ctx, c, "POST", path, func(s Step) error {
		switch {
		case s.Error != "":
			return errors.New(s.Error)
		case s.Event != nil:
			progress(*s.Event)
		case s.Unit != nil:
			result = s.Unit
		}
		return nil
	})
	if err != nil {
		return Unit{}, err
	}
	if result == nil {
		return Unit{}, errors.New("the supervisor went away before the result")
	}
	return *result, nil
}

// Events calls each for the events of a unit (of all if the name is empty), with those to
// come if follow is true, until each returns an error or the context ends.
func (c Client) Events(ctx context.Context, name string, follow bool, each func(Event) error) error {
	query := url.Values{}
	if name != "" {
		query.Set("unit", name)
	}
	if follow {
		query.Set("follow", "yes")
	}
	return stream(ctx, c, "GET", "/v1/events?"+query.Encode(), each)
}

// Follow calls begin with the number of the first record that will come, then each for
// every record, until each returns an error, the context or the supervisor ends.
func (c Client) Follow(ctx context.Context, begin func(first uint64) error, each func(journal.Record) error) error {
	begun := false
	return stream(ctx, c, "GET", "/v1/journal", func(line json.RawMessage) error {
		if !begun {
			begun = true
			var head Follow
			if err := json.Unmarshal(line, &head); err != nil {
				return fmt.Errorf("cannot read the supervisor's answer: %w", err)
			}
			return begin(head.First)
		}
		var r journal.Record
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("cannot read the supervisor's answer: %w", err)
		}
		return each(r)
	})
}

func (c Client) ask(ctx context.Context, method, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	body, err := c.open(ctx, method, path, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("cannot read the supervisor's answer: %w", err)
	}
	return nil
}

func stream[T any](ctx context.Context, c Client, method, path string, each func(T) error) error {
	body, err := c.open(ctx, method, path, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	decoder := json.NewDecoder(body)
	for {
		var v T
		err := decoder.Decode(&v)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read the supervisor's answer: %w", err)
		}
		if err := each(v); err != nil {
			return err
		}
	}
}

// open sends a request and its body, if any, and returns the body of a good answer.
func (c Client) open(ctx context.Context, method, path string, content io.Reader) (io.ReadCloser, error) {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", c.Path)
		},
		DisableKeepAlives: true,
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://walt"+path, content)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the supervisor: %w", err)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		var dial *net.OpError
		if errors.As(err, &dial) && dial.Op == "dial" {
			return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		return nil, fmt.Errorf("cannot ask the supervisor: %w", err)
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	defer response.Body.Close()
	var failure Failure
	if json.NewDecoder(io.LimitReader(response.Body, maxBody)).Decode(&failure) != nil || failure.Error == "" {
		return nil, fmt.Errorf("the supervisor answers %s", response.Status)
	}
	if response.StatusCode == http.StatusForbidden {
		return nil, fmt.Errorf("%w: %s", ErrForbidden, failure.Error)
	}
	return nil, errors.New(failure.Error)
}
