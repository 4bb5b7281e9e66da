package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
)

// cmdline is what the node program reads of the kernel command line.
type cmdline map[string]string

// readCmdline reads /proc/cmdline.
func readCmdline() (cmdline, error) {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, fmt.Errorf("cannot read the kernel command line: %w", err)
	}
	return parseCmdline(string(text)), nil
}

// parseCmdline keeps the last value of each name; a word without "=" has value "".
func parseCmdline(text string) cmdline {
	c := cmdline{}
	for _, word := range strings.Fields(text) {
		name, value, _ := strings.Cut(word, "=")
		c[name] = value
	}
	return c
}

// address is the parameter ip=CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:AUTOCONF
// of the kernel (Documentation/admin-guide/nfs/nfsroot.rst).
type address struct {
	client   netip.Prefix
	server   netip.Addr
	gateway  netip.Addr // invalid if none
	hostname string
}

func (c cmdline) address() (address, error) {
	var a address
	fields := strings.Split(c["ip"], ":")
	refuse := func(what string) (address, error) {
		return a, fmt.Errorf("cannot use kernel parameter ip=%s: %s", c["ip"], what)
	}
	if len(fields) < 5 {
		return refuse("it must be CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME::off")
	}
	client, err := netip.ParseAddr(fields[0])
	if err != nil || !client.Is4() {
		return refuse("no client address")
	}
	mask := net.ParseIP(fields[3]).To4()
	if mask == nil {
		return refuse("no netmask")
	}
	ones, bits := net.IPMask(mask).Size()
	if bits != 32 {
		return refuse("the netmask is not one")
	}
	a.client = netip.PrefixFrom(client, ones)
	if a.server, err = netip.ParseAddr(fields[1]); err != nil {
		return refuse("no server address")
	}
	if fields[2] != "" {
		if a.gateway, err = netip.ParseAddr(fields[2]); err != nil {
			return refuse("the gateway is not an address")
		}
	}
	a.hostname = fields[4]
	return a, nil
}

// bootMAC is the hardware address of the interface that the node booted by
// (BOOTIF=01-aa-bb-..., the form of PXELINUX; some loaders write colons).
func (c cmdline) bootMAC() (net.HardwareAddr, error) {
	text := strings.ReplaceAll(c["BOOTIF"], "-", ":")
	text = strings.TrimPrefix(text, "01:")
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != 6 {
		return nil, fmt.Errorf("cannot use kernel parameter BOOTIF=%s: it must be 01- and a hardware address", c["BOOTIF"])
	}
	return mac, nil
}

// nfsRoot is the parameter nfsroot=SERVER:PATH[,OPTIONS].
func (c cmdline) nfsRoot() (server netip.Addr, path, options string, err error) {
	source, options, _ := strings.Cut(c["nfsroot"], ",")
	host, path, ok := strings.Cut(source, ":")
	if ok {
		server, err = netip.ParseAddr(host)
	}
	if !ok || err != nil || !strings.HasPrefix(path, "/") {
		return server, "", "", fmt.Errorf("cannot use kernel parameter nfsroot=%s: it must be SERVER:PATH[,OPTIONS]", c["nfsroot"])
	}
	return server, path, options, nil
}
