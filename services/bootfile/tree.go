package bootfile

import (
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/waltos/waltos/services/state"
)

// Tree finds the boot files of each client of the platform network, as the links of
// node-protocols 1.5 do.
type Tree struct {
	Network netip.Prefix // the platform network
	// Static holds the files of clients that have no image yet: the firmware of
	// Raspberry Pi boards, which hang if they get none. It need not exist.
	Static string
	State  interface{ Current() *state.Snapshot }
}

// Open opens a file of the client that has that address.
func (t *Tree) Open(client netip.Addr, name string) (*os.File, fs.FileInfo, error) {
	device, known := t.State.Current().ByIP(client.String())
	switch {
	case device.Type == "node" && device.BootDir != "":
		return Open(device.Root, device.BootDir, name)
	case !known && t.Network.Contains(client),
		device.Type == "node",
		device.Type == "unknown" && RaspberryPi(device.MAC):
		return Open(t.Static, t.Static, name)
	}
	return nil, nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// raspberryPrefixes begin the MAC addresses of Raspberry Pi boards.
var raspberryPrefixes = []string{
	"\x28\xcd\xc1", "\xb8\x27\xeb", "\xd8\x3a\xdd", "\xdc\xa6\x32", "\xe4\x5f\x01", "\x2c\xcf\x67", "\x88\xa2\x9e",
}

// RaspberryPi tells whether a MAC address is one of a Raspberry Pi board.
func RaspberryPi(mac string) bool {
	hw, err := net.ParseMAC(mac)
	return err == nil && len(hw) == 6 && slices.Contains(raspberryPrefixes, string(hw[:3]))
}
