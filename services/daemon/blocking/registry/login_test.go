package registry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

// serve makes a registry of handlers by path, and tells where it is.
func serve(t *testing.T, protocol string, paths map[string]http.HandlerFunc) Registry {
	mux := http.NewServeMux()
	for path, handler := range paths {
		mux.HandleFunc(path, handler)
	}
	s := httptest.NewUnstartedServer(mux)
	s.Config.ErrorLog = nil
	if protocol == "http" {
		s.Start()
	} else {
		s.StartTLS()
	}
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, _ := strconv.Atoi(u.Port())
	return Registry{API: "docker-registry-v2", Host: u.Hostname(), Port: port, Protocol: protocol}
}

func challenge(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", text)
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// account accepts alice, and challenges all others.
func account(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != "alice" || password != "secret" {
			challenge(text)(w, r)
			return
		}
		io.WriteString(w, `{"token": "x"}`)
	}
}

var alice = Account{"alice", "secret"}

// try is one try to log in.
func try(t *testing.T, r Registry) error {
	transport := (&Client{}).transport(r)
	defer transport.CloseIdleConnections()
	return r.login(t.Context(), &http.Client{Transport: transport, CheckRedirect: boundRedirects}, alice)
}

func TestLogin(t *testing.T) {
	const basic = `Basic realm="images"`
	t.Run("basic", func(t *testing.T) {
		for _, protocol := range []string{"http", "https-no-verify"} {
			r := serve(t, protocol, map[string]http.HandlerFunc{"/v2/": account(basic)})
			if err := (&Client{}).Login(t.Context(), r, alice); err != nil {
				t.Error(err)
			}
			if err := (&Client{}).Login(t.Context(), r, Account{"alice", "wrong"}); !errors.Is(err, errRefused) {
				t.Errorf("a wrong password: %v", err)
			}
		}
	})
	t.Run("token", func(t *testing.T) {
		var seen url.Values
		var base string
		r := serve(t, "http", map[string]http.HandlerFunc{
			"/v2/": func(w http.ResponseWriter, r *http.Request) {
				challenge(`Bearer realm="`+base+`/token?x=1",service="images"`)(w, r)
			},
			"/token": func(w http.ResponseWriter, r *http.Request) {
				seen = r.URL.Query()
				account(basic)(w, r)
			},
		})
		base = r.base()
		if err := (&Client{}).Login(t.Context(), r, alice); err != nil {
			t.Error(err)
		}
		if got := seen.Encode(); got != "account=alice&service=images&x=1" {
			t.Errorf("the token was asked for with %q", got)
		}
		if err := (&Client{}).Login(t.Context(), r, Account{"bob", "secret"}); !errors.Is(err, errRefused) {
			t.Errorf("a wrong user: %v", err)
		}
	})
	t.Run("nobody needs an account", func(t *testing.T) {
		r := serve(t, "http", map[string]http.HandlerFunc{"/v2/": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }})
		if err := (&Client{}).Login(t.Context(), r, Account{"alice", "wrong"}); err != nil {
			t.Error(err)
		}
	})
}

// TestHostileRegistries looks at registries that are none, or that want the password for
// others.
func TestHostileRegistries(t *testing.T) {
	spied := make(chan string, 100)
	spy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, ok := r.BasicAuth(); ok {
			spied <- password
		}
		io.WriteString(w, "{}")
	}))
	defer spy.Close()
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		err     string
	}{
		{"token without TLS", challenge(`Bearer realm="` + spy.URL + `/token"`), "which is not safe"},
		{"no place for tokens", challenge(`Bearer service="x"`), "which is not safe"},
		{"unknown scheme", challenge(`Negotiate`), `authentication "negotiate", which is not known`},
		{"no challenge", challenge(``), "which is not known"},
		{"redirection to another scheme", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, spy.URL, http.StatusFound) }, "is not safe"},
		{"endless redirection", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/v2/", http.StatusFound) }, "there are too many"},
		{"portal", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>Welcome") }, "is no registry"},
		{"flood", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("[", 2*maxAnswer)) }, "longer than can be meant"},
		{"broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, "status 502"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := serve(t, "https-no-verify", map[string]http.HandlerFunc{"/v2/": c.handler})
			if err := try(t, r); err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %v, want %q", err, c.err)
			}
		})
	}
	select {
	case password := <-spied:
		t.Errorf("the password %q went elsewhere", password)
	default:
	}
}

func TestUntrustedCertificate(t *testing.T) {
	r := serve(t, "https-no-verify", map[string]http.HandlerFunc{"/v2/": account("")})
	r.Protocol = "https"
	if err := try(t, r); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v, want an error about the certificate", err)
	}
}

// TestSilentRegistry ends the attempt at one that never answers.
func TestSilentRegistry(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if conn, err := ln.Accept(); err == nil {
			defer conn.Close()
			cancel()
			<-t.Context().Done()
		}
	}()
	r := Registry{API: "docker-registry-v2", Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port, Protocol: "http"}
	if err := (&Client{}).Login(ctx, r, alice); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestDockerHub(t *testing.T) {
	if got := (Registry{API: "docker-hub"}).base(); got != "https://registry-1.docker.io" {
		t.Error(got)
	}
}

func FuzzChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://auth.example/token",service="registry.example"`)
	f.Add(`Basic realm=x, y="`)
	f.Fuzz(func(t *testing.T, header string) {
		scheme, parameters := parseChallenge(header)
		if strings.ToLower(scheme) != scheme || len(parameters) > len(header) {
			t.Errorf("%q: %q, %v", header, scheme, parameters)
		}
	})
}
