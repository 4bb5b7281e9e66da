package core

import (
	"context"
	"strings"
	"time"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/wire/pickle"
)

func (c *call) deviceShow() (any, error) { return listDevices(c.registry.View()), nil }

// orNone is a text, or None if it is empty.
func orNone(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// info is the full record of a device, with the fields that its type has
// (client-api §2.4, server-state §1.7).
func info(v *registry.View, d *registry.Device) *pickle.Dict {
	var inNetwork any
	if d.IP != "" {
		inNetwork = v.InNetwork(d.IP)
	}
	conf := pickle.NewDict()
	for _, name := range sortedKeys(d.Conf) {
		conf.Set(name, d.Conf[name])
	}
	record := pickle.NewDict("mac", d.MAC, "ip", orNone(d.IP), "name", d.Name, "type", d.Type)
	if d.Type == registry.Node {
		record.Set("virtual", d.Virtual)
	}
	record.Set("conf", conf)
	switch d.Type {
	case registry.Node:
		netsetup := int64(0)
		if d.NAT() {
			netsetup = 1
		}
		record.Set("image", orNone(d.Image))
		record.Set("model", orNone(d.Model))
		record.Set("booted", d.Booted)
		record.Set("gateway", v.Gateway(d))
		record.Set("netmask", v.Netmask())
		record.Set("netsetup", netsetup)
	case registry.Switch:
		record.Set("model", orNone(d.Model))
	}
	record.Set("in_walt_net", inNetwork)
	return record
}

func (c *call) getDeviceInfo() (any, error) {
	v := c.registry.View()
	d, err := v.Named(c.text("device_name"))
	if err != nil {
		return c.fail(err, nil)
	}
	return info(v, d), nil
}

// getDeviceInfoByMAC is get_device_info of VSAPI; unlike 10.0 it answers None for a MAC
// that nobody has.
func (c *call) getDeviceInfoByMAC() (any, error) {
	v := c.registry.View()
	d := v.ByMAC(strings.ToLower(c.text("device_mac")))
	if d == nil {
		return nil, nil
	}
	return info(v, d), nil
}

func (c *call) getDeviceIP() (any, error) {
	d, err := c.registry.View().Named(c.text("device_name"))
	if err == nil && d.IP == "" {
		err = text.UnknownIP(d.Name)
	}
	if err != nil {
		return c.fail(err, nil)
	}
	return d.IP, nil
}

func (c *call) rename() (any, error) {
	err := c.locked(func() error {
		v := c.registry.View()
		d, err := v.Named(c.text("old_name"))
		if err != nil {
			return err
		}
		if err := v.CheckNewName(c.text("new_name")); err != nil {
			return err
		}
		renamed := d.Device
		renamed.Name = c.text("new_name")
		return c.saveDevices(c, renamed)
	})
	if err != nil {
		return c.fail(err, false)
	}
	return true, nil
}

// forget removes a device and all that is known of it. Unlike 10.0 it refuses to remove
// the server itself.
func (c *call) forget() (any, error) {
	d, err := c.registry.View().Named(c.text("device_name"))
	if err == nil && d.Type == registry.Server {
		err = text.Refuse("Failed: %s is the WALT server itself.\n", d.Name)
	}
	if err != nil {
		return c.fail(err, false)
	}
	return c.forgetDevice(d)
}

// forgetDevice gives power back to the port of a device, then removes it. The machine of a
// virtual node has ended before its files are deleted.
func (c *call) forgetDevice(d *registry.Device) (any, error) {
	c.wakeUp([]*registry.Device{d})
	err := c.locked(func() error {
		now := c.registry.View().ByMAC(d.MAC)
		if now == nil {
			return text.NoSuchDevice(d.Name) // someone else was faster
		}
		return c.remove(now)
	})
	if err != nil {
		return c.fail(err, false)
	}
	if d.Virtual {
		c.settleMachines(c)
		c.deleteFiles(d)
	}
	return true, nil
}

// remove deletes a device everywhere, but for the files of a virtual node. writing must be
// held.
func (c *call) remove(d *registry.Device) error {
	if err := c.Logs.Forget(c, d.MAC); err != nil {
		return databaseError(err)
	}
	if err := c.stored(c, func(ctx context.Context) error { return c.Store.DeleteDevice(ctx, d.MAC) }); err != nil {
		return err
	}
	c.registry.Delete(d.MAC)
	c.monitor.Forget(d.MAC)
	c.idle.Leave(d.MAC)
	c.tables.forget(d.MAC)
	c.labels.forget(d.MAC)
	c.moving.Delete(d.MAC)
	c.changed()
	what := "its logs"
	if d.Type == registry.Node {
		what = "its logs and its persistent files"
	}
	c.logf(devicesStream, "forgot %s name=%s mac=%s, with %s", d.Type, d.Name, d.MAC, what)
	if !d.Virtual {
		c.deleteFiles(d)
	}
	return nil
}

func (c *call) deleteFiles(d *registry.Device) {
	if err := c.Images.Forget(context.WithoutCancel(c), d.MAC); err != nil {
		c.Print("cannot delete all files of %s: %v", d.Name, err)
	}
}

func tuple(names []string) pickle.Tuple {
	t := make(pickle.Tuple, len(names))
	for i, name := range names {
		t[i] = name
	}
	return t
}

func (c *call) parseSetOfDevices() (any, error) {
	devices, err := c.registry.View().ResolveWithin(c.text("device_set"), c.text("allowed_device_set"), c.user)
	if err != nil {
		return c.fail(err, nil)
	}
	return tuple(registry.Names(devices)), nil
}

func (c *call) parseSetOfNodes() (any, error) {
	devices, err := c.nodes("node_set")
	if err != nil {
		return c.fail(err, nil)
	}
	return tuple(registry.Names(devices)), nil
}

func (c *call) developDeviceSet() (any, error) {
	devices, err := c.devices("device_set")
	if err != nil {
		return c.fail(err, nil)
	}
	return strings.Join(registry.Names(devices), ","), nil
}

func (c *call) developNodeSet() (any, error) {
	devices, err := c.nodes("node_set")
	if err != nil {
		return c.fail(err, nil)
	}
	return strings.Join(registry.Names(devices), ","), nil
}

func (c *call) filterOwnership() (any, error) {
	nothing := pickle.Tuple{pickle.Tuple{}, pickle.Tuple{}, pickle.Tuple{}, pickle.Tuple{}}
	devices, err := c.devices("node_set")
	if err != nil {
		return c.fail(err, nothing)
	}
	user, err := c.user()
	if err != nil {
		return c.fail(err, nothing)
	}
	var owned, free, notOwned, notNodes []string
	for _, d := range devices {
		list := &notOwned
		switch {
		case d.Type != registry.Node:
			list = &notNodes
		case d.Owner() == user:
			list = &owned
		case d.Free():
			list = &free
		}
		*list = append(*list, d.Name)
	}
	return pickle.Tuple{tuple(owned), tuple(free), tuple(notOwned), tuple(notNodes)}, nil
}

// syncClock answers at the next whole second, with that second (node-protocols §3.2).
func (c *call) syncClock() (any, error) {
	now := time.Now()
	next := now.Truncate(time.Second).Add(time.Second)
	select {
	case <-time.After(next.Sub(now)):
		return next.Unix(), nil
	case <-c.Done():
		return nil, c.Context.Err()
	}
}
