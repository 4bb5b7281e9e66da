package blocking

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"slices"

	"github.com/waltos/waltos/services/daemon/blocking/snmp"
)

// agent is a switch being talked to, with what is known of it.
type agent struct {
	*snmp.Session
	service *Service
	address string
	known   knowledge
}

// contact opens a session with a switch and finds out whether it is the one that is
// known. A switch that is mute is found out here, before any probe.
func (s *Service) contact(ctx context.Context, sw Switch) (*agent, error) {
	address, err := netip.ParseAddr(sw.IP)
	if err != nil {
		return nil, fmt.Errorf("cannot talk to a switch: %w", err)
	}
	session, err := s.snmp.Open(ctx, snmp.Target{Address: address, Version: sw.Version, Community: sw.Community})
	if err != nil {
		return nil, err
	}
	a := &agent{Session: session, service: s, address: address.String()}
	is := identity{MAC: sw.MAC}
	is.Kind, err = session.Kind(ctx)
	if err == nil {
		is.Bridge, err = session.BridgeAddress(ctx)
	}
	if err != nil {
		session.Close()
		return nil, err
	}
	a.known = s.cache.get(a.address, is)
	return a, nil
}

// probed runs work that probes the switch: nobody else probes it meanwhile, and what is
// known afterwards is remembered.
func (a *agent) probed(ctx context.Context, work func() error) error {
	unlock, err := a.service.cache.lock(ctx, a.address)
	if err != nil {
		return err
	}
	defer unlock()
	a.known = a.service.cache.get(a.address, a.known.Identity) // somebody may just have probed it
	err = work()
	a.service.cache.put(a.address, a.known)
	return err
}

// explore asks a switch for all that it knows of its neighbourhood.
func (s *Service) explore(ctx context.Context, sw Switch) Exploration {
	ctx, cancel := context.WithTimeout(ctx, exploreLimit)
	defer cancel()
	a, err := s.contact(ctx, sw)
	if err != nil {
		log.Printf("switch %s cannot be explored: %v", sw.IP, err)
		return Exploration{NeighborsError: err.Error(), StationsError: err.Error()}
	}
	defer a.Close()
	var found Exploration
	var numbering snmp.Numbering
	err = a.probed(ctx, func() (err error) {
		var variant *snmp.LLDP
		if variant, found.Neighbors, err = a.neighbors(ctx); err != nil {
			found.NeighborsError = err.Error()
		}
		numbering, err = a.renumber(ctx, variant)
		return err
	})
	if err != nil {
		log.Printf("ports of switch %s: %v", sw.IP, err)
	}
	found.Labels = numbering.Labels
	if found.Stations, err = a.Stations(ctx, numbering); err != nil {
		found.StationsError = err.Error()
	}
	if found.Addresses, err = a.Addresses(ctx); err != nil {
		log.Printf("addresses of switch %s: %v", sw.IP, err)
	}
	if bridge := a.known.Identity.Bridge; bridge != "" && !slices.Contains(found.Addresses, bridge) {
		found.Addresses = append(found.Addresses, bridge)
	}
	return found
}

// labels asks a switch what its ports call themselves.
func (s *Service) labels(ctx context.Context, sw Switch) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, exploreLimit)
	defer cancel()
	a, err := s.contact(ctx, sw)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	var numbering snmp.Numbering
	err = a.probed(ctx, func() error {
		variants := snmp.LLDPs()
		known := slices.IndexFunc(variants, func(v *snmp.LLDP) bool { return v.Name == a.known.LLDP })
		if known < 0 {
			variant, _, err := a.neighbors(ctx)
			if errors.Is(err, snmp.ErrNoSuchObject) {
				return nil // no LLDP, no label
			}
			if err != nil {
				return err
			}
			known = slices.IndexFunc(variants, func(v *snmp.LLDP) bool { return v.Name == variant.Name })
		}
		numbering, err = a.renumber(ctx, variants[known])
		return err
	})
	return numbering.Labels, err
}

// neighbors reads the neighbours by the variant that is known, or else by the first that
// works.
func (a *agent) neighbors(ctx context.Context) (*snmp.LLDP, []snmp.Neighbor, error) {
	variants := snmp.LLDPs()
	first := slices.IndexFunc(variants, func(v *snmp.LLDP) bool { return v.Name == a.known.LLDP })
	if first >= 0 {
		found, err := variants[first].Neighbors(ctx, a.Session)
		if !errors.Is(err, snmp.ErrNoSuchObject) {
			return variants[first], found, err
		}
		a.known.LLDP = "" // another firmware
	}
	var last error
	for _, v := range variants {
		found, err := v.Neighbors(ctx, a.Session)
		if err == nil {
			a.known.LLDP = v.Name
			return v, found, nil
		}
		last = err
		if ctx.Err() != nil {
			break
		}
	}
	return nil, nil, last
}

