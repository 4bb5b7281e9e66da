// Package setup is how every network service begins: its command line, the site file,
// and the state that server-main pushes.
package setup

import (
	"context"
	"flag"
	"path/filepath"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/state"
)

// Flags is the command line of a service. Flags of its own are added before it is parsed.
type Flags struct {
	*flag.FlagSet
	site, dir, socket *string
}

// New returns the flags that all have: -site, -dir and -state.
func New(name string) *Flags {
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	return &Flags{
		FlagSet: set,
		site:    set.String("site", "/run/walt/site.hcl", "site configuration `file`"),
		dir:     set.String("dir", "/var/lib/walt/services/"+name, "`directory` of what the service keeps, as the last known state"),
		socket:  set.String("state", state.Socket, "`socket` of server-main"),
	}
}

// Load reads the command line and then the site file.
func (f *Flags) Load(args []string) (*hcl.Site, error) {
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	return f.Site()
}

// Site reads the site file; the command line has been parsed.
func (f *Flags) Site() (*hcl.Site, error) { return hcl.LoadSite(*f.site) }

// Path names a file that the service keeps.
func (f *Flags) Path(name string) string { return filepath.Join(*f.dir, name) }

// Watch follows the state until ctx ends.
func (f *Flags) Watch(ctx context.Context) *state.Watcher {
	return state.Watch(ctx, *f.socket, f.Path("state.json"))
}
