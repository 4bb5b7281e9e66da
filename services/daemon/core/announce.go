package core

import (
	remote "github.com/waltos/waltos/services/daemon/blocking/registry"
	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
)

// updateHubMetadata has the user, or waltplatform, announce his images of the Docker Hub
// to those who search (server-state §3.9).
func (c *call) updateHubMetadata() (any, error) {
	hub := c.registryNamed(hubLabel)
	if hub == nil {
		return c.fail(text.RegistryFailure(hubLabel), false)
	}
	user := registry.FreeOwner
	if !c.flag("waltplatform_user") {
		if err := c.promptAccount(hubLabel); err != nil {
			return nil, err
		}
		answer, err := c.client.Callback(c, "get_registry_username", hubLabel)
		if err != nil {
			return nil, err
		}
		if user = userName(answer); user == "" {
			return nil, nil // the client has left
		}
	}
	account, err := c.needAccount(hubLabel)
	if err == nil {
		err = c.Registries.Login(c, remote.Of(hub), account)
	}
	switch {
	case c.Err() != nil:
		return nil, c.Err()
	case err != nil:
		c.loginFailed(hubLabel, err)
		return false, nil
	}
	if err := c.Registries.Announce(c, remote.Of(hub), account, user); err != nil {
		if c.Err() != nil {
			return nil, c.Err()
		}
		c.Print("%v", err)
		return c.fail(text.RegistryFailure(hubLabel), false)
	}
	return true, nil
}
