package http

import (
	"context"
	"errors"
	"net"
	nethttp "net/http"
	"net/netip"
	"strings"
	"time"
)

const vpnPrefix = "/walt-vpn/"

// Bounds of a request to enrol: a public key, in a form of one field.
const (
	maxEnrolment     = 64 << 10
	enrolmentTimeout = 15 * time.Second
)

// vpnModel is the only model of nodes that may enrol.
const vpnModel = "rpi-5-b"

// findVPN returns a route below /walt-vpn/, as a server answers whose VPN is not
// configured (server-state 6.3): properties are empty, nothing is enrolled.
func (h *handler) findVPN(name string) (route, bool) {
	switch name {
	case "server":
		return route{serve: h.serverName}, true
	case "enroll":
		return route{post: true, serve: h.enroll}, true
	case "node-conf/http-path":
		return route{serve: h.httpPath}, true
	case "node-conf/ssh-pubkey-cert", "node-conf/ssh-entrypoint-host-keys", "node-conf/vpn-mac",
		"node-conf/ssh-entrypoint", "node-conf/http-entrypoint", "node-conf/boot-mode":
		return route{serve: page("")}, true
	case "node-conf/public.pem":
		return route{serve: noFile("File does not exist.")}, true
	}
	if node, file, ok := strings.Cut(strings.TrimPrefix(name, "per-ip/"), "/"); ok && strings.HasPrefix(name, "per-ip/") {
		return route{serve: func(w nethttp.ResponseWriter, r *nethttp.Request) error { return h.perIP(w, r, node, file) }}, true
	}
	return route{}, false
}

func noFile(text string) func(nethttp.ResponseWriter, *nethttp.Request) error {
	return func(nethttp.ResponseWriter, *nethttp.Request) error { return fail(nethttp.StatusNotFound, "%s", text) }
}

func (h *handler) serverName(w nethttp.ResponseWriter, r *nethttp.Request) error {
	write(w, r, nethttp.StatusOK, textType, []byte(fullName(r.Context(), h.cfg.Name)+"\n"))
	return nil
}

// nameTimeout bounds the search for the full name of the server.
const nameTimeout = 2 * time.Second

// fullName completes a host name by the domain that the resolver knows it in, if any.
func fullName(ctx context.Context, host string) string {
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	if name, err := net.DefaultResolver.LookupCNAME(ctx, host); err == nil && strings.HasPrefix(name, host+".") {
		return strings.TrimSuffix(name, ".")
	}
	return host
}

// requester returns the address of the node that a request is of. The server itself may
// play another, which tests do.
func (h *handler) requester(r *nethttp.Request) (netip.Addr, error) {
	client, err := peer(r)
	if err != nil {
		return client, err
	}
	if text := r.URL.Query().Get("fake_requester_ip"); text != "" && h.local(r, client) {
		if client, err = netip.ParseAddr(text); err != nil {
			return client, fail(nethttp.StatusBadRequest, "Invalid request.")
		}
	}
	return client, nil
}

func (h *handler) httpPath(w nethttp.ResponseWriter, r *nethttp.Request) error {
	node, err := h.requester(r)
	if err != nil {
		return err
	}
	write(w, r, nethttp.StatusOK, textType, []byte("walt-vpn/per-ip/"+strings.ReplaceAll(node.String(), ".", "-")))
	return nil
}

// enroll refuses, for the reason that fits best: no node is enrolled where no entrypoint
// is configured.
func (h *handler) enroll(w nethttp.ResponseWriter, r *nethttp.Request) error {
	node, err := h.requester(r)
	if err != nil {
		return err
	}
	// An error means that there is no connection, as in tests.
	_ = nethttp.NewResponseController(w).SetReadDeadline(time.Now().Add(enrolmentTimeout))
	r.Body = nethttp.MaxBytesReader(w, r.Body, maxEnrolment)
	key, _, err := r.FormFile("ssh-pubkey")
	if long := (*nethttp.MaxBytesError)(nil); errors.As(err, &long) {
		return fail(nethttp.StatusBadRequest, "Invalid request.")
	}
	if err != nil {
		return fail(nethttp.StatusBadRequest, "Public key not provided.")
	}
	key.Close()
	if device, _ := h.cfg.State.Current().ByIP(node.String()); device.Type != "node" || device.Model != vpnModel {
		return fail(nethttp.StatusBadRequest, "VPN enrollment request not coming from a rpi5 node of the WalT network.")
	}
	return fail(nethttp.StatusBadRequest, "The VPN entrypoint is not fully configured (use 'walt-server-setup --edit-conf' on server-side).")
}

// perIP serves a boot file of the node whose address is written with dashes. Without a
// key to sign with there is no boot.sig.
func (h *handler) perIP(w nethttp.ResponseWriter, r *nethttp.Request, dashed, name string) error {
	client, err := h.requester(r)
	if err != nil {
		return err
	}
	node, err := netip.ParseAddr(strings.ReplaceAll(dashed, "-", "."))
	if err != nil || !node.Is4() || !h.mayRead(r, client, node) {
		return fail(nethttp.StatusBadRequest, "Invalid request.")
	}
	if name == "boot.sig" {
		return fail(nethttp.StatusNotFound, "No such file.")
	}
	return h.bootFile(w, r, node, name)
}
