package blocking

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/waltos/waltos/services/daemon/blocking/registry"
	"github.com/waltos/waltos/services/daemon/blocking/registrytest"
	"github.com/waltos/waltos/services/daemon/blocking/snmp"
	"github.com/waltos/waltos/services/daemon/connector"
)

// serve runs a service, and returns a client of it. kill ends the service.
func serve(t *testing.T) (c *Client, kill func()) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "blocking.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- connector.Listen(ctx, ln, NewService(snmp.NewClient(), "").Handle) }()
	c = Dial(socket)
	t.Cleanup(func() { c.Close(); cancel(); <-ended })
	return c, cancel
}

func TestImagesOfARegistry(t *testing.T) {
	c, _ := serve(t)
	store := registrytest.Start(t, false, "", "")
	var want []string
	for n := range 30 {
		name := fmt.Sprintf("bob/tool%02d:latest", n)
		store.Push(t, name, registrytest.Image{Labels: map[string]string{registry.ModelsLabel: "rpi-b"}})
		want = append(want, name)
	}
	r := registry.Registry{Label: "own", API: "docker-registry-v2", Host: store.Host, Port: store.Port, Protocol: "http"}
	var found []string
	err := c.Search(t.Context(), r, registry.Account{}, registry.Query{}, func(i registry.Image) error {
		found = append(found, i.Name)
		return nil
	})
	slices.Sort(found)
	if err != nil || !slices.Equal(found, want) {
		t.Errorf("found %q, %v", found, err)
	}
	if i, err := c.Describe(t.Context(), r, registry.Account{}, want[0]); err != nil || i.Name != want[0] || i.Created.IsZero() {
		t.Errorf("%+v, %v", i, err)
	}
	if i, err := c.Describe(t.Context(), r, registry.Account{}, "bob/none:latest"); err != nil || i.Name != "" {
		t.Errorf("an image that is not there: %+v, %v", i, err)
	}
	over := errors.New("over")
	if err := c.Search(t.Context(), r, registry.Account{}, registry.Query{}, func(registry.Image) error { return over }); err == nil {
		t.Error("a search that nobody wants succeeds")
	}
	if len(c.told.all) != 0 {
		t.Errorf("%d receivers are left", len(c.told.all))
	}
}

// silent is a registry that never answers. It tells who asks, and who has gone away.
func silent(t *testing.T) (r registry.Registry, asked, gone chan struct{}) {
	asked, gone = make(chan struct{}, 100), make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		asked <- struct{}{}
		<-request.Context().Done()
		gone <- struct{}{}
	}))
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, _ := strconv.Atoi(u.Port())
	return registry.Registry{Label: "own", API: "docker-registry-v2", Host: u.Hostname(), Port: port, Protocol: "http"}, asked, gone
}

// TestWorkEndsWithItsCaller: nothing goes on for one who has given up.
func TestWorkEndsWithItsCaller(t *testing.T) {
	c, _ := serve(t)
	r, asked, gone := silent(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if err := c.Search(ctx, r, registry.Account{}, registry.Query{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-gone
}

// TestCrashIsAnErrorOfTheCaller: whoever waits for a process that dies is told.
func TestCrashIsAnErrorOfTheCaller(t *testing.T) {
	c, kill := serve(t)
	r, asked, _ := silent(t)
	go func() { <-asked; kill() }()
	if err := c.Search(t.Context(), r, registry.Account{}, registry.Query{}, nil); !errors.Is(err, connector.ErrPeerLost) {
		t.Errorf("got %v", err)
	}
}
