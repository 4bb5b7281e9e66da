package vnode

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"

	"github.com/waltos/waltos/services/vnode/disk"
	"github.com/waltos/waltos/services/vnode/network"
)

// settings are what may change between two starts of a node.
type settings struct {
	gateway   string
	cores     int
	ram       int // MiB
	disks     []disk.Spec
	networks  []network.Spec
	bootDelay delay
}

// delay is a number of seconds, or randomDelay.
type delay int

const randomDelay delay = -1

// seconds returns how long to wait this time.
func (d delay) seconds() int {
	if d == randomDelay {
		return 1 + rand.IntN(10)
	}
	return int(d)
}

// Bounds of settings: what QEMU can do.
const (
	maxCores = 255
	maxRAM   = 1 << 22 // MiB
)

// defaults are those of the server's settings (node-protocols 6.2).
var defaults = map[string]string{
	"gateway": "", "cpu_cores": "4", "ram": "512M", "disks": "none", "networks": network.Platform, "boot_delay": "random",
}

// CheckSetting refuses the value of a setting that no node could run with; the names are
// those of command CONF.
func CheckSetting(attribute, value string) error { return new(settings).set(attribute, value) }

// set changes an attribute; the names are those of command CONF.
func (s *settings) set(attribute, value string) error {
	err := s.parse(attribute, value)
	if err != nil {
		return fmt.Errorf("cannot use %q as %s: %w", value, attribute, err)
	}
	return nil
}

func (s *settings) parse(attribute, value string) (err error) {
	switch attribute {
	case "gateway":
		if addr, err := netip.ParseAddr(value); value != "" && (err != nil || !addr.Is4()) {
			return errors.New("it is no IPv4 address")
		}
		s.gateway = value
	case "cpu_cores":
		cores, err := strconv.Atoi(value)
		if err != nil || cores < 0 || cores > maxCores {
			return fmt.Errorf("it is no number up to %d", maxCores)
		}
		s.cores = max(cores, 1) // the server's setting may be 0
	case "ram":
		ram, err := parseRAM(value)
		if err != nil {
			return err
		}
		s.ram = ram
	case "disks":
		disks, err := disk.Parse(value)
		if err != nil {
			return err
		}
		s.disks = disks
	case "networks":
		networks, err := network.Parse(value)
		if err != nil {
			return err
		}
		s.networks = networks
	case "boot_delay":
		if value == "random" {
			s.bootDelay = randomDelay
			return nil
		}
		seconds, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return errors.New("it is neither random nor a number of seconds")
		}
		s.bootDelay = delay(seconds)
	default:
		return errors.New("there is no such setting")
	}
	return nil
}

func parseRAM(value string) (int, error) {
	unit := 0
	number, gigabytes := strings.CutSuffix(value, "G")
	if gigabytes {
		unit = 1024
	} else if number, gigabytes = strings.CutSuffix(value, "M"); gigabytes {
		unit = 1
	}
	n, err := strconv.ParseUint(number, 10, 31)
	if unit == 0 || err != nil || n == 0 || int(n)*unit > maxRAM {
		return 0, errors.New("it is no size such as 512M or 1G")
	}
	return int(n) * unit, nil
}
