package sandbox

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/waltos/waltos/hcl"
)

// hidden folders are empty for every unit of a private root, but for what it may read and
// write.
var hidden = []string{"/boot", "/home", "/media", "/mnt", "/root", "/srv", "/var"}

// temporary folders are the unit's own, and end with it.
var temporary = []string{"/tmp", "/var/tmp"}

// devices of every unit.
var devices = []string{"/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"}

// Access is what a unit may do with a path.
type Access string

// From the least to the most.
const (
	Hidden    Access = "hidden" // an empty folder
	Readable  Access = "read"
	Writable  Access = "write"
	Mountable Access = "mount" // writable, and mounts are the machine's
)

// Place is a part of the view that a unit has of the file systems; what is below it is like it,
// but for places of their own.
type Place struct {
	Path   string `json:"path"`
	Access Access `json:"access"`
	Why    string `json:"why"` // attribute of the unit
}

// View returns the places of a sandbox besides "/", which can be read, and temporary folders
// and devices of its own; in the order of their paths. own are the folders that are made for
// the unit.
func View(s *hcl.Sandbox, own []string) []Place {
	var all []Place
	add := func(access Access, why string, paths []string) {
		for _, path := range paths {
			all = append(all, Place{path, access, why})
		}
	}
	add(Mountable, "mounts", s.Mounts)
	add(Writable, "write", s.Write)
	add(Writable, "its directories", own)
	add(Readable, "read", s.Read)
	if s.Root == "private" {
		add(Hidden, "hide", s.Hide)
		add(Hidden, "every sandbox", hidden)
	}
	// Of two wishes for one path, the first.
	slices.SortStableFunc(all, func(a, b Place) int { return strings.Compare(a.Path, b.Path) })
	all = slices.CompactFunc(all, func(a, b Place) bool { return a.Path == b.Path })
	// What is below a place like it is in it already: a mount of its own would only keep files
	// from being renamed into it.
	return slices.DeleteFunc(slices.Clone(all), func(p Place) bool {
		above, ok := nearest(all, p.Path)
		return ok && (above.Access == p.Access || above.Access == Mountable && p.Access == Writable)
	})
}

// nearest returns the last place above a path.
func nearest(places []Place, path string) (found Place, ok bool) {
	for _, p := range places {
		if path != p.Path && within(path, p.Path) {
			found, ok = p, true
		}
	}
	return found, ok
}

// within tells whether a path is a folder or below it.
func within(path, folder string) bool {
	rest, ok := strings.CutPrefix(path, filepath.Clean(folder))
	return ok && (rest == "" || rest[0] == '/' || folder == "/")
}
