package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Query says which images are searched: those whose clonable link contains the keyword.
type Query struct{ Keyword string }

func (q Query) wants(r Registry, full string) bool {
	return strings.Contains(r.Label+":"+strings.TrimSuffix(full, ":latest"), q.Keyword)
}

// Search finds the WalT images of the registry. found is told each, one at a time; its
// error ends the search. An image that cannot be described is left out, as one that is
// not of WalT.
func (s *Session) Search(ctx context.Context, q Query, found func(Image) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var turn sync.Mutex
	tell := func(i Image) error {
		turn.Lock()
		defer turn.Unlock()
		err := found(i)
		if err != nil {
			cancel(err) // most errors of the search are passed over, not this one
		}
		return err
	}
	search := s.searchCatalog
	if s.isHub() {
		search = s.searchHub
	}
	err := search(ctx, q, tell)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("cannot search images of registry %s: %w", s.Label, err)
	}
	return nil
}

// searchHub finds the users of WalT, who announce their images (see metadata).
func (s *Session) searchHub(ctx context.Context, q Query, found func(Image) error) error {
	users, err := s.hubUsers(ctx)
	if err != nil {
		return err
	}
	return each(ctx, users, func(user string) error {
		images, err := s.announced(ctx, user)
		if err != nil {
			if errors.Is(err, ErrNoImage) || errors.Is(err, errMetadata) {
				return nil
			}
			return err
		}
		for _, i := range images {
			if !q.wants(s.Registry, i.Name) {
				continue
			}
			if err := found(i); err != nil {
				return err
			}
		}
		return nil
	})
}

// searchCatalog looks at all images of a registry that lists them.
func (s *Session) searchCatalog(ctx context.Context, q Query, found func(Image) error) error {
	path, prefix := "/v2/_catalog", ""
	if s.Repository != "" {
		path, prefix = "/v2/"+s.Repository+"/_catalog", s.Repository+"/"
	}
	repositories, err := s.list(ctx, path, "repositories", "registry:catalog:*")
	if err != nil {
		return err
	}
	repositories = slices.DeleteFunc(repositories, func(r string) bool { return !isFullName(prefix + r + ":latest") })
	return each(ctx, repositories, func(repository string) error {
		repository = prefix + repository
		tags, err := s.list(ctx, "/v2/"+repository+"/tags/list", "tags", "repository:"+repository+":pull")
		if err != nil {
			return err
		}
		for _, tag := range tags {
			full := repository + ":" + tag
			if !isFullName(full) || !q.wants(s.Registry, full) {
				continue
			}
			i, err := s.Describe(ctx, full)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil || i.Labels == nil {
				continue
			}
			if err := found(i); err != nil {
				return err
			}
		}
		return nil
	})
}

// each does work for all items, several at once, until one fails.
func each(ctx context.Context, items []string, work func(item string) error) error {
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(maxParallel)
	for _, item := range items {
		if ctx.Err() != nil {
			break
		}
		all.Go(func() error { return work(item) })
	}
	return all.Wait()
}
