package core

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/settings"
	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/images"
	"github.com/waltos/waltos/services/vnodes"
)

// Machines run the machines of virtual nodes, apart from the daemon: *vnodes.Client.
type Machines interface {
	Reconcile(ctx context.Context, wanted []vnodes.Node) error
	Kill(ctx context.Context, mac string) error
	Input(ctx context.Context, mac string, data []byte) error
	Console(ctx context.Context, taken uint64) (vnodes.Batch, error)
}

// noMachines is a platform without any.
type noMachines struct{}

var errNoMachines = errors.New("this server runs no virtual nodes")

func (noMachines) Reconcile(context.Context, []vnodes.Node) error { return errNoMachines }
func (noMachines) Kill(context.Context, string) error             { return errNoMachines }
func (noMachines) Input(context.Context, string, []byte) error    { return errNoMachines }
func (noMachines) Console(ctx context.Context, _ uint64) (vnodes.Batch, error) {
	<-ctx.Done()
	return vnodes.Batch{}, ctx.Err()
}

const (
	// virtualModel is the model of virtual nodes.
	virtualModel = "pc-x86-64"
	// consoleStream is the log stream of the consoles of virtual nodes.
	consoleStream = "virtualconsole"
	// machinesTimeout bounds the wait for machines to begin or to end.
	machinesTimeout = mountTimeout + 30*time.Second
	consoleRetry    = 100 * time.Millisecond
)

// createVnode makes a virtual node, which boots the user's image of its model.
func (c *call) createVnode() (any, error) {
	if c.Acceleration() == "" {
		return c.fail(&text.Refusal{Text: text.NoVirtualization}, false)
	}
	name := c.text("node_name")
	if err := c.registry.View().CheckNewName(name); err != nil {
		return c.fail(err, false)
	}
	user, err := c.user()
	if err != nil {
		return c.fail(err, false)
	}
	stored, err := c.defaultImage(virtualModel)
	if err != nil {
		return c.fail(err, false)
	}
	image := preferredName(stored, virtualModel)
	saved, err := c.saveDefault(user, stored, image)
	if err != nil {
		return c.fail(err, false)
	}
	if saved {
		c.out(fmt.Sprintf("Default image for %s was saved as \"%s\" in your working set.\n", virtualModel, image))
	}
	c.busy("Registering virtual node")
	err = c.locked(func() error { return c.registerVirtual(name, registry.FullImageName(user, image)) })
	if err != nil {
		return c.fail(err, false)
	}
	c.settleMachines(c)
	c.busy("")
	c.out(fmt.Sprintf("Node %s is now booting your image \"%s\".\n", name, image))
	c.out(fmt.Sprintf("Use `walt node boot %s <other-image>` if needed.\n", name))
	return true, nil
}

// defaultImage finds the default image of a model, and gets it from a registry if there is
// none here.
func (c *call) defaultImage(model string) (images.Image, error) {
	full := registry.DefaultImage(model)
	if stored, there := c.Images.ByName(full); there {
		return stored, nil
	}
	c.busy(fmt.Sprintf("Downloading default image for \"%s\"", model))
	if err := c.download(c, full, c.needAccount); err != nil {
		return images.Image{}, err
	}
	stored, there := c.Images.ByName(full)
	if !there {
		return stored, fmt.Errorf("image %s was just removed", full)
	}
	return stored, nil
}

// saveDefault gives a user a default image under a name, if he has no image of that name.
func (c *call) saveDefault(user string, stored images.Image, name string) (saved bool, err error) {
	full := registry.FullImageName(user, name)
	err = c.locked(func() error {
		if _, there := c.Images.ByName(full); there {
			return nil
		}
		saved = true
		return c.tag(stored.ID, full)
	})
	return saved, err
}

// registerVirtual records a new virtual node. writing must be held.
func (c *call) registerVirtual(name, image string) error {
	v := c.registry.View()
	if err := v.CheckNewName(name); err != nil { // since it was checked
		return err
	}
	ip, found := v.FreeIP()
	if !found {
		return text.Refuse("Failed: no address of the WalT network is free.\n")
	}
	sighting := registry.Sighting{VCI: "walt.node." + virtualModel, IP: ip, MAC: c.freeMAC(rand.Reader), Name: name}
	change, err := v.Register(sighting, func(string) bool { return true })
	if err != nil {
		return err
	}
	change.Device.Virtual, change.Device.Image = true, image
	return c.record(c, change)
}

// freeMAC makes an address for a virtual machine that no device has, nor one's end of the
// VPN (node-protocols 6.1). A random source that fails is none.
func (d *Daemon) freeMAC(random io.Reader) string {
	v := d.registry.View()
	for {
		mac := net.HardwareAddr{0x52, 0x54, 0, 0, 0, 0}
		if _, err := io.ReadFull(random, mac[3:]); err != nil {
			panic(err)
		}
		if v.ByMAC(mac.String()) == nil && !d.tables.isVPN(mac.String()) {
			return mac.String()
		}
	}
}

