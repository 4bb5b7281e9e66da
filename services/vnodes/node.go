package vnodes

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Node is a virtual node as it shall run.
type Node struct {
	MAC, IP, Model    string
	ServerIP, Netmask string
	// Acceleration is how its machine is run: "kvm" or "tcg". It has an effect at the next
	// start of the process.
	Acceleration string
	Settings     Settings
}

// Settings are what has an effect at the next start of the machine of a node.
type Settings struct {
	Name      string
	Gateway   string // "" for none
	CPUCores  string
	RAM       string
	Disks     string
	Networks  string
	BootDelay string
}

// value is a setting as command CONF calls it (node-protocols §6.4).
type value struct{ attribute, value string }

func (s Settings) values() []value {
	return []value{
		{"hostname", s.Name}, {"gateway", s.Gateway}, {"cpu_cores", s.CPUCores}, {"ram", s.RAM}, {"disks", s.Disks},
		{"networks", s.Networks}, {"boot_delay", s.BootDelay},
	}
}

func (v value) command() string { return "CONF " + v.attribute + " " + v.value }

// identity is what a process cannot change.
type identity struct{ mac, ip, model, serverIP, netmask string }

func (n Node) identity() identity { return identity{n.MAC, n.IP, n.Model, n.ServerIP, n.Netmask} }

// arguments are those of walt-virtual-node (node-protocols §6.2).
func (n Node) arguments() []string {
	return []string{
		"--hostname", n.Settings.Name, "--mac", n.MAC, "--ip", n.IP, "--model", n.Model, "--server-ip", n.ServerIP,
		"--cpu-cores", n.Settings.CPUCores, "--ram", n.Settings.RAM, "--disks", n.Settings.Disks, "--networks", n.Settings.Networks,
		"--netmask", n.Netmask, "--gateway", n.Settings.Gateway, "--boot-delay", n.Settings.BootDelay,
		"--acceleration", n.Acceleration, "--managed",
	}
}

// check refuses what could be taken for something else in an argument or a command.
func (n Node) check() error {
	refuse := func(what, value string) error {
		return fmt.Errorf("cannot run virtual node %q: its %s is %q", n.Settings.Name, what, value)
	}
	if mac, err := net.ParseMAC(n.MAC); err != nil || mac.String() != n.MAC {
		return refuse("MAC address", n.MAC)
	}
	for _, address := range []string{n.IP, n.ServerIP, n.Netmask} {
		if _, err := netip.ParseAddr(address); err != nil {
			return refuse("address", address)
		}
	}
	words := append(n.Settings.values(), value{"model", n.Model}, value{"acceleration", n.Acceleration})
	for _, word := range words {
		empty := word.value == "" && word.attribute != "gateway"
		if empty || strings.HasPrefix(word.value, "-") || strings.ContainsFunc(word.value, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return refuse(word.attribute, word.value)
		}
	}
	return nil
}

// escape is what the console of QEMU takes for the start of a command; two of them are one
// for the guest.
const escape = 0x01

// inputLine is the command that types on a console.
func inputLine(data []byte) string {
	if len(data) == 1 && data[0] == escape {
		data = []byte{escape, escape}
	}
	return "INPUT " + base64.StdEncoding.EncodeToString(data)
}
