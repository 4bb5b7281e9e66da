package http

import (
	"errors"
	"io/fs"
	"log"
	"mime"
	nethttp "net/http"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/waltos/waltos/services/bootfile"
)

// boot serves the boot files of the requesting node, or of the one in the query:
// virtual nodes run on the server itself.
func (h *handler) boot(w nethttp.ResponseWriter, r *nethttp.Request) error {
	client, err := peer(r)
	if err != nil {
		return err
	}
	node := client
	if text := r.URL.Query().Get("node_ip"); text != "" {
		if node, err = netip.ParseAddr(text); err != nil || !node.Is4() || !h.mayRead(r, client, node) {
			return fail(nethttp.StatusBadRequest, "Invalid node_ip.")
		}
	}
	return h.bootFile(w, r, node, strings.TrimPrefix(r.URL.Path, "/boot/"))
}

// bootFile serves a file of the boot directory of a node.
func (h *handler) bootFile(w nethttp.ResponseWriter, r *nethttp.Request, node netip.Addr, name string) error {
	file, info, err := h.cfg.Tree.Open(node, name)
	switch {
	case errors.Is(err, bootfile.ErrEscape):
		log.Printf("%s wants %.100q: %v", r.RemoteAddr, r.URL.Path, err)
		return fail(nethttp.StatusBadRequest, "Invalid path.")
	case errors.Is(err, fs.ErrPermission):
		log.Printf("%s wants %.100q: %v", r.RemoteAddr, r.URL.Path, err)
		return fail(nethttp.StatusBadRequest, "Permission denied.")
	case err != nil: // missing, a directory, a name too long …
		return fail(nethttp.StatusNotFound, "No such file.")
	}
	defer file.Close()
	w.Header().Set("Content-Type", textType)
	// No date: images are made reproducibly, so that a date does not tell two apart.
	nethttp.ServeContent(w, r, "", time.Time{}, file)
	if info.Size() > 1<<20 && r.Method == nethttp.MethodGet {
		log.Printf("%s has read %s, %d bytes", node, r.URL.Path, info.Size())
	}
	return nil
}

// kinds are the MIME types of the documentation that package mime does not know without
// files of the system.
var kinds = map[string]string{
	".eot": "application/vnd.ms-fontobject", ".inv": "application/octet-stream", ".ttf": "font/ttf",
	".txt": "text/plain; charset=utf-8", ".woff": "font/woff", ".woff2": "font/woff2",
}

// doc serves the documentation, which never leads out of its directory.
func (h *handler) doc(w nethttp.ResponseWriter, r *nethttp.Request) error {
	name := strings.TrimPrefix(r.URL.Path, "/doc/")
	if name == "" || strings.HasSuffix(name, "/") {
		name += "index.html"
	}
	file, info, err := bootfile.Open(h.cfg.Doc, h.cfg.Doc, name)
	if err != nil {
		return fail(nethttp.StatusNotFound, "File does not exist.")
	}
	defer file.Close()
	extension := path.Ext(name)
	if kind, known := kinds[extension]; known {
		w.Header().Set("Content-Type", kind)
	} else if kind := mime.TypeByExtension(extension); kind != "" {
		w.Header().Set("Content-Type", kind)
	}
	nethttp.ServeContent(w, r, path.Base(name), info.ModTime(), file)
	return nil
}
