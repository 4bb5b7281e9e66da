package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/waltos/waltos/hcl"
	remote "github.com/waltos/waltos/services/daemon/blocking/registry"
	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
)

// offer is a newer image than the one that is here.
type offer struct {
	registry *hcl.Registry
	account  remote.Account
	created  time.Time
}

// updateDefaultImages gets the default images of which a registry has a newer one, and
// reboots the nodes that use them (client-api §2.7.3). It says nothing when there is no
// default image. Where 10.0 searches all that registries have, this asks for the images of
// these names; at the Docker Hub that needs no account.
func (c *call) updateDefaultImages() (any, error) {
	here := map[string]time.Time{}
	for _, i := range c.images() {
		if i.User == registry.FreeOwner && strings.HasSuffix(i.FullName, "-default:latest") {
			here[i.FullName] = i.Created
		}
	}
	if len(here) == 0 {
		return nil, nil
	}
	accounts, done, err := c.accountsAt(func(r *hcl.Registry) bool { return r.Label != hubLabel && needsAccount(r) })
	if !done {
		return nil, err
	}
	c.out("Checking remote registries...\n")
	offers := c.offers(here, accounts)
	var updated []string
	for _, full := range slices.Sorted(maps.Keys(offers)) {
		if c.Err() != nil {
			return nil, c.Err()
		}
		if c.pullNewest(full, offers[full]) {
			updated = append(updated, full)
		}
	}
	switch {
	case c.Err() != nil:
		return nil, c.Err()
	case len(offers) == 0:
		c.out("No updates available.\n")
	}
	return nil, c.imagesChanged(updated)
}

// offers asks all registries at the same time for newer images, the newest first.
func (c *call) offers(here map[string]time.Time, accounts map[string]remote.Account) map[string][]offer {
	var mu sync.Mutex // also for the output of the client
	offers := map[string][]offer{}
	var all sync.WaitGroup
	for _, r := range c.Site.Registries {
		all.Go(func() {
			for _, full := range slices.Sorted(maps.Keys(here)) {
				i, err := c.Registries.Describe(c, remote.Of(r), accounts[r.Label], full)
				mu.Lock()
				switch {
				case c.Err() != nil:
				case err != nil:
					c.ignored(r.Label, err)
				case i.Labels != nil && i.Created.After(here[full]):
					offers[full] = append(offers[full], offer{r, accounts[r.Label], i.Created})
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	for _, list := range offers {
		slices.SortStableFunc(list, func(a, b offer) int { return b.created.Compare(a.created) })
	}
	return offers
}

// pullNewest gets an image from the first of those who offer it that can give it, or says
// that none can (R4).
func (c *call) pullNewest(full string, offers []offer) bool {
	var failed []string
	for _, o := range offers {
		c.out(fmt.Sprintf("Updating %s using a newer version from %s...\n", full, o.registry.Label))
		err := c.pull(c, o.registry, o.account, full)
		if err == nil {
			return true
		}
		if c.Err() != nil {
			return false
		}
		c.Print("%v", err)
		failed = append(failed, "'"+o.registry.Label+"'")
	}
	c.err(text.DownloadFailure(full, failed) + "\n")
	return false
}

// imagesChanged makes the platform use images that are others than before under their
// names, and reboots the nodes that boot them.
func (c *call) imagesChanged(names []string) error {
	var nodes []*registry.Device
	for _, node := range c.registry.View().Nodes() {
		if contains(names, node.Image) {
			nodes = append(nodes, node)
		}
	}
	if len(names) > 0 {
		c.replaced.Store(true)
		c.changed()
	}
	if len(nodes) == 0 {
		return nil
	}
	which := "this image"
	if len(names) > 1 {
		which = "these images"
	}
	c.out(text.About("Trying to reboot %s using "+which+"...\n", registry.Names(nodes), text.Noun{None: "no nodes", One: "node", Many: "nodes"}, "and"))
	return (&reboot{Daemon: c.Daemon, call: c, nodes: nodes, cause: "image change"}).run(c, false)
}
