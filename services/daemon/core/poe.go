package core

import (
	"context"
	"errors"

	"github.com/waltos/waltos/services/daemon/db"
)

// PoEPort is a port of a switch that may feed a device.
type PoEPort struct {
	Switch db.Device // with the address and the settings snmp.version and snmp.community
	Port   int       // its number in LLDP
}

// PoE switches the power of ports of switches, through server-blocking. It records
// nothing: which ports are off, and why, is the business of its caller.
type PoE interface {
	// Switch switches all ports at the same time. The errors are those of the ports, in
	// their order (nil: done), in words that users are told, as "SNMP issue" and "node
	// seems not PoE-powered".
	Switch(ctx context.Context, ports []PoEPort, on bool) []error
}

var errNoPoE = errors.New("PoE control is not available on this server")

// noPoE is PoE where nothing can switch ports.
type noPoE struct{}

func (noPoE) Switch(_ context.Context, ports []PoEPort, _ bool) []error {
	errs := make([]error, len(ports))
	for i := range errs {
		errs[i] = errNoPoE
	}
	return errs
}
