package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// The Docker Hub cannot be asked for images with a label. Hence each of its users who has
// WalT images also has an image that announces them: an empty one whose label metadata is
// JSON in base64 (server-state §3.9).
const (
	metadataRepository = "walt_metadata"
	metadataLabel      = "metadata"
)

// metadata is what a user announces.
type metadata struct {
	Images map[string]announcement `json:"walt.user.images"` // by full name
}

type announcement struct {
	Labels map[string]string `json:"labels"`
}

// errMetadata says that a user announces what cannot be read.
var errMetadata = errors.New("cannot read what the user announces")

// decodeMetadata reads the label of an image that announces others. Names and labels that
// cannot be those of WalT images are left out.
func decodeMetadata(label string) ([]Image, error) {
	text, err := base64.StdEncoding.DecodeString(label)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMetadata, err)
	}
	var m metadata
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", errMetadata, err)
	}
	var images []Image
	for full, a := range m.Images {
		if labels := waltLabels(a.Labels); labels != nil && isFullName(full) {
			images = append(images, Image{Name: full, Labels: labels})
		}
	}
	slices.SortFunc(images, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	return images, nil
}

func encodeMetadata(images map[string]map[string]string) (string, error) {
	m := metadata{Images: map[string]announcement{}}
	for full, labels := range images {
		m.Images[full] = announcement{labels}
	}
	text, err := json.Marshal(m)
	return base64.StdEncoding.EncodeToString(text), err
}

// announced are the images that a user of the Docker Hub announces.
func (s *Session) announced(ctx context.Context, user string) ([]Image, error) {
	config, err := s.configuration(ctx, user+"/"+metadataRepository+":latest")
	if err != nil {
		return nil, err
	}
	return decodeMetadata(config.Config.Labels[metadataLabel])
}

// hubUsers are the users of the Docker Hub who announce images.
func (s *Session) hubUsers(ctx context.Context) ([]string, error) {
	client := &http.Client{Transport: s.guard, CheckRedirect: boundRedirects}
	var users []string
	for n := 1; n <= maxPages; n++ {
		var page struct {
			Pages   int `json:"num_pages"`
			Results []struct {
				Name string `json:"name"`
			} `json:"results"`
		}
		address := fmt.Sprintf("%s/v1/search?q=%s&n=100&page=%d", hubIndex, metadataRepository, n)
		if _, err := getJSON(ctx, client, address, &page); err != nil {
			return nil, err
		}
		for _, r := range page.Results {
			user, repository, _ := strings.Cut(r.Name, "/")
			if repository == metadataRepository && isFullName(r.Name+":latest") && !slices.Contains(users, user) {
				users = append(users, user)
			}
		}
		if n >= page.Pages || len(page.Results) == 0 {
			return users, nil
		}
	}
	return nil, errors.New("cannot read the list of users of the hub: it does not end")
}

// hubNames reads a list of the pages of the Docker Hub.
func (s *Session) hubNames(ctx context.Context, path string) ([]string, error) {
	client := &http.Client{Transport: s.guard, CheckRedirect: boundRedirects}
	var names []string
	address := hubPages + path + "?page_size=100"
	for range maxPages {
		var page struct {
			Next    string `json:"next"`
			Results []struct {
				Name string `json:"name"`
			} `json:"results"`
		}
		if _, err := getJSON(ctx, client, address, &page); err != nil {
			return nil, err
		}
		for _, r := range page.Results {
			names = append(names, r.Name)
		}
		if page.Next == "" {
			return names, nil
		}
		if !strings.HasPrefix(page.Next, hubPages+"/") {
			return nil, fmt.Errorf("cannot follow a list of the hub to %.100q", page.Next)
		}
		address = page.Next
	}
	return nil, errors.New("cannot read a list of the hub: it does not end")
}

// Announce has a user of the Docker Hub announce all WalT images that he has there. An
// image that cannot be looked at is an error: it would not be found any more.
func (s *Session) Announce(ctx context.Context, user string) error {
	images, err := s.collect(ctx, user)
	if err == nil {
		err = s.announce(ctx, user, images)
	}
	if err != nil {
		return fmt.Errorf("cannot announce the images of %s: %w", user, err)
	}
	return nil
}

// collect returns the labels of all WalT images of a user.
func (s *Session) collect(ctx context.Context, user string) (map[string]map[string]string, error) {
	if !isFullName(user + "/x:latest") {
		return nil, fmt.Errorf("%q is no user of the hub", user)
	}
	repositories, err := s.hubNames(ctx, "/v2/repositories/"+url.PathEscape(user)+"/")
	if err != nil {
		return nil, err
	}
	repositories = slices.DeleteFunc(repositories, func(r string) bool {
		return r == metadataRepository || !isFullName(user+"/"+r+":latest")
	})
	var mu sync.Mutex
	images := map[string]map[string]string{}
	err = each(ctx, repositories, func(repository string) error {
		repository = user + "/" + repository
		tags, err := s.hubNames(ctx, "/v2/repositories/"+repository+"/tags")
		if err != nil {
			return err
		}
		for _, tag := range tags {
			full := repository + ":" + tag
			if !isFullName(full) {
				continue
			}
			config, err := s.configuration(ctx, full)
			if errors.Is(err, ErrNoImage) {
				continue
			}
			if err != nil {
				return err
			}
			if waltLabels(config.Config.Labels) != nil {
				mu.Lock()
				images[full] = config.Config.Labels
				mu.Unlock()
			}
		}
		return nil
	})
	return images, err
}

// announce writes the image that announces others. It has an empty layer, because some
// programs refuse an image without any.
func (s *Session) announce(ctx context.Context, user string, images map[string]map[string]string) error {
	label, err := encodeMetadata(images)
	if err != nil {
		return err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(make([]byte, 1024))), nil // the end of a tar archive
	})
	if err != nil {
		return err
	}
	image, err := mutate.Config(empty.Image, v1.Config{Labels: map[string]string{metadataLabel: label}})
	if err == nil {
		image, err = mutate.CreatedAt(image, v1.Time{Time: time.Now().UTC()})
	}
	if err == nil {
		image, err = mutate.AppendLayers(image, layer)
	}
	if err != nil {
		return err
	}
	ref, err := s.tag(user + "/" + metadataRepository + ":latest")
	if err != nil {
		return err
	}
	return remote.Write(ref, image, append(s.options(), remote.WithContext(ctx))...)
}
