// Package archive hands on tar streams between clients and nodes (client-api §3.8), and
// makes sure that all of a stream is below the one name that the transfer is for: neither
// a node nor a client can make the other write elsewhere. What tar programs write in
// various ways is written anew in one that all of them read.
//
// It refuses members whose names lead out of the top one, and sizes that do not fit.
package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
)

// Form is how the members of a stream are written.
type Form int

const (
	// Common is the form of the tar programs of nodes, Busybox's among them, which ignores
	// the extended headers of POSIX.
	Common Form = iota
	// Full keeps all that a client can read.
	Full
)

// Rename copies the members of a tar stream, the top one being named name in the copy
// whatever it is called in the original. What follows the original's end is not read, and
// the end of the copy is left to End: only the caller knows whether all has come.
func Rename(to io.Writer, from io.Reader, name string, form Form) error {
	r, w := tar.NewReader(from), tar.NewWriter(to)
	top := ""
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			if top == "" {
				return errors.New("cannot copy archive: it is empty")
			}
			return w.Flush()
		}
		if err != nil {
			return fmt.Errorf("cannot read archive: %w", err)
		}
		if top == "" {
			if top = path.Clean(h.Name); leadsOut(top) {
				return fmt.Errorf("cannot copy archive: %q is not a name", h.Name)
			}
		}
		if h.Name, err = moved(h.Name, top, name); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeLink {
			if h.Linkname, err = moved(h.Linkname, top, name); err != nil {
				return err
			}
		}
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		rewrite(h, form)
		if err := w.WriteHeader(h); err != nil {
			return fmt.Errorf("cannot write archive: %w", err)
		}
		if _, err := io.Copy(w, r); err != nil {
			return fmt.Errorf("cannot copy %s: %w", h.Name, err)
		}
	}
}

// End writes the end of an archive.
func End(to io.Writer) error { return tar.NewWriter(to).Close() }

// rewrite removes from a header what belongs to the way it was written before.
func rewrite(h *tar.Header, form Form) {
	if h.Typeflag == tar.TypeGNUSparse || h.Typeflag == tar.TypeCont {
		h.Typeflag = tar.TypeReg
	}
	h.Format = tar.FormatUnknown
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	if form == Common {
		h.Format = tar.FormatGNU
		h.ModTime = h.ModTime.Truncate(time.Second)
		h.PAXRecords = nil
	}
}

// moved returns the name of a member below another top.
func moved(name, top, newTop string) (string, error) {
	clean := path.Clean(name)
	rest, below := strings.CutPrefix(clean, top+"/")
	switch {
	case clean == top:
		return newTop, nil
	case top == "." && !leadsOut(clean):
		rest, below = clean, true
	}
	if !below {
		return "", fmt.Errorf("cannot copy archive: %q is not below %q", name, top)
	}
	return path.Join(newTop, rest), nil
}

// leadsOut tells whether a clean name leads to another place than below the top.
func leadsOut(name string) bool {
	return name == ".." || strings.HasPrefix(name, "../") || strings.HasPrefix(name, "/")
}
