package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/services/daemon/blocking/registrytest"
)

func labels(models string) registrytest.Image {
	return registrytest.Image{Labels: map[string]string{ModelsLabel: models, "maintainer": "me"}}
}

func open(t *testing.T, c *Client, r Registry, a Account) *Session {
	t.Helper()
	s, err := c.Open(r, a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// search returns what is found, as "name models", sorted.
func search(t *testing.T, s *Session, keyword string) ([]string, error) {
	t.Helper()
	var found []string
	err := s.Search(t.Context(), Query{keyword}, func(i Image) error {
		found = append(found, i.Name+" "+i.Labels[ModelsLabel])
		return nil
	})
	slices.Sort(found)
	return found, err
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// of returns a registry of a test.
func of(r *registrytest.Registry, protocol string) Registry {
	return Registry{Label: "own", API: "docker-registry-v2", Host: r.Host, Port: r.Port, Protocol: protocol}
}

func TestSearchCatalog(t *testing.T) {
	for protocol, account := range map[string]Account{"http": {}, "https-no-verify": alice} {
		t.Run(protocol, func(t *testing.T) {
			r := registrytest.Start(t, protocol != "http", account.Username, account.Password)
			r.Push(t, "bob/tool:latest", labels("pc-x86-64,rpi-b"))
			r.Push(t, "bob/tool:v2", labels("rpi-b"))
			r.Push(t, "bob/other:latest", registrytest.Image{})
			r.Push(t, "deep/er/image:latest", labels("rpi-b"))
			s := open(t, &Client{}, of(r, protocol), account)
			found, err := search(t, s, "")
			if err != nil {
				t.Fatal(err)
			}
			expect(t, found, "bob/tool:latest pc-x86-64,rpi-b", "bob/tool:v2 rpi-b")
			for keyword, count := range map[string]int{"own:bob/t": 2, "tool:": 1, "latest": 0, "wn:": 2} {
				if found, err := search(t, s, keyword); err != nil || len(found) != count {
					t.Errorf("%q finds %q, %v", keyword, found, err)
				}
			}
			i, err := s.Describe(t.Context(), "bob/tool:v2")
			if err != nil || i.Labels[ModelsLabel] != "rpi-b" || i.Labels["maintainer"] != "" || i.Created.Year() != 2026 {
				t.Errorf("%+v, %v", i, err)
			}
			if _, err := s.Describe(t.Context(), "bob/none:latest"); !errors.Is(err, ErrNoImage) {
				t.Errorf("no image: %v", err)
			}
			if _, err := s.Describe(t.Context(), "bob/../../x:latest"); err == nil {
				t.Error("a name that is none is accepted")
			}
			if account != (Account{}) {
				if _, err := search(t, open(t, &Client{}, of(r, protocol), Account{"alice", "wrong"}), ""); err == nil {
					t.Error("a wrong password finds images")
				}
			}
		})
	}
}

func TestSearchArtifactory(t *testing.T) {
	store := registrytest.Start(t, false, "", "")
	store.Push(t, "team/tool:latest", labels("rpi-b"))
	target := &url.URL{Scheme: "http", Host: fmt.Sprintf("%s:%d", store.Host, store.Port)}
	r := serve(t, "http", map[string]http.HandlerFunc{
		"/v2/team/_catalog": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"repositories": ["tool", "x/y", "../.."]}`)
		},
		"/": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, target.JoinPath(r.URL.Path).String(), http.StatusTemporaryRedirect)
		},
	})
	r.Label, r.API, r.Repository = "own", "jfrog-artifactory", "team"
	found, err := search(t, open(t, &Client{}, r, Account{}), "")
	if err != nil {
		t.Fatal(err)
	}
	expect(t, found, "team/tool:latest rpi-b")
}

func TestPages(t *testing.T) {
	r := serve(t, "http", map[string]http.HandlerFunc{
		"/v2/": func(http.ResponseWriter, *http.Request) {},
		"/v2/_catalog": func(w http.ResponseWriter, r *http.Request) {
			n, _ := strconv.Atoi(r.URL.Query().Get("last"))
			if n < 5 {
				w.Header().Set("Link", fmt.Sprintf(`</v2/_catalog?last=%d&n=100>; rel="next"`, n+1))
			}
			fmt.Fprintf(w, `{"repositories": ["a/b%d"]}`, n)
		},
	})
	names, err := open(t, &Client{}, r, Account{}).list(t.Context(), "/v2/_catalog", "repositories", "")
	if err != nil {
		t.Fatal(err)
	}
	expect(t, names, "a/b0", "a/b1", "a/b2", "a/b3", "a/b4", "a/b5")
}

func startHub(t *testing.T) (*registrytest.Hub, *Client) {
	h := registrytest.StartHub(t, map[string]string{"alice": "secret", "bob": "word"})
	return h, &Client{Proxy: http.ProxyURL(h.Proxy), Roots: h.Roots}
}

var hub = Registry{Label: "hub", API: "docker-hub"}

func TestHub(t *testing.T) {
	h, c := startHub(t)
	if err := c.Login(t.Context(), hub, alice); err != nil {
		t.Error(err)
	}
	if err := c.Login(t.Context(), hub, Account{"alice", "wrong"}); !errors.Is(err, errRefused) {
		t.Errorf("a wrong password: %v", err)
	}
	h.Push(t, "alice/tool:latest", labels("pc-x86-64"))
	h.Push(t, "alice/tool:v2", labels("rpi-b"))
	h.Push(t, "alice/site:latest", registrytest.Image{})
	h.Push(t, "waltplatform/rpi-b-default:latest", registrytest.Image{Labels: map[string]string{ModelsLabel: "rpi-b", MinVersionLabel: "11"}})
	s := open(t, c, hub, alice)
	if found, err := search(t, s, ""); err != nil || len(found) != 0 {
		t.Errorf("before anything is announced: %q, %v", found, err)
	}
	for _, user := range []string{"alice", "waltplatform"} {
		if err := s.Announce(t.Context(), user); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Announce(t.Context(), "alice"); err != nil { // again
		t.Fatal(err)
	}
	for _, account := range []Account{{}, alice} {
		found, err := search(t, open(t, c, hub, account), "")
		if err != nil {
			t.Fatal(err)
		}
		expect(t, found, "alice/tool:latest pc-x86-64", "alice/tool:v2 rpi-b", "waltplatform/rpi-b-default:latest rpi-b")
	}
	found, err := search(t, s, "tool:v")
	if err != nil {
		t.Fatal(err)
	}
	expect(t, found, "alice/tool:v2 rpi-b")
	if err := s.Announce(t.Context(), "bob"); err == nil {
		t.Error("alice announces for bob")
	}
	if err := open(t, c, hub, Account{}).Announce(t.Context(), "alice"); err == nil {
		t.Error("nobody announces for alice")
	}
	if _, err := s.Describe(t.Context(), "bob/none:latest"); !errors.Is(err, ErrNoImage) {
		t.Errorf("no image: %v", err)
	}
	// What 10.0 reads.
	text, err := base64.StdEncoding.DecodeString(h.Labels(t, "alice/walt_metadata:latest")["metadata"])
	const want = `{"walt.user.images":{"alice/tool:latest":{"labels":{"maintainer":"me","walt.node.models":"pc-x86-64"}},"alice/tool:v2":{"labels":{"maintainer":"me","walt.node.models":"rpi-b"}}}}`
	if err != nil || string(text) != want {
		t.Errorf("announced: %s, %v", text, err)
	}
}

// TestHubWithLiars: what one user announces falsely hides nobody else's images.
func TestHubWithLiars(t *testing.T) {
	h, c := startHub(t)
	good := base64.StdEncoding.EncodeToString([]byte(`{"walt.user.images":{
		"alice/tool:latest":{"labels":{"walt.node.models":"rpi-b"}},
		"a/b/c:latest":{"labels":{"walt.node.models":"rpi-b"}},
		"alice/\u001b[2J:latest":{"labels":{"walt.node.models":"rpi-b"}},
		"alice/bad:latest":{"labels":{"walt.node.models":"\u001b[2J"}},
		"alice/no:latest":{"labels":{}}, "alice/null:latest":null}}`))
	h.Push(t, "alice/walt_metadata:latest", registrytest.Image{Labels: map[string]string{"metadata": good}})
	h.Push(t, "bob/walt_metadata:latest", registrytest.Image{Labels: map[string]string{"metadata": "%%%"}})
	h.Push(t, "waltplatform/walt_metadata:latest", registrytest.Image{})
	found, err := search(t, open(t, c, hub, Account{}), "")
	if err != nil {
		t.Fatal(err)
	}
	expect(t, found, "alice/tool:latest rpi-b")
}

// TestHostileAnswers: each ends in an error, in bounded time and memory.
func TestHostileAnswers(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"repositories": ["x/y"]}`) }))
	defer other.Close()
	open200 := func(http.ResponseWriter, *http.Request) {}
	for _, c := range []struct {
		name    string
		catalog http.HandlerFunc
		err     string
	}{
		{"garbage", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, "invalid character"},
		{"not a list", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"repositories": 3}`) }, "cannot read the list"},
		{"no list", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{}`) }, "cannot read the list"},
		{"huge", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "[\""+strings.Repeat("x", 2*maxAnswer))
		}, "longer than can be meant"},
		{"deep", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"repositories":`+strings.Repeat("[", maxAnswer/2))
		}, "exceeded max depth"},
		{"refused", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, "status 403"},
		{"endless list", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", `</v2/_catalog?n=100>; rel="next"`)
			io.WriteString(w, `{"repositories": ["a/b"]}`)
		}, "does not end"},
		{"list elsewhere", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "<"+other.URL+`/v2/_catalog>; rel="next"`)
			io.WriteString(w, `{"repositories": ["a/b"]}`)
		}, "cannot follow a list"},
		{"redirections", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/v2/_catalog", http.StatusFound) }, "there are too many"},
		{"redirection without TLS", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+"/v2/_catalog", http.StatusFound)
		}, "is not safe"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := serve(t, "https-no-verify", map[string]http.HandlerFunc{"/v2/": open200, "/v2/_catalog": c.catalog})
			if found, err := search(t, open(t, &Client{}, r, Account{}), ""); err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("found %q, %.300v; want %q", found, err, c.err)
			}
		})
	}
}

// TestHostileImages: an image that cannot be described is left out of a search.
func TestHostileImages(t *testing.T) {
	const kind = "application/vnd.docker.distribution.manifest.v2+json"
	for name, manifest := range map[string]string{
		"garbage":      "<html>",
		"huge config":  `{"schemaVersion":2,"mediaType":"` + kind + `","config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":99999999999,"digest":"sha256:` + strings.Repeat("a", 64) + `"},"layers":[]}`,
		"other config": `{"schemaVersion":2,"mediaType":"` + kind + `","config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":2,"digest":"sha256:` + strings.Repeat("a", 64) + `"},"layers":[]}`,
		"empty index":  `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
	} {
		t.Run(name, func(t *testing.T) {
			r := serve(t, "http", map[string]http.HandlerFunc{
				"/v2/":              func(w http.ResponseWriter, _ *http.Request) {},
				"/v2/_catalog":      func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"repositories": ["a/b"]}`) },
				"/v2/a/b/tags/list": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"tags": ["latest"]}`) },
				"/v2/a/b/manifests/": func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", kind)
					io.WriteString(w, manifest)
				},
				"/v2/a/b/blobs/": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") },
			})
			s := open(t, &Client{}, r, Account{})
			if found, err := search(t, s, ""); err != nil || len(found) != 0 {
				t.Errorf("found %q, %v", found, err)
			}
			if _, err := s.Describe(t.Context(), "a/b:latest"); err == nil {
				t.Error("it is described")
			}
		})
	}
}

