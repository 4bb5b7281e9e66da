package core

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/settings"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/images"
	"github.com/waltos/waltos/services/state"
)

const (
	// loadRetry is the longest pause before another try at the database, and firstRetry
	// the first one: after a start of all it is there within some milliseconds.
	loadRetry      = 250 * time.Millisecond
	firstRetry     = 5 * time.Millisecond
	reconcileRetry = 30 * time.Second
	// publishPause is the least time between two publications: in a boot storm the
	// state changes many times a second.
	publishPause = 50 * time.Millisecond
)

// load fills the registry from the database, however long that takes. It returns the
// ports that an earlier life of the daemon has left off, and false if ctx ended before.
func (d *Daemon) load(ctx context.Context) (off []PoEPort, loaded bool) {
	var all db.Everything
	pause := firstRetry
	for last := ""; ; pause = min(2*pause, loadRetry) {
		err := d.tryLoad(ctx, &all)
		if err == nil {
			break
		}
		if err.Error() != last && ctx.Err() == nil {
			last = err.Error()
			d.Print("waiting for the database: %s", last)
		}
		select {
		case <-ctx.Done():
			return nil, false
		case <-time.After(pause):
		}
	}
	d.writing.Lock()
	d.syncImages(ctx, all)
	d.take(all)
	for _, node := range d.registry.View().Nodes() {
		d.monitor.Watch(node.MAC, bootLimits(node.Conf))
		if d.boots.Booted(node.IP) {
			d.booted(node)
		}
	}
	d.writing.Unlock()
	off = d.offPorts(func(db.PoEOff) bool { return true }) // before any call cuts others
	close(d.loaded)
	d.changed()
	return off, true
}

func (d *Daemon) tryLoad(ctx context.Context, all *db.Everything) error {
	within, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	err := d.Store.FixServer(within, d.ServerMAC, d.registry.View().Network.Addr().String())
	if err == nil {
		*all, err = d.Store.LoadAll(within)
	}
	return err
}

func (d *Daemon) take(all db.Everything) {
	d.registry.Replace(all.Devices)
	d.tables.set(all)
	d.markPowersave()
	for _, device := range all.Devices {
		d.followIdle(device)
	}
}

// reload makes the registry agree with the database again, when the outcome of a change
// is not known.
func (d *Daemon) reload(ctx context.Context) {
	for {
		d.writing.Lock()
		within, cancel := context.WithTimeout(ctx, databaseTimeout)
		all, err := d.Store.LoadAll(within)
		cancel()
		if err == nil {
			d.take(all)
		}
		d.writing.Unlock()
		if err == nil {
			d.changed()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(loadRetry):
		}
	}
}

// reloadOnHangup reads the images and the database again at each SIGHUP, for those who
// have changed them by other means, until ctx ends. (What 10.0 reads again then,
// server.spec, is read whenever an image is mounted.)
func (d *Daemon) reloadOnHangup(ctx context.Context) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		if err := d.Images.Refresh(ctx); err != nil {
			d.Print("cannot read the images again: %v", err)
		}
		d.reloads.poke()
	}
}

// responds returns once what every request needs can be had: it never does where the daemon
// waits for itself.
func (d *Daemon) responds(context.Context) error {
	d.tables.mu.Lock()
	defer d.tables.mu.Unlock()
	return nil
}

// syncImages makes table images agree with the store (server-state §3.4). What fails is
// reported and left: no node boots an image that is not in the store.
func (d *Daemon) syncImages(ctx context.Context, all db.Everything) {
	stored := d.images()
	for _, i := range stored {
		if !slices.Contains(all.Images, i.FullName) {
			if err := d.stored(ctx, func(ctx context.Context) error { return d.Store.SaveImage(ctx, i.FullName) }); err != nil {
				d.Print("cannot record image %s: %v", i.FullName, err)
			}
		}
	}
	if _, none := d.Images.(NoImages); none {
		return
	}
	for _, full := range all.Images {
		used := slices.ContainsFunc(all.Devices, func(node db.Device) bool { return node.Image == full })
		switch _, there := d.Images.ByName(full); {
		case there:
		case used:
			d.Print("Unable to find image %s, which nodes use: they cannot boot.", full)
		default:
			d.Print("Unable to find image %s. Nothing uses it: it is removed.", full)
			if err := d.stored(ctx, func(ctx context.Context) error { return d.Store.DeleteImage(ctx, full) }); err != nil {
				d.Print("cannot remove image %s: %v", full, err)
			}
		}
	}
}

// reconcile brings mounts, exports and links of nodes in line with the registry.
func (d *Daemon) reconcile(ctx context.Context) {
	v := d.registry.View()
	wanted := make([]images.Device, 0, len(v.Devices()))
	for _, device := range v.Devices() {
		wanted = append(wanted, images.Device{
			MAC: device.MAC, IP: device.IP, Name: device.Name, Type: device.Type, Image: device.Image, Model: device.Model,
			Persist: registry.ConfBool(device.Conf, "mount.persist", true),
		})
	}
	if !d.replaced.Swap(false) && slices.Equal(wanted, d.reconciled) {
		return
	}
	d.reconciled = wanted
	if err := d.Images.Reconcile(ctx, wanted); err != nil && ctx.Err() == nil {
		d.Print("cannot prepare all images: %v", err)
		d.reconciled = nil
		time.AfterFunc(reconcileRetry, d.mounts.poke)
	}
	d.news.poke()
}

