package registrytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// hubHosts are the hosts of the Docker Hub.
var hubHosts = []string{"registry-1.docker.io", "auth.docker.io", "index.docker.io", "hub.docker.com"}

// Hub is a Docker Hub that those reach who take it for their proxy: by its real names and
// protocols, with a certificate of an authority of its own.
type Hub struct {
	store
	Proxy *url.URL
	Roots *x509.CertPool
	// Authority is a file with the certificate of the authority.
	Authority string

	mu       sync.Mutex
	accounts map[string]string // user name to password
	asked    []string
}

// StartHub runs a hub until the end of the test. Its accounts are user names with their
// passwords; all of them may write images of waltplatform.
func StartHub(t testing.TB, accounts map[string]string) *Hub {
	t.Helper()
	h := &Hub{store: newStore(), accounts: accounts}
	certificate := h.certify(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.Proxy = &url.URL{Scheme: "http", Host: ln.Addr().String()}
	inner := &connections{arrived: make(chan net.Conn), closed: make(chan struct{})}
	quiet := log.New(io.Discard, "", 0)
	sites := &http.Server{Handler: http.HandlerFunc(h.serve), ErrorLog: quiet}
	proxy := &http.Server{ErrorLog: quiet, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.Host)
		if r.Method != http.MethodConnect || !slices.Contains(hubHosts, host) {
			http.Error(w, "no such host", http.StatusBadGateway)
			return
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n\r\n")
		inner.add(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}}))
	})}
	go sites.Serve(inner)
	go proxy.Serve(ln)
	t.Cleanup(func() { proxy.Close(); sites.Close() })
	return h
}

// connections is a listener of connections that are there already.
type connections struct {
	arrived chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

func (c *connections) add(conn net.Conn) {
	select {
	case c.arrived <- conn:
	case <-c.closed:
		conn.Close()
	}
}

func (c *connections) Accept() (net.Conn, error) {
	select {
	case conn := <-c.arrived:
		return conn, nil
	case <-c.closed:
		return nil, net.ErrClosed
	}
}

func (c *connections) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (c *connections) Addr() net.Addr { return &net.TCPAddr{} }

// certify makes the authority, and a certificate for all hosts.
func (h *Hub) certify(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hub of a test"}, DNSNames: hubHosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	h.Roots = x509.NewCertPool()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	h.Roots.AppendCertsFromPEM(text)
	h.Authority = filepath.Join(t.TempDir(), "hub.pem")
	if err := os.WriteFile(h.Authority, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Asked returns the requests since the last time, as "GET host/path user".
func (h *Hub) Asked() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	asked := h.asked
	h.asked = nil
	return asked
}

func (h *Hub) serve(w http.ResponseWriter, r *http.Request) {
	user, _ := h.user(r)
	h.mu.Lock()
	h.asked = append(h.asked, strings.TrimSpace(r.Method+" "+r.Host+r.URL.Path+" "+user))
	h.mu.Unlock()
	switch r.Host {
	case "auth.docker.io":
		h.serveToken(w, r)
	case "registry-1.docker.io":
		h.serveRegistry(w, r)
	case "index.docker.io":
		h.serveSearch(w, r)
	case "hub.docker.com":
		h.servePages(w, r)
	}
}

const tokenPrefix = "token-of-"

// user tells who makes a request, by a token or by a password; ok is false if it is
// nobody's.
func (h *Hub) user(r *http.Request) (name string, ok bool) {
	if token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "+tokenPrefix); found {
		return token, true
	}
	name, password, given := r.BasicAuth()
	if !given {
		return "", true
	}
	known, there := h.accounts[name]
	return name, there && known == password
}

func (h *Hub) serveToken(w http.ResponseWriter, r *http.Request) {
	user, ok := h.user(r)
	if !ok || r.URL.Query().Get("service") != "registry.docker.io" {
		http.Error(w, `{"details":"incorrect username or password"}`, http.StatusUnauthorized)
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"token": tokenPrefix + user, "expires_in": 300})
}

// serveRegistry asks everybody for a token, also those who have no account, and says of
// what is not there that it is not allowed.
func (h *Hub) serveRegistry(w http.ResponseWriter, r *http.Request) {
	refuse := func() {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://auth.docker.io/token",service="registry.docker.io"`)
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
	}
	token, there := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "+tokenPrefix)
	if !there || r.URL.Path == "/v2/" && token == "" {
		refuse()
		return
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	writes := r.Method != http.MethodGet && r.Method != http.MethodHead
	switch {
	case writes && parts[0] != token && parts[0] != "waltplatform", writes && token == "":
		refuse()
	case !writes && len(parts) > 2 && token == "" && !slices.Contains(h.repositories(parts[0]), parts[1]):
		refuse()
	default:
		h.ServeHTTP(w, r)
	}
}

// serveSearch is the search of the index, of one result on each page.
func (h *Hub) serveSearch(w http.ResponseWriter, r *http.Request) {
	word := r.URL.Query().Get("q")
	var names []string
	for _, user := range append(slices.Sorted(maps.Keys(h.accounts)), "waltplatform") {
		for _, repository := range h.repositories(user) {
			if strings.Contains(user+"/"+repository, word) {
				names = append(names, user+"/"+repository)
			}
		}
	}
	names = append(names, "stranger/not_"+word)
	page := 1
	fmt.Sscan(r.URL.Query().Get("page"), &page)
	results := []map[string]string{}
	if page >= 1 && page <= len(names) {
		results = append(results, map[string]string{"name": names[page-1]})
	}
	json.NewEncoder(w).Encode(map[string]any{"num_pages": len(names), "num_results": len(names), "results": results})
}

// servePages lists the repositories of a user, or the tags of one, of one on each page.
func (h *Hub) servePages(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(strings.TrimPrefix(r.URL.Path, "/v2/repositories"), "/"), "/")
	var names []string
	switch len(parts) {
	case 1:
		names = h.repositories(parts[0])
	case 3:
		names = h.tags(parts[0] + "/" + parts[1])
	}
	page := 1
	fmt.Sscan(r.URL.Query().Get("page"), &page)
	answer := map[string]any{"count": len(names), "next": nil, "results": []any{}}
	if page >= 1 && page <= len(names) {
		answer["results"] = []map[string]string{{"name": names[page-1]}}
	}
	if page < len(names) {
		answer["next"] = fmt.Sprintf("https://hub.docker.com%s?page=%d&page_size=100", r.URL.Path, page+1)
	}
	json.NewEncoder(w).Encode(answer)
}
