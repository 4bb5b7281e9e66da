package device

import (
	"fmt"
	"strconv"
	"strings"
)

// NetworkNames are the predictable names of a wired network interface: where it is on the
// board, in which slot, on which bus, and its address, as far as the machine tells. None for
// interfaces without hardware.
func (d *Device) NetworkNames() (names []string) {
	const ethernet = "1" // ARPHRD_ETHER
	if d.Attribute("type") != ethernet || d.Variables["DEVTYPE"] != "" {
		return nil // DEVTYPE is of wlan, bridge, vlan …
	}
	bus := d.parent()
	if bus == nil || strings.HasPrefix(d.path, "/devices/virtual/") {
		return nil
	}
	pci := d.above("pci")
	if pci != nil {
		if usb := d.usb(); usb != nil {
			if path := pci.pciName(); path != "" {
				if tail := d.usbName(); tail != "" {
					names = append(names, "en"+path+tail)
				}
			}
		} else {
			port := d.port()
			for _, attribute := range []string{"acpi_index", "index"} { // firmware of now, of then
				if n, err := strconv.Atoi(pci.Attribute(attribute)); err == nil && n > 0 && n < 1<<14 {
					names = append(names, fmt.Sprintf("eno%d%s", n, port))
					break
				}
			}
			if path := pci.pciName(); path != "" {
				names = append(names, "en"+path+port)
			}
		}
	}
	const permanent = "0" // NET_ADDR_PERM
	if address := strings.ReplaceAll(d.Attribute("address"), ":", ""); len(address) == 12 && d.Attribute("addr_assign_type") == permanent {
		if _, err := strconv.ParseUint(address, 16, 48); err == nil {
			names = append(names, "enx"+address)
		}
	}
	return names
}

// port tells the ports of one PCI function apart.
func (d *Device) port() string {
	if n, err := strconv.Atoi(d.Attribute("dev_port")); err == nil && n > 0 {
		return fmt.Sprintf("d%d", n)
	}
	return ""
}

// pciName is the address of a PCI device as interfaces have it: [P domain] p bus s slot
// [f function].
func (d *Device) pciName() string {
	if !pciAddress.MatchString(d.Name()) {
		return ""
	}
	var domain, bus, slot, function uint
	if _, err := fmt.Sscanf(d.Name(), "%x:%x:%x.%x", &domain, &bus, &slot, &function); err != nil {
		return ""
	}
	name := fmt.Sprintf("p%ds%d", bus, slot)
	if domain > 0 {
		name = fmt.Sprintf("P%d%s", domain, name)
	}
	if function > 0 || d.multifunction() {
		name += fmt.Sprintf("f%d", function)
	}
	return name
}

// multifunction reads the header type of the configuration space (PCI 3.0 §6.2.1).
func (d *Device) multifunction() bool {
	config, err := d.read("config")
	const headerType = 0x0e
	return err == nil && len(config) > headerType && config[headerType]&0x80 != 0
}

// usbName is u PORT [u PORT]… [c CONFIGURATION] [i INTERFACE] of a USB interface.
func (d *Device) usbName() string {
	for up := d.above("usb"); up != nil; up = up.parent() {
		match := usbPort.FindStringSubmatch(up.Name())
		if match == nil {
			continue
		}
		ports, rest, _ := strings.Cut(match[1], ":")
		configuration, number, _ := strings.Cut(rest, ".")
		name := "u" + strings.ReplaceAll(ports, ".", "u")
		if configuration != "1" {
			name += "c" + configuration
		}
		if number != "0" {
			name += "i" + number
		}
		return name
	}
	return ""
}
