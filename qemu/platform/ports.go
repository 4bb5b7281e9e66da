package platform

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/waltos/waltos/qemu/machine"
)

// Port is a TCP port of the appliance that can be used from this machine.
type Port struct {
	Host    uint16 // on the address of the lab
	Guest   uint16
	Purpose string
}

// Ports are all of them. The client knows but the standard numbers of the first two;
// the last two are moved out of the range that takes a privilege to open.
var ports = []Port{
	{12345, 12345, "WalT API"},
	{12347, 12347, "WalT streams"},
	{8080, 80, "HTTP"},
	{2222, 22, "ssh"},
}

// Ports returns the ports of every lab.
func Ports() []Port { return append([]Port(nil), ports...) }

const (
	apiPort  = 12345
	httpPort = 8080
	sshPort  = 2222
)

func (o *Options) endpoint(port uint16) string { return netip.AddrPortFrom(o.Address, port).String() }

// forwards returns the ports for QEMU, after a look at whether they are free: QEMU's
// own message does not tell what to do.
func (o *Options) forwards() ([]machine.Forward, error) {
	var forwards []machine.Forward
	for _, p := range ports {
		listener, err := net.Listen("tcp", o.endpoint(p.Host))
		if err != nil {
			return nil, fmt.Errorf("cannot use port %d for %s: %w (another lab? choose another address, such as 127.0.0.2)", p.Host, p.Purpose, err)
		}
		listener.Close()
		forwards = append(forwards, machine.Forward{Host: netip.AddrPortFrom(o.Address, p.Host), Guest: p.Guest})
	}
	return forwards, nil
}
