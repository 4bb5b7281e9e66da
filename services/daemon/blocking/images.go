package blocking

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/waltos/waltos/services/daemon/blocking/registry"
	"github.com/waltos/waltos/services/daemon/connector"
)

// Limits of the work at registries. Users wait for it and can give it up.
const (
	// loginLimit is longer than the requests of a login may take together.
	loginLimit    = 90 * time.Second
	describeLimit = time.Minute
	searchLimit   = 10 * time.Minute
	announceLimit = 10 * time.Minute
	layerLimit    = 2 * time.Hour // as long as it does not stand still
)

type loginRequest struct {
	Registry registry.Registry
	Account  registry.Account
}

type searchRequest struct {
	loginRequest
	Query registry.Query
	To    uint64 // the receiver of each image
}

type imageRequest struct {
	loginRequest
	Name string
}

type layerRequest struct {
	imageRequest
	Layer registry.Layer
	To    uint64 // the receiver of each portion
}

type announceRequest struct {
	loginRequest
	User string
}

// session runs work with a registry that a request names.
func (s *Service) session(ctx context.Context, limit time.Duration, r loginRequest, work func(context.Context, *registry.Session) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	session, err := s.registries.Open(r.Registry, r.Account)
	if err != nil {
		return err
	}
	defer session.Close()
	return work(ctx, session)
}

func (s *Service) search(ctx context.Context, caller *connector.Peer, r searchRequest) error {
	return s.session(ctx, searchLimit, r.loginRequest, func(ctx context.Context, session *registry.Session) error {
		return session.Search(ctx, r.Query, func(i registry.Image) error { return tell(ctx, caller, r.To, i) })
	})
}

func (s *Service) describe(ctx context.Context, r imageRequest) (found registry.Image, err error) {
	err = s.session(ctx, describeLimit, r.loginRequest, func(ctx context.Context, session *registry.Session) error {
		found, err = session.Describe(ctx, r.Name)
		return err
	})
	if errors.Is(err, registry.ErrNoImage) {
		return registry.Image{}, nil
	}
	return found, err
}

func (s *Service) contents(ctx context.Context, r imageRequest) (c registry.Contents, err error) {
	err = s.session(ctx, describeLimit, r.loginRequest, func(ctx context.Context, session *registry.Session) error {
		c, err = session.Contents(ctx, r.Name)
		return err
	})
	return c, err
}

func (s *Service) layer(ctx context.Context, caller *connector.Peer, r layerRequest) error {
	return s.session(ctx, layerLimit, r.loginRequest, func(ctx context.Context, session *registry.Session) error {
		return session.ReadLayer(ctx, r.Name, r.Layer, func(portion []byte) error { return tell(ctx, caller, r.To, connector.Raw(portion)) })
	})
}

func (s *Service) announce(ctx context.Context, r announceRequest) error {
	return s.session(ctx, announceLimit, r.loginRequest, func(ctx context.Context, session *registry.Session) error {
		return session.Announce(ctx, r.User)
	})
}

// Login tries an account at a registry of images. The end of ctx ends the attempt too, as
// it does with all that follows.
func (c *Client) Login(ctx context.Context, r registry.Registry, a registry.Account) error {
	return c.call(ctx, loginLimit, "login", loginRequest{r, a}, nil)
}

// Search finds the WalT images of a registry; found is told each, one at a time.
func (c *Client) Search(ctx context.Context, r registry.Registry, a registry.Account, q registry.Query, found func(registry.Image) error) error {
	to, end := c.told.add(func(body []byte) error {
		var i registry.Image
		if err := connector.Decode(body, &i); err != nil {
			return err
		}
		return found(i)
	})
	defer end()
	return c.call(ctx, searchLimit, "search", searchRequest{loginRequest{r, a}, q, to}, nil)
}

// Describe asks what an image of a registry is; the zero Image if there is none.
func (c *Client) Describe(ctx context.Context, r registry.Registry, a registry.Account, name string) (registry.Image, error) {
	var found registry.Image
	err := c.call(ctx, describeLimit, "describe", imageRequest{loginRequest{r, a}, name}, &found)
	return found, err
}

// Contents asks what an image of a registry is made of.
func (c *Client) Contents(ctx context.Context, r registry.Registry, a registry.Account, name string) (registry.Contents, error) {
	var contents registry.Contents
	err := c.call(ctx, describeLimit, "contents", imageRequest{loginRequest{r, a}, name}, &contents)
	return contents, err
}

// ReadLayer writes a layer of an image, as an uncompressed tar archive. All of it is
// written if there is no error.
func (c *Client) ReadLayer(ctx context.Context, r registry.Registry, a registry.Account, name string, layer registry.Layer, to io.Writer) error {
	number, end := c.told.add(func(portion []byte) error {
		_, err := to.Write(portion)
		return err
	})
	defer end()
	return c.call(ctx, layerLimit, "layer", layerRequest{imageRequest{loginRequest{r, a}, name}, layer, number}, nil)
}

// Announce has a user of the Docker Hub announce his WalT images there.
func (c *Client) Announce(ctx context.Context, r registry.Registry, a registry.Account, user string) error {
	return c.call(ctx, announceLimit, "announce", announceRequest{loginRequest{r, a}, user}, nil)
}
