package snmp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// PoEPort is the index of a port in the power tables of a switch: group and port, or the
// port alone.
type PoEPort []uint32

// PoE is one way to control the power of ports.
type PoE struct {
	Name    string
	admin   OID // read and write
	power   OID
	on, off int
	// delivering is the value of power while a port feeds a device.
	delivering int
	indexes    int // of a row: group and port, or the port, whose number is that of LLDP
}

// PoEs returns the ways to control power, in order of trial: TP-Link comes first because
// the probes of others make its switches mute for a while.
func PoEs() []*PoE {
	return []*PoE{
		{"TPLinkPoE", oid("1.3.6.1.4.1.11863.6.56.1.1.2.1.1.2"), oid("1.3.6.1.4.1.11863.6.56.1.1.2.1.1.11"), 1, 0, 2, 1},
		{"StandardPoE", oid("1.3.6.1.2.1.105.1.1.1.3"), oid("1.3.6.1.2.1.105.1.1.1.6"), 1, 2, 3, 2},
		{"NetgearPoE", oid("1.3.6.1.4.1.4526.11.16.1.1.1.3"), oid("1.3.6.1.4.1.4526.11.16.1.1.1.6"), 1, 2, 3, 2},
	}
}

// Rows reads the ports of the power table; the error is ErrNoSuchObject if the switch does
// not have this variant.
func (p *PoE) Rows(ctx context.Context, s *Session) ([]PoEPort, error) {
	rows, err := s.Walk(ctx, p.admin)
	if err != nil {
		return nil, err
	}
	ports := make([]PoEPort, 0, len(rows))
	for _, row := range rows {
		if len(row.Index) == p.indexes {
			ports = append(ports, PoEPort(row.Index))
		}
	}
	return ports, nil
}

// Map reads which row of the power table is which interface.
func (p *PoE) Map(ctx context.Context, s *Session, rows []PoEPort) (map[int]PoEPort, error) {
	if p.Identity() {
		ports := map[int]PoEPort{}
		for _, row := range rows {
			if port, ok := portOf(OID(row)); ok {
				ports[port] = row
			}
		}
		return ports, nil
	}
	speeds, err := s.optional(ctx, ifSpeed)
	if err != nil {
		return nil, err
	}
	types, err := s.optional(ctx, ifType)
	if err != nil {
		return nil, err
	}
	ports := correlatePoE(interfacesOf(speeds, 1e7, 1e8, 1e9), interfacesOf(types, 6), rows)
	if ports == nil {
		return nil, &UncorrelatedError{s.target.Address}
	}
	return ports, nil
}

// Identity tells whether Map speaks of ports; else it speaks of interfaces.
func (p *PoE) Identity() bool { return p.indexes == 1 }

// UncorrelatedError is the error of a switch whose power table cannot be related to its
// ports.
type UncorrelatedError struct{ Address netip.Addr }

func (e *UncorrelatedError) Error() string {
	return fmt.Sprintf("WalT could not guess how to correlate PoE ports and LLDP ports on switch %s. Sorry.", e.Address)
}

// interfacesOf returns, in order, the interfaces that have one of some values in a column.
func interfacesOf(rows []Row, values ...int64) []int {
	var found []int
	for _, row := range rows {
		index, ok := portOf(row.Index)
		value, isInt := row.Value.Int()
		if ok && isInt && slices.Contains(values, value) {
			found = append(found, index)
		}
	}
	return found
}

// correlatePoE pairs the interfaces that have the speed of a copper port (fast), or the
// type of Ethernet, with the rows of a power table (node-protocols §5.4). It returns nil
// if no rule applies.
func correlatePoE(fast, ethernet []int, rows []PoEPort) map[int]PoEPort {
	if len(fast) == len(rows) {
		return pair(fast, rows)
	}
	if len(ethernet) > 0 && ethernet[len(ethernet)-1]-ethernet[0] == len(ethernet)-1 {
		return pair(ethernet, rows)
	}
	return pairGroups(fast, rows)
}

