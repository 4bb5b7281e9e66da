package core

import (
	"context"
	"errors"
	"net/netip"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/daemon/trackexec"
)

// Client is the session that a call came by: *session.Session.
type Client interface {
	Callback(ctx context.Context, path string, args ...any) (any, error)
	Attach(key, value any)
	Attached(key any) any
}

// call is one call of a method while it is served.
type call struct {
	trackexec.Scope
	*Daemon
	client Client
	api    string
	peer   netip.Addr
	method *method
	values []any // of the parameters
	quiet  bool  // print on no output of the client but that of errors
}

// errSilent ends a call without a word: its client has left, or has no user name.
var errSilent = errors.New("the client has left")

func (c *call) value(name string) any {
	for i := range c.method.params {
		if c.method.params[i].name == name {
			return c.values[i]
		}
	}
	panic("internal error: no parameter is named " + name)
}

func (c *call) text(name string) string    { s, _ := c.value(name).(string); return s }
func (c *call) flag(name string) bool      { b, _ := c.value(name).(bool); return b }
func (c *call) texts(name string) []string { t, _ := c.value(name).([]string); return t }

// userKey keeps the name of the user with his session.
type userKey struct{}

// user returns the name of the user, which is asked once in a session. The error is
// errSilent if there is none.
func (c *call) user() (string, error) {
	if name, ok := c.client.Attached(userKey{}).(string); ok {
		return name, nil
	}
	answer, err := c.client.Callback(c, "get_username")
	name := userName(answer)
	if err != nil || name == "" {
		return "", errSilent
	}
	c.client.Attach(userKey{}, name)
	return name, nil
}

// users reach the client only in the API of users.
func (c *call) talks() bool { return c.api == "CSAPI" }

// out prints on the output of the client. A client that has left hears nothing, and its
// call goes on: that is no error (client-api §1.6).
func (c *call) out(s string) {
	if !c.quiet {
		c.say("stdout.write", s)
	}
}

// err prints on the error output of the client.
func (c *call) err(s string) { c.say("stderr.write", s) }

// busy tells what the client is waiting for; "" is the default.
func (c *call) busy(label string) {
	if c.quiet {
		return
	}
	if label == "" {
		c.say("set_default_busy_label")
		return
	}
	c.say("set_busy_label", label)
}

func (c *call) say(path string, args ...any) {
	if c.talks() {
		_, _ = c.client.Callback(c, path, args...)
	}
}

// fail ends a call that cannot be served: a refusal is printed and the failure value
// returned, silence is the failure value alone, and anything else is an exception.
func (c *call) fail(err error, value any) (any, error) {
	var refusal *text.Refusal
	switch {
	case errors.As(err, &refusal):
		c.err(refusal.Text)
		return value, nil
	case errors.Is(err, errSilent):
		return value, nil
	}
	return nil, err
}

// devices resolves the set given as a parameter.
func (c *call) devices(name string) ([]*registry.Device, error) {
	return c.registry.View().Resolve(c.text(name), c.user)
}

// nodes resolves the set of nodes given as a parameter.
func (c *call) nodes(name string) ([]*registry.Device, error) {
	return c.registry.View().ResolveNodes(c.text(name), c.user)
}
