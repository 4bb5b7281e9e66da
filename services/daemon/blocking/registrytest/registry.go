// Package registrytest runs registries of container images for tests: registries of
// protocol v2, which are those of go-containerregistry with accounts before them, and a
// Docker Hub.
package registrytest

import (
	"context"
	"crypto/rand"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Image is an image for a registry.
type Image struct {
	Labels  map[string]string
	Created time.Time
	Layers  []v1.Layer
}

// Build makes the image.
func (i Image) Build() (v1.Image, error) {
	if i.Created.IsZero() {
		i.Created = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	// Made for a reason of its own: two images of the same labels differ.
	image, err := mutate.Config(empty.Image, v1.Config{Labels: i.Labels, Env: []string{"ID=" + rand.Text()}})
	if err == nil {
		image, err = mutate.AppendLayers(image, i.Layers...)
	}
	if err == nil {
		image, err = mutate.CreatedAt(image, v1.Time{Time: i.Created})
	}
	return image, err
}

// store is the images of a registry, without any account.
type store struct{ http.Handler }

func newStore() store { return store{registry.New(registry.Logger(log.New(io.Discard, "", 0)))} }

// Push stores an image under its full name, as "alice/tool:latest".
func (s store) Push(t testing.TB, full string, i Image) {
	t.Helper()
	image, err := i.Build()
	if err == nil {
		err = remote.Write(reference(t, full), image, remote.WithTransport(s), remote.WithContext(context.Background()))
	}
	if err != nil {
		t.Fatalf("cannot store image %s: %v", full, err)
	}
}

// Labels returns those of an image; nil if there is none.
func (s store) Labels(t testing.TB, full string) map[string]string {
	t.Helper()
	image, err := remote.Image(reference(t, full), remote.WithTransport(s))
	if err != nil {
		return nil
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return config.Config.Labels
}

func reference(t testing.TB, full string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference("store.example/" + full)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// RoundTrip serves a request without network.
func (s store) RoundTrip(request *http.Request) (*http.Response, error) {
	recorder := httptest.NewRecorder()
	served := request.Clone(request.Context())
	if served.Body == nil {
		served.Body = http.NoBody
	}
	s.ServeHTTP(recorder, served)
	answer := recorder.Result()
	answer.Request = request
	return answer, nil
}

// Registry is a registry of protocol v2.
type Registry struct {
	store
	Host string
	Port int
}

// Start runs a registry at 127.0.0.1 until the end of the test. With a user name it asks
// for that account. Its certificate is that of nobody.
func Start(t testing.TB, tls bool, username, password string) *Registry {
	t.Helper()
	r := &Registry{store: newStore()}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		name, word, _ := request.BasicAuth()
		if username != "" && (name != username || word != password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="images"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.ServeHTTP(w, request)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if tls {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	r.Port, _ = strconv.Atoi(port)
	return r
}

// repositories lists those of a user, sorted: a list that is read by pages has one order.
func (s store) repositories(user string) (names []string) {
	list, _ := remote.Catalog(context.Background(), mustRegistry(), remote.WithTransport(s))
	for _, full := range list {
		if owner, repository, _ := strings.Cut(full, "/"); owner == user {
			names = append(names, repository)
		}
	}
	slices.Sort(names)
	return names
}

func (s store) tags(repository string) []string {
	list, _ := remote.List(mustRegistry().Repo(repository), remote.WithTransport(s))
	slices.Sort(list)
	return list
}

func mustRegistry() name.Registry {
	r, err := name.NewRegistry("store.example")
	if err != nil {
		panic(err)
	}
	return r
}