func pair(interfaces []int, rows []PoEPort) map[int]PoEPort {
	ports := map[int]PoEPort{}
	for i := range min(len(interfaces), len(rows)) {
		ports[interfaces[i]] = rows[i]
	}
	return ports
}

// pairGroups pairs each group of rows, all of the same size, with the next run of as many
// contiguous interfaces that begins at the first of them or after a gap.
func pairGroups(interfaces []int, rows []PoEPort) map[int]PoEPort {
	groups := slices.Collect(groupsOf(rows))
	if len(groups) == 0 || slices.ContainsFunc(groups, func(g []PoEPort) bool { return len(g) != len(groups[0]) }) {
		return nil
	}
	ports, size := map[int]PoEPort{}, len(groups[0])
	for run := range runsOf(interfaces) {
		if len(groups) == 0 || len(run) < size {
			continue
		}
		for i, row := range groups[0] {
			ports[run[i]] = row
		}
		groups = groups[1:]
	}
	if len(groups) > 0 {
		return nil
	}
	return ports
}

// groupsOf yields the rows of each group.
func groupsOf(rows []PoEPort) func(func([]PoEPort) bool) {
	return split(rows, func(a, b PoEPort) bool { return a[0] == b[0] })
}

// runsOf yields the runs of contiguous numbers.
func runsOf(numbers []int) func(func([]int) bool) {
	return split(numbers, func(a, b int) bool { return a+1 == b })
}

// split yields the longest parts of a list whose neighbours are together.
func split[T any](list []T, together func(a, b T) bool) func(func([]T) bool) {
	return func(yield func([]T) bool) {
		for start := 0; start < len(list); {
			end := start + 1
			for end < len(list) && together(list[end-1], list[end]) {
				end++
			}
			if !yield(list[start:end]) {
				return
			}
			start = end
		}
	}
}

// ErrNotPowered is the error of a port that is enabled and feeds nothing: switching it off
// would not switch off the device behind it.
var ErrNotPowered = errors.New("node seems not PoE-powered")

const (
	readBacks     = 5
	readBackPause = 100 * time.Millisecond
)

// Set switches a port on or off, and returns once the switch says that it did.
func (p *PoE) Set(ctx context.Context, s *Session, port PoEPort, on bool) error {
	admin, wanted := p.admin.with(port...), p.off
	if on {
		wanted = p.on
	} else if err := p.powered(ctx, s, port); err != nil {
		return err
	}
	if err := s.Set(ctx, admin, wanted); err != nil {
		return err
	}
	for range readBacks {
		v, err := s.Get(ctx, admin)
		if err != nil {
			return err
		}
		if n, ok := v.Int(); ok && n == int64(wanted) {
			return nil
		}
		select {
		case <-time.After(readBackPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("the switch accepts the command and does not follow it")
}

// powered fails with ErrNotPowered if a port is enabled and feeds nothing.
func (p *PoE) powered(ctx context.Context, s *Session, port PoEPort) error {
	v, err := s.Get(ctx, p.admin.with(port...))
	if err != nil {
		return err
	}
	if n, _ := v.Int(); n != int64(p.on) {
		return nil
	}
	if v, err = s.Get(ctx, p.power.with(port...)); err != nil {
		return err
	}
	if n, _ := v.Int(); n != int64(p.delivering) {
		return ErrNotPowered
	}
	return nil
}

var sysObjectID = oid("1.3.6.1.2.1.1.2.0")

// Kind reads what kind of device answers: its sysObjectID, "" if it does not say.
func (s *Session) Kind(ctx context.Context) (string, error) {
	v, err := s.Get(ctx, sysObjectID)
	if errors.Is(err, ErrNoSuchObject) {
		return "", nil
	}
	kind, _ := v.OID()
	return kind, err
}
