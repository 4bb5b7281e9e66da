package snmp

import (
	"context"
	"errors"
	"math"
	"slices"
)

// Station is a MAC that a switch has learned on one of its ports.
type Station struct {
	Port int
	MAC  string
}

// Columns of BRIDGE-MIB and Q-BRIDGE-MIB; the last two are indexed by the number of the
// table and the address.
var (
	dot1dBaseBridgeAddress = oid("1.3.6.1.2.1.17.1.1.0")
	dot1qTpFdbPort         = oid("1.3.6.1.2.1.17.7.1.2.2.1.2")
	dot1qTpFdbStatus       = oid("1.3.6.1.2.1.17.7.1.2.2.1.3")
)

const fdbLearned = 3

// BridgeAddress reads the MAC of a switch as a bridge; "" if it has none.
func (s *Session) BridgeAddress(ctx context.Context) (string, error) {
	v, err := s.Get(ctx, dot1dBaseBridgeAddress)
	if errors.Is(err, ErrNoSuchObject) {
		return "", nil
	}
	b, _ := v.Bytes()
	mac, _ := formatMAC(b)
	return mac, err
}

// Addresses reads the MACs of the interfaces of a switch, without those that are none.
func (s *Session) Addresses(ctx context.Context) ([]string, error) {
	rows, err := s.optional(ctx, ifPhysAddress)
	var macs []string
	for _, row := range rows {
		b, _ := row.Value.Bytes()
		if mac, ok := formatMAC(b); ok {
			macs = append(macs, mac)
		}
	}
	slices.Sort(macs)
	return slices.Compact(macs), err
}

// Stations reads the forwarding table of a VLAN-capable bridge: the addresses that it has
// learned, on all VLANs.
func (s *Session) Stations(ctx context.Context, n Numbering) ([]Station, error) {
	ports, err := s.Walk(ctx, dot1qTpFdbPort)
	if err != nil {
		return nil, err
	}
	statuses, err := s.Walk(ctx, dot1qTpFdbStatus)
	if err != nil {
		return nil, err
	}
	return joinStations(ports, statuses, n), nil
}

func joinStations(ports, statuses []Row, n Numbering) []Station {
	type key [7]uint32
	learned := map[key]bool{}
	for _, row := range statuses {
		if status, _ := row.Value.Int(); len(row.Index) == 7 && status == fdbLearned {
			learned[key(row.Index)] = true
		}
	}
	portOf := n.ofBridge()
	seen := map[Station]bool{}
	var found []Station
	for _, row := range ports {
		bridge, ok := row.Value.Int()
		if len(row.Index) != 7 || !learned[key(row.Index)] || !ok || bridge < 1 || bridge > math.MaxInt32 {
			continue
		}
		mac, ok := row.Index[1:].mac()
		station := Station{portOf(int(bridge)), mac}
		if ok && station.Port != 0 && !seen[station] {
			seen[station] = true
			found = append(found, station)
		}
	}
	return found
}
