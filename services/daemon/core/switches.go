package core

import (
	"context"
	"sync"

	"github.com/waltos/waltos/services/daemon/blocking"
	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/db"
)

// Explorer asks switches what is around them: *blocking.Client.
type Explorer interface {
	Explore(ctx context.Context, sw blocking.Switch) (blocking.Exploration, error)
}

// contact is how a switch is talked to.
func contact(sw db.Device) blocking.Switch {
	version, _ := registry.ConfInt(sw.Conf, "snmp.version")
	community, _ := sw.Conf["snmp.community"].(string)
	return blocking.Switch{MAC: sw.MAC, IP: sw.IP, Version: int(version), Community: community}
}

// Switches reaches switches through server-blocking.
type Switches struct{ *blocking.Client }

// PortLabels returns what the ports of a switch call themselves in LLDP.
func (s Switches) PortLabels(ctx context.Context, sw db.Device) (map[string]int, error) {
	return s.Labels(ctx, contact(sw))
}

// Switch implements PoE. Each switch is told of all its ports at once; different switches,
// at the same time.
func (s Switches) Switch(ctx context.Context, ports []PoEPort, on bool) []error {
	type request struct {
		sw    blocking.Switch
		ports []int
		index []int // of the ports among all
	}
	requests := map[string]*request{}
	for i, p := range ports {
		r := requests[p.Switch.MAC]
		if r == nil {
			r = &request{sw: contact(p.Switch)}
			requests[p.Switch.MAC] = r
		}
		r.ports, r.index = append(r.ports, p.Port), append(r.index, i)
	}
	errs := make([]error, len(ports))
	var all sync.WaitGroup
	for _, r := range requests {
		all.Go(func() {
			results, err := s.Power(ctx, r.sw, r.ports, on)
			for i, at := range r.index {
				if errs[at] = err; err == nil {
					errs[at] = results[i]
				}
			}
		})
	}
	all.Wait()
	return errs
}
