package system

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/supervisor/device"
	"github.com/waltos/waltos/supervisor/uevent"
)

// names gives disks and network interfaces their further names, apart from all else: reading a
// disk that is about to die takes long.
type names struct {
	tree  device.Tree
	links *device.Links
	say   func(format string, args ...any)
	queue chan uevent.Event
	lost  atomic.Bool // the queue was full
}

// manyEvents wait for a slow disk; what is beyond is found again by looking at all.
const manyEvents = 1024

// newNames names what is there, and what is told of.
func newNames(say func(format string, args ...any)) *names {
	tree := device.Tree{Sys: "/sys", Dev: "/dev"}
	n := &names{tree: tree, links: device.NewLinks(tree), say: say, queue: make(chan uevent.Event, manyEvents)}
	go n.run()
	n.tell(nil)
	return n
}

// tell passes an event of a disk or an interface on; nil: look at all. It never waits.
func (n *names) tell(event uevent.Event) {
	select {
	case n.queue <- event:
	default:
		n.lost.Store(true)
	}
}

func (n *names) run() {
	for event := range n.queue {
		if len(n.queue) == 0 && n.lost.Swap(false) {
			event = nil
		}
		if err := n.see(event); err != nil {
			n.say("%v", err)
		}
	}
}

func (n *names) see(event uevent.Event) error {
	switch {
	case len(event) == 0:
		failures := []error{n.links.Sync()}
		for _, d := range n.tree.List("net") {
			failures = append(failures, n.name(d))
		}
		return errors.Join(failures...)
	case event["ACTION"] == "remove":
		return n.links.Remove(event["DEVPATH"])
	}
	d, err := n.tree.Open(event["DEVPATH"])
	if err != nil {
		return nil // it has gone again
	}
	if event["SUBSYSTEM"] == "net" {
		return n.name(d)
	}
	switch event["ACTION"] {
	case "add", "change":
		return n.links.Add(d)
	}
	return nil
}

// name adds the predictable names of a network interface to the kernel's.
func (n *names) name(d *device.Device) error {
	link, err := netlink.LinkByName(d.Name())
	if err != nil {
		return nil // it has gone again
	}
	for _, name := range d.NetworkNames() {
		if err := netlink.LinkAddAltName(link, name); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("cannot name %s also %s: %w", d.Name(), name, err)
		}
	}
	return nil
}
