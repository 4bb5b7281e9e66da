package tests

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/waltos/waltos/qemu/platform"
)

// hardwareSite names the platform interface by the address of a card that is plugged later, and
// has a health goal that the test will let fail.
const hardwareSite = `
network "walt-net" {
  interface = "enx5254000000ff"
  ip        = "192.168.152.1/24"
}
network "walt-out" {
  interface = "eth0"
  ip        = "dhcp"
}
ssh {
  authorized_keys = ["@KEY@"]
}
kernel {
  sysctl = {
    "vm.swappiness"  = 7
    "net.no.such"    = 1
  }
  module "dummy" {
    options = { numdummies = 3 }
  }
  module "softdog" {
    load = true
  }
}
watchdog {
  timeout = "30s"
  grace   = "0s"
  goal    = ["sacrifice"]
}
`

// TestHardware boots from the disk, on a machine whose battery is empty and whose
// platform interface does not exist: the platform comes up for virtual nodes only. Then
// devices come and go, a person gives the platform another address, PID 1 dies, and the
// machine is reset by its watchdog.
func TestHardware(t *testing.T) {
	l := start(t, platform.Options{Site: hardwareSite, Clock: "2001-01-01"})
	for _, test := range []struct {
		name string
		run  func(*lab)
	}{
		{"virtual platform", virtualPlatform},
		{"clock", clockIsRestored},
		{"kernel settings", kernelIsSet},
		{"disk comes and goes", diskComesAndGoes},
		{"network card comes and goes", cardComesAndGoes},
		{"network form", networkForm},
		{"crash of PID 1", crashIsKept},
		{"watchdog", watchdogResets},
	} {
		if !t.Run(test.name, func(t *testing.T) { test.run(l.on(t)) }) {
			break
		}
	}
}

func virtualPlatform(l *lab) {
	l.eventually("health", l.healthy)
	l.want(l.walt("device", "show"), "walt-server", "192.168.152.1")
	l.want(l.root("waltctl logs walt-server-netconfig"), "enx5254000000ff")
}

func clockIsRestored(l *lab) {
	l.want(l.root("waltctl logs supervisor --boot -n 0 | grep 'clock said'"), "the clock said 2001-01-01", "before the system was built")
	l.want(l.root("cat /sys/class/rtc/rtc0/date"), "20")
	if year := strings.TrimSpace(l.root("cut -d- -f1 /sys/class/rtc/rtc0/date")); year < "2026" {
		l.t.Errorf("the real-time clock is in %s", year)
	}
	l.want(l.root("waltctl logs time-sync; stat -c %y /var/lib/walt/clock"), "no time servers", "202")
}

func kernelIsSet(l *lab) {
	l.want(l.root("cat /proc/sys/vm/swappiness"), "7")
	// Drivers are loaded beside the start of the units; what they bring can be set after that.
	l.eventually("the report of an unknown setting", func(ctx context.Context) error {
		const want = `cannot set net.no.such to "1": the kernel does not know it`
		out, err := l.SSH(ctx, "waltctl logs supervisor -n 0")
		if err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("the log is\n%s", out)
		}
		return err
	})
	l.want(l.root("ls /sys/class/net; cat /proc/modules"), "dummy2", "softdog")
	l.want(l.root("cat /sys/module/firmware_class/parameters/path"), "/var/lib/walt/firmware")
	l.want(l.root("ls -l /dev/disk/*"), "virtio-waltos -> ../../vda", "virtio-waltos-part1 -> ../../vda1", "by-partlabel", "root-a -> ", "by-label", "data -> ")
	l.want(l.root("ip link show dev eth0"), "altname enp0s", "altname enx525400000001")
}

// monitor gives the machine an order of QMP.
func (l *lab) monitor(command string, arguments map[string]any) {
	l.t.Helper()
	if err := l.Appliance.Machine().Monitor.Execute(l.t.Context(), command, arguments, nil); err != nil {
		l.t.Fatal(err)
	}
}

func diskComesAndGoes(l *lab) {
	const link = "/dev/disk/by-id/virtio-spare-disk"
	l.monitor("blockdev-add", map[string]any{"driver": "null-co", "node-name": "spare", "size": 64 << 20, "read-zeroes": true})
	l.monitor("device_add", map[string]any{"driver": "virtio-blk-pci", "id": "spare-disk", "drive": "spare", "serial": "spare-disk", "bus": "slot0"})
	l.eventually("the link of the disk", func(ctx context.Context) error {
		_, err := l.SSH(ctx, "test -b "+link)
		return err
	})
	l.monitor("device_del", map[string]any{"id": "spare-disk"})
	l.eventually("the end of the link", func(ctx context.Context) error {
		_, err := l.SSH(ctx, "test ! -L "+link)
		return err
	})
}

