package vnode

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// host is what the architecture of this machine makes of a virtual machine.
type host struct {
	program               string // QEMU
	board                 string
	card                  string // device of a network card, without its options
	kernelArguments       string // added
	manufacturer, product string // as the firmware shows them: the boot scripts of images go by them
}

func thisHost() host {
	if runtime.GOARCH == "arm64" {
		return host{
			program: "qemu-system-aarch64", board: "virt-6.0", card: "virtio-net-device",
			kernelArguments: "sysctl.abi.cp15_barrier=2 sysctl.abi.setend=2",
			manufacturer:    "QEMU", product: "QEMU 6.0 ARM Virtual Machine",
		}
	}
	return host{
		program: "qemu-system-x86_64", board: "pc", card: "virtio-net-pci",
		manufacturer: "QEMU", product: "Standard PC (i440FX + PIIX, 1996)",
	}
}

// usbPorts returns the ports to attach, below the only bus of the board that has them.
func (h host) usbPorts(wanted bool) ([]string, error) {
	if !wanted {
		return nil, nil
	}
	model, err := os.ReadFile("/proc/device-tree/model")
	if err != nil || !strings.HasPrefix(string(model), "Raspberry Pi 3 Model B Plus") {
		return nil, fmt.Errorf("cannot attach USB ports: this machine is no Raspberry Pi 3B+ (leave --attach-usb out)")
	}
	return []string{"1.1.2", "1.1.3", "1.2", "1.3"}, nil
}
