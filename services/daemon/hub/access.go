package hub

import (
	"net/netip"
	"slices"

	"github.com/waltos/waltos/hcl"
)

// Access tells whether a peer may use an API; local says that it is the machine of
// the server itself.
type Access func(api string, peer netip.Addr, local bool) bool

// Open lets everybody use everything.
func Open(string, netip.Addr, bool) bool { return true }

// apis are the APIs there are.
var apis = []string{"CSAPI", "NSAPI", "VSAPI", "SSAPI"}

// SiteAccess returns the rules of a site: the server itself may use every API; nodes
// theirs and, for a kexec reboot, that of virtual nodes; users call from where the
// site file says; only the server calls SSAPI.
func SiteAccess(site *hcl.Site) Access {
	nodes := site.Server().Masked()
	var clients []netip.Prefix
	for _, text := range site.Access.Clients {
		clients = append(clients, netip.MustParsePrefix(text).Masked()) // checked with the site
	}
	return func(api string, peer netip.Addr, local bool) bool {
		if local {
			return true
		}
		switch api {
		case "NSAPI", "VSAPI":
			return nodes.Contains(peer)
		case "CSAPI":
			return slices.ContainsFunc(clients, func(p netip.Prefix) bool { return p.Contains(peer) })
		}
		return false
	}
}
