package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// ErrNoImage says that a registry has no such image, or none that this account may see.
var ErrNoImage = errors.New("the registry has no such image")

// Session is a registry that is spoken with, by one account.
type Session struct {
	Registry
	guard  *guard
	auth   authn.Authenticator
	server name.Registry
	puller *remote.Puller
}

// Open returns a session; nothing is asked yet.
func (c *Client) Open(r Registry, a Account) (*Session, error) {
	s := &Session{Registry: r, guard: c.transport(r), auth: authn.Anonymous}
	if a != (Account{}) {
		s.auth = authn.FromConfig(authn.AuthConfig{Username: a.Username, Password: a.Password})
	}
	var options []name.Option
	if r.scheme() == "http" {
		options = append(options, name.Insecure)
	}
	var err error
	if s.server, err = name.NewRegistry(r.host(), options...); err == nil {
		s.puller, err = remote.NewPuller(s.options()...)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot speak with registry %s: %w", r.Label, err)
	}
	return s, nil
}

func (s *Session) options() []remote.Option {
	return []remote.Option{
		remote.WithTransport(s.guard), remote.WithAuth(s.auth), remote.WithJobs(maxParallel), remote.WithUserAgent("walt-server"),
	}
}

// Close ends the connections.
func (s *Session) Close() { s.guard.CloseIdleConnections() }

// tag returns the reference of an image by its full name.
func (s *Session) tag(full string) (name.Tag, error) {
	if !isFullName(full) {
		return name.Tag{}, fmt.Errorf("cannot ask a registry for image %q: it is no name of one", full)
	}
	path, tag, _ := strings.Cut(full, ":")
	return s.server.Repo(strings.Split(path, "/")...).Tag(tag), nil
}

// image returns an image by its full name.
func (s *Session) image(ctx context.Context, full string) (v1.Image, error) {
	ref, err := s.tag(full)
	if err != nil {
		return nil, err
	}
	found, err := s.puller.Get(ctx, ref)
	if err != nil {
		return nil, s.absent(full, err)
	}
	if !found.MediaType.IsIndex() {
		return found.Image()
	}
	return ofIndex(found)
}

// ofIndex chooses among the images of one name for several processors: that of this
// server, as podman does, or else the first.
func ofIndex(found *remote.Descriptor) (v1.Image, error) {
	index, err := found.ImageIndex()
	if err != nil {
		return nil, err
	}
	list, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var first *v1.Descriptor
	for i := range list.Manifests {
		m := &list.Manifests[i]
		if !m.MediaType.IsImage() {
			continue
		}
		if first == nil {
			first = m
		}
		if m.Platform != nil && m.Platform.OS == "linux" && m.Platform.Architecture == "amd64" {
			first = m
			break
		}
	}
	if first == nil {
		return nil, errors.New("cannot use a list of images: it has none")
	}
	return index.Image(first.Digest)
}

// absent turns what a registry says of what it does not have into ErrNoImage. The Docker
// Hub says of an image that is not there that it is not allowed.
func (s *Session) absent(full string, err error) error {
	var answer *transport.Error
	if errors.As(err, &answer) {
		switch answer.StatusCode {
		case http.StatusNotFound:
			return ErrNoImage
		case http.StatusUnauthorized, http.StatusForbidden:
			if s.isHub() {
				return ErrNoImage
			}
		}
	}
	return fmt.Errorf("cannot get image %s from registry %s: %w", full, s.Label, err)
}

// Describe asks what an image is. The labels are nil if it is none of WalT.
func (s *Session) Describe(ctx context.Context, full string) (Image, error) {
	config, err := s.configuration(ctx, full)
	if err != nil {
		return Image{}, err
	}
	return Image{Name: full, Labels: waltLabels(config.Config.Labels), Created: config.Created.Time}, nil
}

func (s *Session) configuration(ctx context.Context, full string) (*v1.ConfigFile, error) {
	i, err := s.image(ctx, full)
	if err != nil {
		return nil, err
	}
	config, err := i.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("cannot read what image %s of registry %s is: %w", full, s.Label, err)
	}
	return config, nil
}

const (
	// maxPages and maxNames bound a list that a registry gives page by page.
	maxPages = 1000
	maxNames = 50000
)

// client makes requests in the name of the account, where the registry asks for it.
func (s *Session) client(ctx context.Context, scope string) (*http.Client, error) {
	t, err := transport.NewWithContext(ctx, s.server, s.auth, s.guard, []string{scope})
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: t, CheckRedirect: boundRedirects}, nil
}

// list reads a list of names of the registry API (distribution specification, listing of
// tags; Docker Registry v2, _catalog), which is member of a JSON object on each page.
func (s *Session) list(ctx context.Context, path, member, scope string) ([]string, error) {
	client, err := s.client(ctx, scope)
	if err != nil {
		return nil, err
	}
	var names []string
	address := s.base() + path + "?n=100"
	for range maxPages {
		var page map[string]json.RawMessage
		header, err := getJSON(ctx, client, address, &page)
		if err != nil {
			return nil, err
		}
		var more []string
		if err := json.Unmarshal(page[member], &more); err != nil {
			return nil, fmt.Errorf("cannot read the list %s of %s: %w", path, s.host(), err)
		}
		if names = append(names, more...); len(names) > maxNames {
			break
		}
		next, err := nextPage(address, header.Get("Link"))
		if err != nil || next == "" {
			return names, err
		}
		address = next
	}
	return nil, fmt.Errorf("cannot read the list %s of %s: it does not end", path, s.host())
}

// nextPage finds the address of the next page in a header Link (RFC 8288); "" if there is
// none. It must be at the same place.
func nextPage(address, link string) (string, error) {
	target, parameters, found := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
	if !found || !strings.Contains(strings.ReplaceAll(parameters, " ", ""), `rel="next"`) {
		return "", nil
	}
	from, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	next, err := from.Parse(target)
	if err != nil {
		return "", fmt.Errorf("cannot follow a list: %w", err)
	}
	if next.Host != from.Host {
		return "", fmt.Errorf("cannot follow a list from %s to %q", from.Host, next.Host)
	}
	next.Scheme, next.User = from.Scheme, nil
	return next.String(), nil
}

// getJSON reads an answer that must be of status 200.
func getJSON(ctx context.Context, client *http.Client, address string, to any) (http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read the answer of %s: %w", request.URL.Host, err)
	case answer.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("cannot get %s: status %d", address, answer.StatusCode)
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(to); err != nil {
		return nil, fmt.Errorf("cannot read the answer of %s: %w", request.URL.Host, err)
	}
	return answer.Header, nil
}
