package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io/fs"
	"log"
	"mime"
	"net"
	nethttp "net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/waltos/waltos/services/bootfile"
	"github.com/waltos/waltos/services/internal/quota"
	"github.com/waltos/waltos/services/state"
)

// Bounds of one server. A node may take its time to read a kernel, but a client must
// say quickly what it wants.
const (
	maxConnections = 2048
	maxPerAddress  = 256
	maxHeader      = 64 << 10
	headerTimeout  = 15 * time.Second
	idleTimeout    = 2 * time.Minute
	writeTimeout   = time.Hour
	callTimeout    = 30 * time.Second
)

// Config describes a server.
type Config struct {
	Tree interface { // boot files; *bootfile.Tree
		Open(client netip.Addr, name string) (*os.File, fs.FileInfo, error)
	}
	State interface { // *state.Watcher
		Current() *state.Snapshot
		Call(ctx context.Context, method string, arg, reply any) error
	}
	Doc string // directory of the documentation; need not exist
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Serve answers on ln until ctx ends; requests under way are then given a moment.
func Serve(ctx context.Context, ln net.Listener, cfg Config) error {
	server := &nethttp.Server{
		Handler:           NewHandler(cfg),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		WriteTimeout:      writeTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := server.Shutdown(grace); err != nil {
			server.Close()
		}
	})
	err := server.Serve(quota.New(maxConnections, maxPerAddress).Listener(ln))
	if stop() {
		return fmt.Errorf("cannot serve HTTP: %w", err)
	}
	<-done
	return nil
}

// handler answers requests. The standard multiplexer is not used: it redirects names
// that it wants to clean, which boot loaders do not follow.
type handler struct{ cfg Config }

// NewHandler returns what answers the requests.
func NewHandler(cfg Config) nethttp.Handler {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &handler{cfg}
}

// failure is an error with its HTTP status.
type failure struct {
	status int
	text   string
}

func (f *failure) Error() string { return f.text }

func fail(status int, format string, args ...any) error {
	return &failure{status, fmt.Sprintf(format, args...)}
}

func (h *handler) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	if r.ContentLength != 0 { // no request needs a body: it is not waited for
		w.Header().Set("Connection", "close")
	}
	if err := h.route(w, r); err != nil {
		writeError(w, r, err)
	}
}

func (h *handler) route(w nethttp.ResponseWriter, r *nethttp.Request) error {
	name := r.URL.Path
	var serve func(nethttp.ResponseWriter, *nethttp.Request) error
	switch {
	case name == "/" || name == "/index.html":
		serve = page(homePage)
	case name == "/api" || name == "/api/" || name == "/api/index.html":
		serve = page(apiPage)
	case name == "/favicon.ico":
		serve = redirect("/doc/_static/logo-walt.png")
	case name == "/doc":
		serve = redirect("/doc/")
	case strings.HasPrefix(name, "/doc/"):
		serve = h.doc
	case strings.HasPrefix(name, "/boot/"):
		serve = h.boot
	case name == "/api/v1/nodes":
		serve = h.nodes
	case name == "/api/v1/images":
		serve = h.images
	case name == "/api/v1/logs":
		serve = h.logs
	case name == "/readyz":
		serve = h.ready
	default:
		return fail(nethttp.StatusNotFound, "Not found: '%s'", name)
	}
	if r.Method != nethttp.MethodGet && r.Method != nethttp.MethodHead {
		w.Header().Set("Allow", "GET,HEAD")
		return fail(nethttp.StatusMethodNotAllowed, "Method not allowed.")
	}
	return serve(w, r)
}

const textType = "text/html; charset=UTF-8"

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
			if local, ok := r.Context().Value(nethttp.LocalAddrContextKey).(net.Addr); ok {
				host = local.String()
			}
		}
		w.Header().Set("Location", (&url.URL{Scheme: "http", Host: host, Path: to}).String())
		write(w, r, status, textType, nil)
		return nil
	}
}

// write sends a whole answer.
func write(w nethttp.ResponseWriter, r *nethttp.Request, status int, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(status)
	if r.Method != nethttp.MethodHead {
		// An error means that the client has gone.
		_, _ = w.Write(body)
	}
}

