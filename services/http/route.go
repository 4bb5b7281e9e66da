package http

import (
	"context"
	"fmt"
	"net"
	nethttp "net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// route answers the requests for one name, or for all that begin with it.
type route struct {
	name  string // as metrics show it
	post  bool   // takes POST instead of GET and HEAD
	serve func(w nethttp.ResponseWriter, r *nethttp.Request) error
}

// find returns the route of a path (client-api 5.1).
func (h *handler) find(name string) (route, bool) {
	switch name {
	case "/", "/index.html":
		return route{name: "/", serve: page(homePage)}, true
	case "/api", "/api/", "/api/index.html":
		return route{name: "/api", serve: page(apiPage)}, true
	case "/favicon.ico":
		return route{name: name, serve: redirect("/doc/_static/logo-walt.png")}, true
	case "/doc":
		return route{name: name, serve: redirect("/doc/")}, true
	case "/api/v1/nodes":
		return route{name: name, serve: h.nodes}, true
	case "/api/v1/images":
		return route{name: name, serve: h.images}, true
	case "/api/v1/logs":
		return route{name: name, serve: h.logs}, true
	case "/readyz":
		return route{name: name, serve: h.ready}, true
	case "/metrics":
		return route{name: name, serve: h.metrics}, true
	}
	switch {
	case strings.HasPrefix(name, "/doc/"):
		return route{name: "/doc/", serve: h.doc}, true
	case strings.HasPrefix(name, "/boot/"):
		return route{name: "/boot/", serve: h.boot}, true
	case strings.HasPrefix(name, vpnPrefix):
		found, ok := h.findVPN(strings.TrimPrefix(name, vpnPrefix))
		found.name = vpnPrefix
		return found, ok
	}
	return route{name: "other"}, false
}

func (h *handler) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	began := time.Now()
	answer := &answer{ResponseWriter: w}
	found, known := h.find(r.URL.Path)
	defer func() { // also when the connection is given up
		h.took.With(found.name).Since(began)
		h.requests.With(found.name, strconv.Itoa(answer.status)).Add(1)
	}()
	if r.ContentLength != 0 { // what is not read of a body is not waited for
		w.Header().Set("Connection", "close")
	}
	var err error
	switch {
	case !known:
		err = fail(nethttp.StatusNotFound, "Not found: '%s'", r.URL.Path)
	case found.post && r.Method != nethttp.MethodPost:
		w.Header().Set("Allow", "POST")
		err = fail(nethttp.StatusMethodNotAllowed, "Method not allowed.")
	case !found.post && r.Method != nethttp.MethodGet && r.Method != nethttp.MethodHead:
		w.Header().Set("Allow", "GET,HEAD")
		err = fail(nethttp.StatusMethodNotAllowed, "Method not allowed.")
	default:
		err = found.serve(answer, r)
	}
	if err != nil {
		writeError(answer, r, err)
	}
}

// peer returns the address of the client.
func peer(r *nethttp.Request) (netip.Addr, error) {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("cannot tell the client's address: %w", err)
	}
	return addr.Addr().Unmap().WithZone(""), nil
}

// local tells whether a client is the server itself.
func (h *handler) local(r *nethttp.Request, client netip.Addr) bool {
	if client.IsLoopback() || client == h.cfg.Server.Addr() {
		return true
	}
	own, ok := r.Context().Value(nethttp.LocalAddrContextKey).(*net.TCPAddr)
	return ok && own.AddrPort().Addr().Unmap() == client
}

// mayRead tells whether a client may read the boot files of the node of another address.
// Virtual nodes run on the server; users may read all images; but what one node of the
// platform is, is none of another's business.
func (h *handler) mayRead(r *nethttp.Request, client, other netip.Addr) bool {
	return client == other || !h.cfg.Server.Masked().Contains(client) || h.local(r, client)
}

// user tells whether a client is in the networks of users, or is the server itself.
func (h *handler) user(r *nethttp.Request) bool {
	client, err := peer(r)
	if err != nil {
		return false
	}
	for _, network := range h.cfg.Clients {
		if network.Contains(client) {
			return true
		}
	}
	return h.local(r, client)
}

func page(text string) func(nethttp.ResponseWriter, *nethttp.Request) error {
	return func(w nethttp.ResponseWriter, r *nethttp.Request) error {
		write(w, r, nethttp.StatusOK, textType, []byte(text))
		return nil
	}
}

func redirect(to string) func(nethttp.ResponseWriter, *nethttp.Request) error {
	return func(w nethttp.ResponseWriter, r *nethttp.Request) error {
		status := nethttp.StatusSeeOther
		if !r.ProtoAtLeast(1, 1) {
			status = nethttp.StatusFound
		}
		host := r.Host
		if host == "" { // HTTP/1.0
			host = localAddress(r.Context())
		}
		w.Header().Set("Location", (&url.URL{Scheme: "http", Host: host, Path: to}).String())
		write(w, r, status, textType, nil)
		return nil
	}
}

func localAddress(ctx context.Context) string {
	if local, ok := ctx.Value(nethttp.LocalAddrContextKey).(net.Addr); ok {
		return local.String()
	}
	return ""
}