// TestSearchEndsWithItsCaller: at a registry that says nothing, and when nobody takes
// what is found any more.
func TestSearchEndsWithItsCaller(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	silent := serve(t, "http", map[string]http.HandlerFunc{"/": func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}})
	err := open(t, &Client{}, silent, Account{}).Search(ctx, Query{}, func(Image) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	r := registrytest.Start(t, false, "", "")
	for n := range 20 {
		r.Push(t, fmt.Sprintf("bob/tool%d:latest", n), labels("rpi-b"))
	}
	over := errors.New("over")
	count := 0
	err = open(t, &Client{}, of(r, "http"), Account{}).Search(t.Context(), Query{}, func(Image) error { count++; return over })
	if !errors.Is(err, over) || count > maxParallel {
		t.Errorf("got %v after %d", err, count)
	}
}

func TestFullName(t *testing.T) {
	for name, want := range map[string]bool{
		"alice/tool:latest": true, "0a/b._-c:V1.2-x_y": true,
		"": false, "alice": false, "alice/tool": false, "alice/tool:": false, "/tool:latest": false, "alice/:latest": false, "a/b/c:latest": false,
		"alice/tool:a:b": false, "Alice/tool:latest": false, "alice/to ol:latest": false, "../tool:latest": false, "alice/tool:.a": false, "alice/t\x1b:latest": false,
		"alice/" + strings.Repeat("t", 129) + ":latest": false,
	} {
		if got := isFullName(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add(base64.StdEncoding.EncodeToString([]byte(`{"walt.user.images":{"alice/tool:latest":{"labels":{"walt.node.models":"rpi-b"}}}}`)))
	f.Add("")
	f.Fuzz(func(t *testing.T, label string) {
		images, err := decodeMetadata(label)
		if err != nil && !errors.Is(err, errMetadata) {
			t.Error(err)
		}
		for _, i := range images {
			if !isFullName(i.Name) || i.Labels[ModelsLabel] == "" {
				t.Errorf("%+v", i)
			}
		}
	})
}

func FuzzNextPage(f *testing.F) {
	f.Add(`</v2/_catalog?last=a&n=100>; rel="next"`)
	f.Add(`<https://evil.example/x>; rel="next"`)
	f.Add(`<//evil.example/x>; rel = "next"`)
	f.Fuzz(func(t *testing.T, link string) {
		const address = "https://own.example:5000/v2/_catalog?n=100"
		next, err := nextPage(address, link)
		if err != nil || next == "" {
			return
		}
		u, err := url.Parse(next)
		if err != nil || u.Host != "own.example:5000" || u.Scheme != "https" || u.User != nil {
			t.Errorf("%q leads to %q, %v", link, next, err)
		}
	})
}

// TestSlowAnswer: an answer that trickles is given up as one that does not come.
func TestSlowAnswer(t *testing.T) {
	r := serve(t, "http", map[string]http.HandlerFunc{"/v2/": func(w http.ResponseWriter, r *http.Request) {
		for {
			select {
			case <-r.Context().Done():
				return
			case <-time.After(time.Millisecond):
				io.WriteString(w, " ")
				w.(http.Flusher).Flush()
			}
		}
	}})
	transport := (&Client{Timeout: 50 * time.Millisecond}).transport(r)
	defer transport.CloseIdleConnections()
	if err := r.login(t.Context(), &http.Client{Transport: transport}, alice); err == nil || !strings.Contains(err.Error(), "no answer within") {
		t.Errorf("got %v", err)
	}
}
