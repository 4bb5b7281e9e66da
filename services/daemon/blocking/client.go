package blocking

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/waltos/waltos/services/daemon/blocking/snmp"
	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/daemon/trackexec"
	"github.com/waltos/waltos/services/metrics"
)

// Socket is where server-blocking listens on an appliance.
const Socket = "/run/walt/daemon/blocking.sock"

const (
	// reachLimit is how long a call waits for a server-blocking that is not there.
	reachLimit = 10 * time.Second
	// exploreLimit and powerLimit bound the work for one switch. Callers wait a little
	// longer, in case server-blocking hangs.
	exploreLimit = 90 * time.Second
	powerLimit   = 60 * time.Second
	grace        = 5 * time.Second
)

// Switch is a switch, and how it is talked to.
type Switch struct {
	MAC       string // main one, as in table devices
	IP        string
	Version   int // of SNMP: 1, or 2 for v2c
	Community string
}

// Exploration is what a switch says of what is around it.
type Exploration struct {
	// Why neighbours, or stations, are not known; "" if they are.
	NeighborsError, StationsError string

	Neighbors []snmp.Neighbor
	Stations  []snmp.Station
	Addresses []string       // all MACs of the switch itself
	Labels    map[string]int // ports by what they call themselves in LLDP
}

// powerRequest asks to switch ports of one switch, given by their numbers in LLDP.
type powerRequest struct {
	Switch Switch
	Ports  []int
	On     bool
}

// Client calls server-blocking. A call waits for the process for a bounded time only, and
// fails at once if it dies meanwhile. It is safe for concurrent use.
type Client struct {
	link *connector.Client
	told receivers
}

// Dial returns a client of the server-blocking that listens on a unix socket, which need
// not be there yet.
func Dial(socket string) *Client {
	c := &Client{}
	c.link = connector.Dial(socket, c.told.handle)
	return c
}

// Measures asks server-blocking for what it counts.
func (c *Client) Measures(ctx context.Context) ([]metrics.Family, error) {
	return metrics.Ask(ctx, c.link)
}

// OnConnect has f called at each new connection to server-blocking.
func (c *Client) OnConnect(f func()) { c.link.OnConnect(func(*connector.Peer) { f() }) }

// Close ends the connection; calls in flight fail.
func (c *Client) Close() { c.link.Close() }

// Explore asks a switch what is around it. The end of ctx ends the exploration too. That
// a switch does not answer is no error of Explore: see Exploration.
func (c *Client) Explore(ctx context.Context, sw Switch) (Exploration, error) {
	var found Exploration
	err := c.call(ctx, exploreLimit, "explore", sw, &found)
	return found, err
}

// Labels asks a switch what its ports call themselves in LLDP, with their numbers.
func (c *Client) Labels(ctx context.Context, sw Switch) (map[string]int, error) {
	var labels map[string]int
	err := c.call(ctx, exploreLimit, "labels", sw, &labels)
	return labels, err
}

// Power switches ports of a switch on or off. The errors are those of the ports, in their
// order: nil if it is done, else words for users. The end of ctx ends only the waiting.
func (c *Client) Power(ctx context.Context, sw Switch, ports []int, on bool) ([]error, error) {
	var texts []string
	if err := c.call(ctx, powerLimit, "power", powerRequest{sw, ports, on}, &texts); err != nil {
		return nil, err
	}
	if len(texts) != len(ports) {
		return nil, fmt.Errorf("cannot switch the power of ports: %d answers for %d ports", len(texts), len(ports))
	}
	errs := make([]error, len(texts))
	for i, text := range texts {
		if text != "" {
			errs[i] = errors.New(text)
		}
	}
	return errs, nil
}

func (c *Client) call(ctx context.Context, limit time.Duration, method string, arg, reply any) error {
	reach, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	peer, err := c.link.Peer(reach)
	if err != nil {
		return err
	}
	ctx, cancel = context.WithTimeout(ctx, limit+grace)
	defer cancel()
	ctx, span := trackexec.Begin(ctx, trackexec.Task, method)
	span.Note("server-blocking", -1)
	err = peer.Call(ctx, method, arg, reply)
	span.End(err)
	return err
}
