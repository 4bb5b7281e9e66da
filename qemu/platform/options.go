package platform

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/image/sign"
	"github.com/waltos/waltos/qemu/client"
	"github.com/waltos/waltos/qemu/machine"
)

// Options describe a lab. They travel as JSON to the process that runs it.
type Options struct {
	// Folder holds everything of this lab: disks, consoles, keys. A lab in use locks it.
	Folder string
	Image  Image
	Tools  Tools
	Client client.Program // the real walt client; may be empty

	// Address is where the ports of the appliance appear on this machine, a loopback
	// address; labs on different ones do not meet. Default 127.0.0.1.
	Address netip.Addr

	// Direct boots the kernel without firmware and boot loader, some seconds faster.
	Direct      bool
	SecureBoot  bool                // with a firmware that refuses what Image.Trust has not signed
	Accelerator machine.Accelerator // empty: what works

	Nodes      int   // BIOS nodes, booted by the iPXE of their card
	UEFINodes  int   // UEFI nodes, booted by the PXE of their firmware
	Memory     int   // of the appliance, MiB; default 768
	NodeMemory int   // default 384
	Growth     int64 // bytes added to the size of the disk image, for the data partition; default 4 GiB

	// Clock is what the clock of the appliance says when it starts, as "2001-01-01"; empty:
	// the time.
	Clock string

	// Site replaces the site file; @KEY@ stands for the public key of the lab.
	Site string
	// Isolated appliances reach nothing outside of the lab.
	Isolated bool
	// KeepDisk goes on with the disk of the last lab of this folder, if there is one: its
	// data partition stays, the rest is that of Image.
	KeepDisk bool

	// Patience is how long the appliance may take to be ready, and then a node to be
	// booted; default 5 minutes each.
	Patience time.Duration

	// Progress is told what happens, a line each; may be nil.
	Progress func(line string) `json:"-"`
}

// Image is what the builder made.
type Image struct {
	Disk    string // raw GPT disk
	Kernel  string // of the same, for a direct boot
	Initrd  string
	Command string          // kernel command line, slot and root hash included
	Trust   []sign.Variable // makes a firmware trust it, for Secure Boot
}

// Tools are the foreign files of a lab, from the lock.
type Tools struct {
	QEMU      machine.Program
	Firmware  string // OVMF_CODE_4M.fd
	Variables string // OVMF_VARS_4M.fd
	ROM       string // pxe-virtio.rom
	Secure    string // firmware with Secure Boot: OVMF_CODE_4M.secboot.fd
}

// Defaults of Options.
const (
	defaultMemory     = 768
	defaultNodeMemory = 384
	defaultGrowth     = 4 << 30
	defaultPatience   = 5 * time.Minute
)

// DefaultFolder is where a lab lives unless told otherwise.
func DefaultFolder() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cannot choose a folder for the lab: %w", err)
	}
	return filepath.Join(cache, "waltos", "lab"), nil
}

// complete fills in the defaults and checks the rest.
func (o *Options) complete() error {
	if o.Folder == "" {
		return errors.New("the folder of the lab is missing")
	}
	folder, err := filepath.Abs(o.Folder)
	if err != nil {
		return fmt.Errorf("cannot find the folder of the lab: %w", err)
	}
	o.Folder = folder
	if !o.Address.IsValid() {
		o.Address = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if !o.Address.Is4() || !o.Address.IsLoopback() {
		return fmt.Errorf("the address %s is not one of 127.0.0.0/8: a lab has no protection from others", o.Address)
	}
	if o.Nodes < 0 || o.UEFINodes < 0 || o.Nodes+o.UEFINodes > maxNodes {
		return fmt.Errorf("a lab has 0 to %d nodes", maxNodes)
	}
	if o.Direct && o.SecureBoot {
		return errors.New("a kernel that is booted directly is verified by no firmware: Direct and SecureBoot exclude each other")
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	for value, standard := range map[*int]int{&o.Memory: defaultMemory, &o.NodeMemory: defaultNodeMemory} {
		if *value == 0 {
			*value = standard
		}
	}
	if o.Growth == 0 {
		o.Growth = defaultGrowth
	}
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	return nil
}

// maxNodes keeps the last byte of the nodes' addresses unique.
const maxNodes = 200

// standardSite is the site file of a lab. The first card of the appliance leads out,
// the second to the switch.
const standardSite = `# The platform of a lab.

network "walt-net" {
  interface = "eth1"
  ip        = "192.168.152.1/24"
}

network "walt-out" {
  interface = "eth0"
  ip        = "dhcp"
}

ssh {
  authorized_keys = ["@KEY@"]
}

virtual_nodes {
  emulation = true
}
`

// site returns the site file for a public key. A given one is passed on as it is: how
// the appliance takes a wrong one is worth trying.
func (o *Options) site(publicKey string) (string, error) {
	if o.Site != "" {
		return strings.ReplaceAll(o.Site, "@KEY@", publicKey), nil
	}
	text := strings.ReplaceAll(standardSite, "@KEY@", publicKey)
	if _, err := hcl.ParseSite([]byte(text), "walt.hcl"); err != nil {
		return "", fmt.Errorf("cannot make the site file of the lab: %w", err)
	}
	return text, nil
}