// writeError sends an error in the form that the client prefers.
func writeError(w nethttp.ResponseWriter, r *nethttp.Request, err error) {
	f := &failure{nethttp.StatusInternalServerError, err.Error()}
	if !errors.As(err, &f) {
		log.Printf("%s %.200s of %s: %v", r.Method, r.URL.Path, r.RemoteAddr, err)
	}
	switch r.Header.Get("Prefer") {
	case "errors=text-only":
		write(w, r, f.status, "text/plain; charset=UTF-8", []byte(f.text+"\n"))
	case "errors=json":
		writeJSON(w, r, f.status, struct {
			Error  string `json:"error"`
			Status int    `json:"status_code"`
		}{f.text, f.status})
	default:
		title := fmt.Sprintf("Error: %d %s", f.status, nethttp.StatusText(f.status))
		write(w, r, f.status, textType, fmt.Appendf(nil, errorPage, title, title,
			html.EscapeString(requestURL(r)), html.EscapeString(f.text)))
	}
}

func requestURL(r *nethttp.Request) string {
	return "http://" + r.Host + r.URL.RequestURI()
}

func writeJSON(w nethttp.ResponseWriter, r *nethttp.Request, status int, v any) {
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		log.Printf("%s %.200s: cannot encode the answer: %v", r.Method, r.URL.Path, err)
		status = nethttp.StatusInternalServerError
		text.Reset()
		text.WriteString(`{"error": "internal error"}`)
	}
	write(w, r, status, "application/json", []byte(strings.TrimSuffix(text.String(), "\n")))
}

// peer returns the address of the client.
func peer(r *nethttp.Request) (netip.Addr, error) {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("cannot tell the client's address: %w", err)
	}
	return addr.Addr().Unmap().WithZone(""), nil
}

// boot serves the boot files of the requesting node, or of the one in the query:
// virtual nodes run on the server itself.
func (h *handler) boot(w nethttp.ResponseWriter, r *nethttp.Request) error {
	client, err := peer(r)
	if err != nil {
		return err
	}
	if text := r.URL.Query().Get("node_ip"); text != "" {
		if client, err = netip.ParseAddr(text); err != nil || !client.Is4() {
			return fail(nethttp.StatusBadRequest, "Invalid node_ip.")
		}
	}
	file, info, err := h.cfg.Tree.Open(client, strings.TrimPrefix(r.URL.Path, "/boot/"))
	switch {
	case errors.Is(err, bootfile.ErrEscape):
		log.Printf("%s wants %.100q: %v", client, r.URL.Path, err)
		return fail(nethttp.StatusBadRequest, "Invalid path.")
	case errors.Is(err, fs.ErrPermission):
		log.Printf("%s wants %.100q: %v", client, r.URL.Path, err)
		return fail(nethttp.StatusBadRequest, "Permission denied.")
	case err != nil: // missing, a directory, a name too long …
		return fail(nethttp.StatusNotFound, "No such file.")
	}
	defer file.Close()
	w.Header().Set("Content-Type", textType)
	// No date: images are made reproducibly, so that a date does not tell two apart.
	nethttp.ServeContent(w, r, "", time.Time{}, file)
	if info.Size() > 1<<20 && r.Method == nethttp.MethodGet {
		log.Printf("%s has read %s, %d bytes", client, r.URL.Path, info.Size())
	}
	return nil
}

// doc serves the documentation.
func (h *handler) doc(w nethttp.ResponseWriter, r *nethttp.Request) error {
	name := strings.TrimPrefix(r.URL.Path, "/doc/")
	if name == "" {
		name = "index.html"
	}
	file, info, err := bootfile.Open(h.cfg.Doc, h.cfg.Doc, name)
	if err != nil {
		return fail(nethttp.StatusNotFound, "File does not exist.")
	}
	defer file.Close()
	if kind := mime.TypeByExtension(path.Ext(name)); kind != "" {
		w.Header().Set("Content-Type", kind)
	}
	nethttp.ServeContent(w, r, path.Base(name), info.ModTime(), file)
	return nil
}

// ready tells whether this service knows the platform.
func (h *handler) ready(w nethttp.ResponseWriter, r *nethttp.Request) error {
	if h.cfg.State.Current().Version == 0 {
		return fail(nethttp.StatusServiceUnavailable, "The state of the platform is not known yet.")
	}
	write(w, r, nethttp.StatusOK, "text/plain; charset=UTF-8", []byte("ready\n"))
	return nil
}