// removeVnode ends the machine of a virtual node, and forgets the node.
func (c *call) removeVnode() (any, error) {
	d, err := c.registry.View().NodeNamed(c.text("node_name"))
	if err == nil && !d.Virtual {
		err = text.NotVirtual(d.Name)
	}
	if err != nil {
		return c.fail(err, false)
	}
	return c.forgetDevice(d)
}

// vnodeConsoleInput types on the console of a virtual node. As with a keyboard, nobody is
// told that no machine runs.
func (c *call) vnodeConsoleInput() (any, error) {
	data, _ := c.value("buf").([]byte)
	if d := c.registry.View().ByMAC(strings.ToLower(c.text("node_mac"))); d != nil && d.Virtual {
		_ = c.Machines.Input(c, d.MAC, data)
	}
	return nil, nil
}

// settleMachines waits, for a bounded time, until machines run as the registry wants.
func (d *Daemon) settleMachines(ctx context.Context) {
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), machinesTimeout)
	defer cancel()
	if err := d.machines.settle(within); err != nil {
		d.Print("virtual nodes take long to begin or to end: %v", err)
	}
}

// machinesConnected is called when the service that runs machines may be one that knows
// nothing.
func (d *Daemon) machinesConnected() {
	d.machinesUnknown.Store(true)
	d.machines.poke()
}

// runMachines makes the machines of virtual nodes run as the registry wants.
func (d *Daemon) runMachines(ctx context.Context) {
	wanted := d.wantedMachines()
	if !d.machinesUnknown.Swap(false) && slices.Equal(wanted, d.machinesAsked) {
		return
	}
	if slices.ContainsFunc(wanted, func(n vnodes.Node) bool {
		return !slices.ContainsFunc(d.machinesAsked, func(old vnodes.Node) bool { return old.MAC == n.MAC })
	}) {
		d.bootable(ctx)
	}
	d.machinesAsked = wanted
	if err := d.Machines.Reconcile(ctx, wanted); err != nil && ctx.Err() == nil {
		d.Print("cannot run all virtual nodes: %v", err)
		d.machinesUnknown.Store(true)
		d.retryMachines()
	}
}

// retryMachines has the machines looked at once more later. It is used by machines only.
func (d *Daemon) retryMachines() {
	if d.machinesRetry != nil {
		d.machinesRetry.Stop() // one is enough
	}
	d.machinesRetry = time.AfterFunc(reconcileRetry, d.machines.poke)
}

// wantedMachines returns the virtual nodes as they shall run: none where they cannot.
func (d *Daemon) wantedMachines() []vnodes.Node {
	v := d.registry.View()
	virtual := slices.DeleteFunc(slices.Clone(v.Nodes()), func(node *registry.Device) bool { return !node.Virtual || node.IP == "" })
	if len(virtual) == 0 {
		return nil
	}
	acceleration := d.Acceleration()
	if acceleration == "" {
		if !d.machinesRefused {
			d.Print("virtual nodes are not started: %s", strings.TrimSpace(text.NoVirtualization))
		}
		d.machinesRefused = true
		d.retryMachines() // drivers may come late
		return nil
	}
	d.machinesRefused = false
	wanted := make([]vnodes.Node, len(virtual))
	for i, node := range virtual {
		conf := settings.Effective(v, node)
		set := func(name string) string { return fmt.Sprint(conf[name]) }
		wanted[i] = vnodes.Node{
			MAC: node.MAC, IP: node.IP, Model: node.Model, Acceleration: acceleration,
			ServerIP: v.Network.Addr().String(), Netmask: v.Netmask(),
			Settings: vnodes.Settings{
				Name: node.Name, Gateway: v.Gateway(node), CPUCores: set("cpu.cores"), RAM: set("ram"), Disks: set("disks"),
				Networks: set("networks"), BootDelay: set("boot.delay"),
			},
		}
	}
	return wanted
}

// followConsoles logs what the consoles of virtual nodes print, until ctx ends. What an
// earlier life of the daemon has not logged comes first.
func (d *Daemon) followConsoles(ctx context.Context) {
	for taken := uint64(0); ctx.Err() == nil; {
		batch, err := d.Machines.Console(ctx, taken)
		if err != nil {
			select { // the service may be away for a moment
			case <-time.After(consoleRetry):
			case <-ctx.Done():
			}
			continue
		}
		for _, chunk := range batch.Chunks {
			if d.Logs.EmitChunk(ctx, chunk.MAC, consoleStream, chunk.Time, chunk.Data) != nil {
				return // ctx has ended; the next life gets them
			}
		}
		taken = batch.Number
	}
}

// virtualReboot ends the machines of the virtual nodes that are left; the next ones start
// by themselves.
func virtualReboot(ctx context.Context, r *reboot) error {
	for _, node := range r.left() {
		if !node.Virtual {
			continue
		}
		r.rebooting.Store(node.MAC, r.why(virtualMethod))
		err := r.Machines.Kill(ctx, node.MAC)
		r.rebooting.Delete(node.MAC)
		if err != nil {
			r.hard[node] = err.Error()
			continue
		}
		r.succeeded(node, virtualMethod)
	}
	return ctx.Err()
}

// virtualMethod is how virtual nodes are rebooted that do not do so themselves.
const virtualMethod = "vnode hard-reboot"
