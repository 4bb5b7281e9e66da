package core

import (
	"context"
	"errors"
	"fmt"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/daemon/blocking/registry"
	"github.com/waltos/waltos/services/wire/credentials"
)

// Registries speaks with registries of images: *blocking.Client.
type Registries interface {
	Login(ctx context.Context, r registry.Registry, username, password string) error
}

// registryLogin tells whether the account that the client has at a registry is accepted
// there (client-api §2.7.4). An unknown registry is one that does not accept it, where
// 10.0 fails (CN-38). It never has the client prompt for the account: the client calls it
// to try what its user has typed, maybe within that prompt.
func (c *call) registryLogin() (any, error) {
	label := c.text("reg_name")
	err := c.login(label)
	if err == nil {
		return true, nil
	}
	c.Print("login at registry %s: %v", printable(label), err)
	c.out(fmt.Sprintf("Sorry, %s registry login FAILED.\n", label))
	return false, nil
}

func (c *call) login(label string) error {
	r := c.registryNamed(label)
	switch {
	case r == nil:
		return errors.New("there is no registry with this label")
	case r.API != "docker-hub" && r.Auth == "none":
		return nil
	case c.Registries == nil:
		return errors.New("this server does not speak with registries")
	}
	username, password, err := c.account(label)
	if err != nil {
		return err
	}
	return c.Registries.Login(c, registry.Of(r), username, password)
}

func (c *call) registryNamed(label string) *hcl.Registry {
	for _, r := range c.Site.Registries {
		if r.Label == label {
			return r
		}
	}
	return nil
}

// account asks the client for its account at a registry (client-api §4.5). It is kept no
// longer than the call.
func (c *call) account(label string) (username, password string, err error) {
	exchange := credentials.New()
	answer, err := c.client.Callback(c, "get_registry_encrypted_credentials", label, exchange.Public)
	switch {
	case err != nil:
		return "", "", err
	case answer == nil:
		return "", "", errors.New("the client has no account there")
	}
	return exchange.Open(answer)
}
