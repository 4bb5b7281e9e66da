package ipxe

import (
	"fmt"
	"net/url"
	"path"
	"strings"
)

// Location is where a file is, on the server of the node. The zero value is the root
// of TFTP.
type Location struct {
	HTTP bool   // else TFTP, or what stands for it
	Path string // absolute and clean; it may hold spaces
}

// resolve returns the location of a name that a script at l refers to.
func (l Location) resolve(name string) (Location, error) {
	if scheme, rest, found := strings.Cut(name, "://"); found {
		_, file, _ := strings.Cut(rest, "/") // there is one server
		switch scheme {
		case "tftp", "http":
			return Location{scheme == "http", clean(file)}, nil
		}
		return Location{}, fmt.Errorf("cannot get %s: only tftp:// and http:// are known", name)
	}
	if strings.HasPrefix(name, "/") {
		return Location{Path: clean(name)}, nil
	}
	return Location{l.HTTP, path.Join("/", path.Dir(l.Path), name)}, nil
}

// clean makes a path absolute; it leads nowhere above the root.
func clean(name string) string { return path.Clean("/" + name) }

func (l Location) String() string {
	if l.HTTP {
		return "http:" + (&url.URL{Path: l.Path}).EscapedPath()
	}
	return "tftp:" + l.Path
}
