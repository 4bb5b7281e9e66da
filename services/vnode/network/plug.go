package network

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/atomicfile"
)

// Card is a network card that is plugged in, at its end for QEMU.
type Card struct {
	MAC string
	Tap *os.File
}

// Close unplugs cards, unless another process holds their taps.
func Close(cards []Card) {
	for _, c := range cards {
		c.Tap.Close() // nothing was written
	}
}

// ownAlias marks the bridges made here: no others are removed.
const ownAlias = "network of WalT virtual nodes"

// Plug makes the cards of a node. Its MAC is the one on the platform; those on other
// networks are kept in a folder. The caller closes the taps, and calls Unplug after.
func Plug(folder, node, mac string, specs []Spec) (cards []Card, err error) {
	unlock, err := lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	defer func() {
		if err != nil {
			Close(cards)
			err = errors.Join(err, sweep())
		}
	}()
	if err := sweep(); err != nil {
		return nil, err
	}
	for _, spec := range specs {
		card := Card{MAC: mac}
		if spec.Name != Platform {
			if card.MAC, err = keptMAC(folder, spec.Name); err != nil {
				return cards, err
			}
		}
		if card.Tap, err = plug(spec, node); err != nil {
			return cards, fmt.Errorf("cannot plug the node into network %s: %w", spec.Name, err)
		}
		cards = append(cards, card)
	}
	return cards, nil
}

// Unplug removes the bridges that no node is plugged into.
func Unplug() error {
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	return sweep()
}

// lock keeps other programs of virtual nodes from the bridges of this network namespace.
func lock() (unlock func(), err error) {
	f, err := os.Open("/proc/self/ns/net")
	if err == nil {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			f.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot lock the networks of virtual nodes: %w", err)
	}
	return func() { f.Close() }, nil
}

// sweep removes our bridges without ports.
func sweep() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("cannot list the networks of virtual nodes: %w", err)
	}
	used := map[int]bool{}
	for _, l := range links {
		used[l.Attrs().MasterIndex] = true
	}
	var failures []error
	for _, l := range links {
		if l.Attrs().Alias == ownAlias && !used[l.Attrs().Index] {
			if err := netlink.LinkDel(l); err != nil {
				failures = append(failures, fmt.Errorf("cannot remove network %s: %w", l.Attrs().Name, err))
			}
		}
	}
	return errors.Join(failures...)
}

// plug makes a tap in the bridge of a network.
func plug(spec Spec, node string) (*os.File, error) {
	bridge, err := bridge(spec.Name)
	if err != nil {
		return nil, err
	}
	tap, name, err := openTap()
	if err != nil {
		return nil, err
	}
	if err := join(name, bridge, spec, node); err != nil {
		tap.Close()
		return nil, err
	}
	return tap, nil
}

// bridge returns that of a network; all but the platform's are made when needed.
func bridge(name string) (netlink.Link, error) {
	found, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	switch {
	case err == nil && found.Type() != "bridge":
		return nil, fmt.Errorf("interface %s of this machine is no bridge", name)
	case err == nil:
		return found, nil
	case !errors.As(err, &missing):
		return nil, err
	case name == Platform:
		return nil, fmt.Errorf("this machine has no bridge %s", name)
	}
	made := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	made.Name = name
	if err := netlink.LinkAdd(made); err != nil {
		return nil, fmt.Errorf("cannot make the bridge: %w", err)
	}
	// The alias comes first: without it nobody would remove the bridge.
	if err := errors.Join(netlink.LinkSetAlias(made, ownAlias), netlink.LinkSetUp(made)); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot make the bridge: %w", err), netlink.LinkDel(made))
	}
	return made, nil
}

// openTap makes a tap with a name that the kernel chooses. It lasts as long as it is open.
func openTap() (*os.File, string, error) {
	fail := func(err error) (*os.File, string, error) { return nil, "", fmt.Errorf("cannot make a tap: %w", err) }
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fail(err)
	}
	f := os.NewFile(uintptr(fd), "tap")
	request, err := unix.NewIfreq("vnode%d")
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		f.Close()
		return fail(err)
	}
	return f, request.Name(), nil
}

// join puts a tap in a bridge, with its restrictions.
func join(name string, bridge netlink.Link, spec Spec, node string) error {
	tap, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetAlias(tap, fmt.Sprintf("tap to %s of %s", spec.Name, node)); err != nil {
		return fmt.Errorf("cannot name the tap: %w", err)
	}
	if err := spec.restrict(tap); err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(tap, bridge); err != nil {
		return fmt.Errorf("cannot put the tap in the bridge: %w", err)
	}
	if err := netlink.LinkSetUp(tap); err != nil {
		return fmt.Errorf("cannot bring the tap up: %w", err)
	}
	return nil
}

// keptMAC returns the address of a node's card on a network, which it keeps.
func keptMAC(folder, network string) (string, error) {
	path := filepath.Join(folder, network+".mac")
	text, err := os.ReadFile(path)
	if err == nil {
		mac, err := net.ParseMAC(strings.TrimSpace(string(text)))
		if err == nil && len(mac) == 6 {
			return mac.String(), nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("cannot read the MAC address on network %s: %w", network, err)
	}
	mac := net.HardwareAddr{0x52, 0x54, 0, 0, 0, 0}
	rand.Read(mac[3:])
	mac[3] &= 0x7f
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", fmt.Errorf("cannot keep the MAC address on network %s: %w", network, err)
	}
	if err := atomicfile.Write(path, []byte(mac.String()+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("cannot keep the MAC address on network %s: %w", network, err)
	}
	return mac.String(), nil
}