// renumber reads the numbers of ports again. If they have changed, so may have the ports
// of the power table.
func (a *agent) renumber(ctx context.Context, variant *snmp.LLDP) (snmp.Numbering, error) {
	n, err := a.Numbering(ctx, variant)
	if err != nil {
		return n, err
	}
	if a.known.Numbering == nil || !a.known.Numbering.Equal(n) {
		a.known.Numbering, a.known.PoEPorts = &n, nil
	}
	return n, nil
}

// Words of upstream for what fails.
const (
	snmpIssue    = "SNMP issue"
	unmappedPort = "KeyError" // a port without power supply: name of a Python exception
)

// power switches ports of a switch. Once begun it is carried through, whoever waits.
func (s *Service) power(ctx context.Context, request powerRequest) []string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), powerLimit)
	defer cancel()
	texts := make([]string, len(request.Ports))
	a, err := s.contact(ctx, request.Switch)
	if err != nil {
		return failAll(texts, request, err)
	}
	defer a.Close()
	var variant *snmp.PoE
	err = a.probed(ctx, func() (err error) {
		variant, err = a.powerTable(ctx)
		return err
	})
	if err != nil {
		return failAll(texts, request, err)
	}
	for i, port := range request.Ports {
		index := port
		if !variant.Identity() {
			index = a.known.Numbering.Interface(port)
		}
		row, supplied := a.known.PoEPorts[index]
		if !supplied {
			texts[i] = unmappedPort
			continue
		}
		err := variant.Set(ctx, a.Session, row, request.On)
		texts[i] = powerText(err)
		if texts[i] == snmpIssue {
			log.Printf("power of port %d of switch %s: %v", port, request.Switch.IP, err)
		}
	}
	return texts
}

func failAll(texts []string, request powerRequest, err error) []string {
	log.Printf("power of ports of switch %s: %v", request.Switch.IP, err)
	for i := range texts {
		texts[i] = powerText(err)
	}
	return texts
}

func powerText(err error) string {
	var uncorrelated *snmp.UncorrelatedError
	switch {
	case err == nil:
		return ""
	case errors.Is(err, snmp.ErrNotPowered), errors.As(err, &uncorrelated):
		return err.Error()
	}
	return snmpIssue
}

// powerTable finds out by which variant power is controlled, and which of its rows is
// which port.
func (a *agent) powerTable(ctx context.Context) (*snmp.PoE, error) {
	variants := snmp.PoEs()
	if i := slices.IndexFunc(variants, func(v *snmp.PoE) bool { return v.Name == a.known.PoE }); i >= 0 && a.known.PoEPorts != nil {
		return variants[i], nil
	}
	variant, rows, err := a.powerVariant(ctx, variants)
	if errors.Is(err, snmp.ErrNoSuchObject) && a.known.PoE != "" { // another firmware
		a.known.PoE = ""
		variant, rows, err = a.powerVariant(ctx, variants)
	}
	if err != nil {
		return nil, err
	}
	if !variant.Identity() && a.known.Numbering == nil {
		lldp, _, err := a.neighbors(ctx)
		if err != nil {
			log.Printf("switch %s has no LLDP: its ports are taken for interfaces: %v", a.address, err)
		}
		if _, err := a.renumber(ctx, lldp); err != nil {
			return nil, err
		}
	}
	if a.known.PoEPorts, err = variant.Map(ctx, a.Session, rows); err != nil {
		return nil, err
	}
	a.known.PoE = variant.Name
	return variant, nil
}

func (a *agent) powerVariant(ctx context.Context, variants []*snmp.PoE) (*snmp.PoE, []snmp.PoEPort, error) {
	var last error
	for _, v := range variants {
		if a.known.PoE != "" && a.known.PoE != v.Name {
			continue // another variant's probes may make this switch mute
		}
		rows, err := v.Rows(ctx, a.Session)
		if err == nil {
			return v, rows, nil
		}
		last = err
		if ctx.Err() != nil {
			break
		}
	}
	return nil, nil, last
}