// cardComesAndGoes: a card whose further name is in the site file becomes a port of the platform
// while it is there. The driver of the second one is loaded for it.
func cardComesAndGoes(l *lab) {
	ports := func(want bool) {
		l.t.Helper()
		l.eventually("the change of the ports of walt-net", func(ctx context.Context) error {
			out, err := l.SSH(ctx, "ip link show master walt-net")
			if err == nil && (strings.Contains(out, "altname enx5254000000ff") != want || strings.Contains(out, "walt-net-dummy") == want) {
				err = fmt.Errorf("they are\n%s", out)
			}
			return err
		})
	}
	for i, driver := range []string{"virtio-net-pci", "e1000e"} {
		network, card := fmt.Sprintf("spare-net%d", i), fmt.Sprintf("spare-card%d", i)
		l.monitor("netdev_add", map[string]any{"type": "hubport", "id": network, "hubid": 1})
		l.monitor("device_add", map[string]any{"driver": driver, "id": card, "netdev": network, "mac": "52:54:00:00:00:ff", "bus": "slot1", "romfile": ""})
		ports(true)
		l.monitor("device_del", map[string]any{"id": card})
		ports(false)
		l.eventually("the end of the card", func(ctx context.Context) error {
			err := l.Appliance.Machine().Monitor.Execute(ctx, "device_del", map[string]any{"id": card}, nil)
			if err == nil || !strings.Contains(err.Error(), "not found") {
				return fmt.Errorf("the machine still has it: %v", err)
			}
			return nil
		})
	}
	l.want(l.root("waltctl logs walt-server-netconfig"), "Interface enx5254000000ff has gone: the platform has virtual nodes only until it appears")
	l.eventually("health", l.healthy)
}

// networkForm: a person at the serial line gives the platform another address. It is kept, see
// [crashIsKept].
func networkForm(l *lab) {
	s := l.terminal()
	defer s.detach()
	s.keys("\r")
	s.await(`S Shell`)
	answer := func(question, keys string) {
		l.t.Helper()
		s.await(question)
		s.keys(keys + "\r")
	}
	const replace = "\x15" // Ctrl-U
	s.keys("n")
	answer(`Interface of the platform .*: enx5254000000ff`, "")
	answer(`Address of the platform .*: 192\.168\.152\.1/24`, replace+"192.168.153.300/24")
	s.await(`ip is "192\.168\.153\.300/24"; write an IPv4 address`)
	s.keys("q")
	s.await(`S Shell`)
	s.keys("n")
	answer(`Interface of the platform`, "")
	answer(`Address of the platform`, replace+newAddress)
	answer(`Interface of the way out .*: eth0`, "")
	answer(`Address of the way out .*: dhcp`, "")
	s.await(`\+ +ip += "` + newAddress + `"`)
	s.keys("q")
	answer(`To apply type yes:`, "yes")
	s.await(`In effect: /etc/walt/walt.hcl`)
	s.keys("q")
	s.await(`S Shell`)
	s.keys("q")
	l.hasNewAddress()
}

// newAddress is what the platform gets.
const newAddress = "192.168.153.1/24"

func (l *lab) hasNewAddress() {
	l.t.Helper()
	l.eventually("the new address", func(ctx context.Context) error {
		out, err := l.SSH(ctx, "ip -4 -o addr show walt-net")
		if err == nil && (!strings.Contains(out, newAddress) || strings.Contains(out, "192.168.152.1")) {
			err = fmt.Errorf("it has %s", out)
		}
		return err
	})
}

// crashIsKept: when PID 1 dies, the firmware keeps what it died of, and the next boot tells.
func crashIsKept(l *lab) {
	console := l.Appliance.Console()
	at := console.Position()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	_, err := l.SSH(ctx, "kill -QUIT 1")
	if err != nil {
		l.t.Logf("the order did not come back: %v", err)
	}
	for _, words := range []string{`walt: FAILED: PID 1 has crashed`, `walt: SIGQUIT: quit`, `walt: the last boot has ended badly: see waltctl logs pstore`, `walt: ready`} {
		if _, at, err = console.Wait(ctx, at, regexp.MustCompile(words)); err != nil {
			l.t.Fatal(err)
		}
	}
	l.eventually("health", l.healthy)
	l.want(l.root("waltctl logs pstore --boot=-1"), "walt: FAILED: PID 1 has crashed; report this defect", "walt: SIGQUIT: quit", "goroutine ")
	if left := l.root("ls /sys/fs/pstore"); left != "" {
		l.t.Errorf("the firmware still has\n%s", left)
	}
	l.hasNewAddress()
}

// watchdogResets: the health goal fails for good. It is the last test of the machine: the unit
// that fails is there after the reset, too.
func watchdogResets(l *lab) {
	l.want(l.root("waltctl status"), "watchdog: on (", ", 30s)")
	l.want(l.root("waltctl watchdog off"), "off by request")
	l.root(`mkdir -p /etc/walt/units.d; echo 'unit "sacrifice" { exec = ["/usr/bin/false"] }' > /etc/walt/units.d/sacrifice.hcl`)
	l.root("waltctl apply --yes --timeout 2s || true")
	l.eventually("the failure", func(ctx context.Context) error {
		units, err := l.units(ctx)
		if err == nil && units["sacrifice"].Restarts == 0 {
			err = errors.New("it has not failed yet")
		}
		return err
	})
	if events := l.Appliance.Machine().Events(); slices.Contains(events, "WATCHDOG") {
		l.t.Fatalf("reset during maintenance: %v", events)
	}
	l.SSH(l.t.Context(), "waltctl watchdog on") // the reset may come before the answer
	l.eventually("the reset", func(context.Context) error {
		if events := l.Appliance.Machine().Events(); !slices.Contains(events, "WATCHDOG") {
			return fmt.Errorf("there was only %v", events)
		}
		return nil
	})
}
