package core

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/daemon/blocking/registry"
	"github.com/waltos/waltos/services/wire/credentials"
)

// Registries speaks with registries of images: *blocking.Client. The end of ctx ends the
// work, for all of them.
type Registries interface {
	// Login tries an account.
	Login(ctx context.Context, r registry.Registry, a registry.Account) error
	// Search tells found each WalT image, one at a time.
	Search(ctx context.Context, r registry.Registry, a registry.Account, q registry.Query, found func(registry.Image) error) error
	// Describe returns the zero Image if there is none of that name.
	Describe(ctx context.Context, r registry.Registry, a registry.Account, name string) (registry.Image, error)
	// Contents and ReadLayer give an image, layer by layer: uncompressed archives.
	Contents(ctx context.Context, r registry.Registry, a registry.Account, name string) (registry.Contents, error)
	ReadLayer(ctx context.Context, r registry.Registry, a registry.Account, name string, layer registry.Layer, to io.Writer) error
	// Announce writes which WalT images a user of the Docker Hub has there.
	Announce(ctx context.Context, r registry.Registry, a registry.Account, user string) error
}

// NoRegistries is Registries that cannot be reached.
type NoRegistries struct{}

var errNoRegistries = errors.New("this server does not speak with registries")

// Login is that of Registries.
func (NoRegistries) Login(context.Context, registry.Registry, registry.Account) error {
	return errNoRegistries
}

// Search is that of Registries.
func (NoRegistries) Search(context.Context, registry.Registry, registry.Account, registry.Query, func(registry.Image) error) error {
	return errNoRegistries
}

// Describe is that of Registries.
func (NoRegistries) Describe(context.Context, registry.Registry, registry.Account, string) (registry.Image, error) {
	return registry.Image{}, errNoRegistries
}

// Contents is that of Registries.
func (NoRegistries) Contents(context.Context, registry.Registry, registry.Account, string) (registry.Contents, error) {
	return registry.Contents{}, errNoRegistries
}

// ReadLayer is that of Registries.
func (NoRegistries) ReadLayer(context.Context, registry.Registry, registry.Account, string, registry.Layer, io.Writer) error {
	return errNoRegistries
}

// Announce is that of Registries.
func (NoRegistries) Announce(context.Context, registry.Registry, registry.Account, string) error {
	return errNoRegistries
}

// hubLabel is the label of the Docker Hub, and of nothing else.
const hubLabel = "hub"

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
	c.loginFailed(label, err)
	return false, nil
}

func (c *call) login(label string) error {
	r := c.registryNamed(label)
	switch {
	case r == nil:
		return errors.New("there is no registry with this label")
	case !needsAccount(r):
		return nil
	}
	account, err := c.account(label)
	if err != nil {
		return err
	}
	return c.Registries.Login(c, registry.Of(r), account)
}

// loginFailed is R2.
func (c *call) loginFailed(label string, err error) {
	c.Print("login at registry %s: %v", printable(label), err)
	c.out(fmt.Sprintf("Sorry, %s registry login FAILED.\n", label))
}

func (c *call) registryNamed(label string) *hcl.Registry {
	for _, r := range c.Site.Registries {
		if r.Label == label {
			return r
		}
	}
	return nil
}

// needsAccount tells whether a registry has accounts.
func needsAccount(r *hcl.Registry) bool { return r.Label == hubLabel || r.Auth != "none" }

// errNoAccount says that the client has no user name or no password for a registry.
var errNoAccount = errors.New("the client has no account there")

// account asks the client for its account at a registry (client-api §4.5). It is kept no
// longer than the call.
func (c *call) account(label string) (registry.Account, error) {
	exchange := credentials.New()
	answer, err := c.client.Callback(c, "get_registry_encrypted_credentials", label, exchange.Public)
	switch {
	case err != nil:
		return registry.Account{}, err
	case answer == nil:
		return registry.Account{}, errNoAccount
	}
	username, password, err := exchange.Open(answer)
	return registry.Account{Username: username, Password: password}, err
}

// needAccount is account for work that cannot do without: a client that has none prompts
// its user, once (client-api §2.12). 10.0 starts the work again after that; here no work
// begins before all accounts are there.
func (c *call) needAccount(label string) (registry.Account, error) {
	account, err := c.account(label)
	if !errors.Is(err, errNoAccount) {
		return account, err
	}
	if err := c.promptAccount(label); err != nil {
		return account, err
	}
	return c.account(label)
}

// accountsAt asks the client for its accounts at some registries, by label. It is not done
// if there is none for one of them.
func (c *call) accountsAt(wanted func(*hcl.Registry) bool) (accounts map[string]registry.Account, done bool, err error) {
	accounts = map[string]registry.Account{}
	for _, r := range c.Site.Registries {
		if !wanted(r) {
			continue
		}
		account, err := c.needAccount(r.Label)
		if c.Err() != nil {
			return nil, false, c.Err()
		}
		if err != nil {
			c.loginFailed(r.Label, err)
			return nil, false, nil
		}
		accounts[r.Label] = account
	}
	return accounts, true, nil
}

// promptAccount has the client prompt its user for an account at a registry, unless it
// has a user name there. Within the prompt the client calls registry_login, until that
// succeeds.
func (c *call) promptAccount(label string) error {
	_, err := c.client.Callback(c, "prompt_missing_registry_credentials", label)
	return err
}
