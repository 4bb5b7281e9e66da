package vnode

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/waltos/waltos/services/wire/client"
	"github.com/waltos/waltos/services/wire/pickle"
)

// apiPort is that of the server's API.
const apiPort = "12345"

// registerLimit is how long the server may take: it may have to fetch an image.
const registerLimit = time.Minute

// register tells the server of the node, as nobody else does, and asks it for what the
// command line does not tell.
func (n *node) register(ctx context.Context, who *identity, s *settings) error {
	ctx, cancel := context.WithTimeout(ctx, registerLimit)
	defer cancel()
	session, err := client.Dial(ctx, net.JoinHostPort(who.Server, apiPort), client.Options{API: "VSAPI"})
	if err != nil {
		return fmt.Errorf("cannot register at the server: %w", err)
	}
	defer session.Close()
	if _, err := session.Call(ctx, "register_device", "walt.node."+who.Model, "", who.IP, who.MAC); err != nil {
		return fmt.Errorf("cannot register at the server: %w", err)
	}
	if n.known.netmask && n.known.gateway {
		return nil
	}
	answer, err := session.Call(ctx, "get_device_info", who.MAC)
	if err != nil {
		return fmt.Errorf("cannot ask the server about the node: %w", err)
	}
	info, ok := answer.(*pickle.Dict)
	if !ok {
		return fmt.Errorf("the server does not know the node of MAC %s yet", who.MAC)
	}
	for _, field := range []struct {
		key   string
		to    *string
		known bool
	}{
		{"netmask", &who.Netmask, n.known.netmask}, {"gateway", &s.gateway, n.known.gateway},
	} {
		value, _ := info.Get(field.key)
		text, ok := value.(string)
		if !ok {
			return fmt.Errorf("the server does not tell the %s of the node of MAC %s yet", field.key, who.MAC)
		}
		if !field.known {
			*field.to = text
		}
	}
	return nil
}