// publish tells the network services what the platform is.
func (d *Daemon) publish(context.Context) {
	select {
	case <-d.loaded:
	default:
		return // better the services' last state than an empty one
	}
	v := d.registry.View()
	snapshot := state.Snapshot{Devices: make([]state.Device, len(v.Devices()))}
	for i, device := range v.Devices() {
		snapshot.Devices[i] = d.stateOf(v, device)
	}
	if err := d.Publish(snapshot); err != nil {
		d.Print("%v", err)
	}
}

func (d *Daemon) stateOf(v *registry.View, device *registry.Device) state.Device {
	config := settings.Effective(v, device)
	if value, has := config["netsetup"]; has {
		config["netsetup"] = settings.NetSetup(value)
	}
	s := state.Device{
		MAC: device.MAC, IP: device.IP, Name: device.Name, Type: device.Type, Model: device.Model, Image: device.Image,
		Virtual: device.Virtual, Booted: device.Booted, NAT: device.NAT(), Config: config,
	}
	if device.Type == registry.Node {
		if image, there := d.Images.ByName(device.Image); there {
			s.Root = d.Images.Root(image.ID)
			s.BootDir = d.Images.BootDir(image.ID, device.Model)
		}
	}
	return s
}

// Register records a device that DHCP has seen: state.Registrar.
func (d *Daemon) Register(ctx context.Context, r state.Registration) error {
	_, err := d.register(ctx, registry.Sighting{VCI: r.VCI, UCI: r.UCI, IP: r.IP, MAC: r.MAC, Name: r.Name})
	return err
}

// registerDevice is register_device of VSAPI and SSAPI.
func (c *call) registerDevice() (any, error) {
	_, err := c.register(c, registry.Sighting{
		VCI: c.text("vci"), UCI: c.text("uci"), IP: c.text("ip"), MAC: c.text("mac"), Name: c.text("name"),
	})
	return nil, err
}

// register applies the registration rules to a device, and returns when the network
// services have been told.
func (d *Daemon) register(ctx context.Context, s registry.Sighting) (change registry.Change, err error) {
	if err := d.waitLoaded(ctx); err != nil {
		return change, err
	}
	err = d.locked(func() error {
		change, err = d.registry.View().Register(s, d.hasDefaultImage)
		if err != nil || !change.Changed {
			return err
		}
		return d.record(ctx, change)
	})
	if err != nil {
		return change, err
	}
	if kind, model := registry.Identify(s.VCI, s.UCI, change.Device.MAC); kind == registry.Node && change.Device.Type == registry.Unknown {
		s.MAC = change.Device.MAC
		d.await(s, change.Device.Name, model)
	}
	return change, d.news.settle(ctx)
}

// record stores a registration, and begins to follow a new node. writing must be held.
func (d *Daemon) record(ctx context.Context, change registry.Change) error {
	device := change.Device
	if device.Type == registry.Node {
		if err := d.stored(ctx, func(ctx context.Context) error { return d.Store.SaveImage(ctx, device.Image) }); err != nil {
			return err
		}
	}
	if err := d.saveDevices(ctx, device); err != nil {
		return err
	}
	for _, line := range change.Lines {
		d.logf(devicesStream, "%s", line)
	}
	if device.Type == registry.Node {
		d.monitor.Watch(device.MAC, bootLimits(device.Conf))
		if d.boots.Booted(device.IP) {
			d.booted(d.registry.View().ByMAC(device.MAC))
		}
	}
	return nil
}

func (d *Daemon) hasDefaultImage(model string) bool {
	_, there := d.Images.ByName(registry.DefaultImage(model))
	return there
}

// NoImages is a platform without images, for runs without containers.
type NoImages struct{}

func (NoImages) Refresh(context.Context) error                    { return nil }
func (NoImages) List() []images.Image                             { return nil }
func (NoImages) ByName(string) (images.Image, bool)               { return images.Image{}, false }
func (NoImages) Untag(context.Context, string) error              { return nil }
func (NoImages) Reconcile(context.Context, []images.Device) error { return nil }
func (NoImages) Root(string) string                               { return "" }
func (NoImages) BootDir(string, string) string                    { return "" }
func (NoImages) Forget(context.Context, string) error             { return nil }

// Add fails: there is no store.
func (NoImages) Add(_ context.Context, full string, _ images.Source) error {
	return fmt.Errorf("cannot store image %s: this server runs without images", full)
}

// Tag fails: there is no image to name.
func (NoImages) Tag(_ context.Context, id, _ string) error {
	return fmt.Errorf("cannot name image %s: this server runs without images", id)
}
