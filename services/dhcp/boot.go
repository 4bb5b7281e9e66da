package dhcp

import (
	"bytes"
	"encoding/binary"
	"strings"

	"github.com/waltos/waltos/services/bootfile"
)

// What firmware is offered to boot; TFTP serves these names from the appliance.
const (
	fileBIOS   = "pxe/walt-x86-undionly.kpxe" // [C] node-protocols 1.2.4
	fileUEFI   = "pxe/snponly.efi"
	fileScript = "pxe/walt.ipxe" // turns a stock iPXE into one of WalT
)

// Client architectures of option 93 (RFC 4578, IANA registry).
const (
	archBIOS  = 0
	archBC    = 7 // x64 UEFI, as firmware says
	archX64   = 9 // x64 UEFI, as the registry says
	archUnset = -1
)

const (
	// classBIOS is the vendor class that WalT's own rules ask for.
	classBIOS = "PXEClient:Arch:00000:UNDI:002001"
	classPXE  = "PXEClient"
	// nodeClass begins the class of a device that says which node model it is.
	nodeClass = "walt.node."
	iPXEClass = "iPXE"
)

// raspberryMenu is option 43 for their firmware: PXE sub-option 9 (boot menu), one
// entry of type 0.
const raspberryMenu = "\x09\x14\x00\x00\x11Raspberry Pi Boot"

// boot is what a reply says of booting.
type boot struct {
	file   string // field file
	vendor string // option 60
	menu   string // option 43
}

// selectBoot applies node-protocols 1.2.4 and its extensions to UEFI and stock iPXE.
// The classes are compared as raw bytes: iPXE sends option 77 without the inner
// lengths of RFC 3004.
func selectBoot(vci, uci string, arch int, m mac) boot {
	if strings.HasPrefix(uci, "walt.node") {
		return boot{} // already runs our script
	}
	if vci == classBIOS && bootfile.RaspberryPi(m.String()) {
		return boot{vendor: classPXE, menu: raspberryMenu}
	}
	if uci == iPXEClass {
		return boot{file: fileScript}
	}
	if vci == classBIOS && arch == archBIOS {
		return boot{file: fileBIOS}
	}
	if strings.HasPrefix(vci, classPXE) && (arch == archBC || arch == archX64) {
		return boot{file: fileUEFI}
	}
	return boot{}
}

// firstArch returns the preferred architecture of option 93, or archUnset.
func firstArch(option []byte) int {
	if len(option) < 2 {
		return archUnset
	}
	return int(binary.BigEndian.Uint16(option))
}

// text makes an option a string that can travel: trailing zeros, which some clients
// add, and invalid UTF-8 are dropped.
func text(option []byte) string {
	return strings.ToValidUTF8(string(bytes.TrimRight(option, "\x00")), "")
}
