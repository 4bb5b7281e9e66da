package core

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/waltos/waltos/services/daemon/core/nodes"
	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/settings"
	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/internal/pattern"
	"github.com/waltos/waltos/services/wire/pickle"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func contains(list []string, s string) bool { return slices.Contains(list, s) }

func (c *call) setDeviceConfig() (any, error) {
	names, values, err := settings.Parse(c.texts("conf_args"))
	if err != nil {
		return c.fail(err, nil)
	}
	user, err := c.lazyUser()
	if err != nil {
		return c.fail(err, nil)
	}
	var lines []string
	err = c.locked(func() error {
		v := c.registry.View()
		devices, err := v.Resolve(c.text("device_set"), user)
		if err != nil {
			return err
		}
		plan, err := settings.Check(v, devices, names, values)
		if err != nil {
			return err
		}
		if value, given := plan.Conf["expose"].(string); given {
			if err := c.exposed.checkPorts(value); err != nil {
				return err
			}
		}
		for _, d := range devices {
			renamed, err := c.applySettings(d, plan)
			if err != nil {
				return err
			}
			lines = append(lines, renamed...)
		}
		lines = append(lines, plan.Answer)
		return nil
	})
	if err == nil && slices.Contains(names, "expose") {
		err = c.exposes.settle(c) // redirects are there once this is answered
	}
	for _, line := range lines {
		c.out(line)
	}
	if err != nil {
		return c.fail(err, nil)
	}
	return nil, nil
}

// lazyUser asks for the user before a lock is taken, if the set needs to know him: no
// client is called back with a lock held.
func (c *call) lazyUser() (registry.User, error) {
	if !contains(strings.Split(c.text("device_set"), ","), "my-nodes") {
		return c.user, nil
	}
	name, err := c.user()
	return func() (string, error) { return name, nil }, err
}

// applySettings records a plan for a device, and returns what to print. writing must be
// held.
func (c *call) applySettings(d *registry.Device, plan *settings.Plan) (lines []string, err error) {
	updated := d.Device
	if plan.Switch {
		change := c.registry.View().Convert(d, registry.Switch, "")
		updated = change.Device
		for _, line := range change.Lines {
			c.logf(devicesStream, "%s", line)
		}
		if change.Renamed != "" {
			lines = append(lines, fmt.Sprintf("Renaming %s to %s for clarity.\n", change.Renamed, updated.Name))
		}
	}
	updated.Conf = plan.Apply(d.Conf)
	if err := c.saveDevices(c, updated); err != nil {
		return lines, err
	}
	if d.Type == registry.Node {
		c.monitor.Watch(d.MAC, bootLimits(updated.Conf))
	}
	return lines, nil
}

// bootLimits are the settings boot.timeout and boot.retries.
func bootLimits(conf map[string]any) nodes.Limits {
	limits := nodes.Limits{Timeout: 180 * time.Second, Retries: 9}
	if value, stored := conf["boot.timeout"]; stored && value == nil {
		limits.Timeout = 0
	} else if n, stored := registry.ConfInt(conf, "boot.timeout"); stored {
		limits.Timeout = time.Duration(n) * time.Second
	}
	if n, stored := registry.ConfInt(conf, "boot.retries"); stored {
		limits.Retries = int(n)
	}
	return limits
}

func (c *call) getDeviceConfig() (any, error) {
	v := c.registry.View()
	devices, err := v.Resolve(c.text("device_set"), c.user)
	if err != nil {
		return c.fail(err, nil)
	}
	c.out(settings.Describe(v, devices))
	return nil, nil
}

// getDeviceConfigData answers () to a set that cannot be resolved, where 10.0 fails
// (CN-12).
func (c *call) getDeviceConfigData() (any, error) {
	v := c.registry.View()
	devices, err := v.Resolve(c.text("device_set"), c.user)
	if err != nil {
		return c.fail(err, pickle.Tuple{})
	}
	data := make(pickle.Tuple, len(devices))
	for i, d := range devices {
		effective := settings.Effective(v, d)
		values := pickle.NewDict()
		for _, name := range sortedKeys(effective) {
			values.Set(name, effective[name])
		}
		data[i] = pickle.NewDict("name", d.Name, "settings", values, "main_category", settings.MainCategory(v, d))
	}
	return data, nil
}

var (
	portName    = pattern.Lazy(`^[a-zA-Z0-9-]+$`)
	wholeNumber = pattern.Lazy(`^-?[0-9]+$`)
)

func (c *call) setPortConfig() (any, error) {
	port := c.value("port_id").(int64)
	names, values, err := settings.Parse(c.texts("configuration"))
	if err != nil {
		return c.fail(err, nil)
	}
	if slices.ContainsFunc(names, func(name string) bool { return name != "name" }) {
		return c.fail(&text.Refusal{Text: text.OnlyNameWritable}, nil)
	}
	name, given := values["name"]
	if given {
		if !portName().MatchString(name) {
			return c.fail(&text.Refusal{Text: text.BadPortName}, nil)
		}
		if wholeNumber().MatchString(name) {
			if n, err := strconv.ParseInt(name, 10, 64); err != nil || n != port {
				return c.fail(text.ConfusingPortName(port), nil)
			}
			name = ""
		}
	}
	d, err := c.explorableSwitch()
	if err != nil {
		return c.fail(err, nil)
	}
	if given {
		p := db.SwitchPort{MAC: d.MAC, Port: int(port), Name: name}
		if err := c.stored(c, func(ctx context.Context) error { return c.Store.SaveSwitchPort(ctx, p) }); err != nil {
			return nil, err
		}
		c.tables.namePort(p)
	}
	c.out(text.Done)
	return nil, nil
}

// explorableSwitch finds the switch given as parameter, or refuses (G1, E4, E5).
func (c *call) explorableSwitch() (*registry.Device, error) {
	d, err := c.registry.View().Named(c.text("switch_name"))
	switch {
	case err != nil:
		return nil, err
	case d.Type != registry.Switch:
		return nil, text.NotASwitch(d.Name)
	case !registry.ConfBool(d.Conf, "lldp.explore", false):
		return nil, text.NotExplorable(d.Name)
	}
	return d, nil
}

// getPortConfig prints the text of client-api §2.10.7.
func (c *call) getPortConfig() (any, error) {
	d, err := c.explorableSwitch()
	if err != nil {
		return c.fail(err, nil)
	}
	v := c.registry.View()
	ports := c.tables.portsOf(d.MAC, func(mac string) string {
		if peer := v.ByMAC(mac); peer != nil {
			return peer.Name
		}
		return "unknown"
	})
	var shown []int
	if port, one := c.value("port_id").(int64); one {
		c.out(fmt.Sprintf("Port %d of %s has the following config:\n", port, d.Name))
		shown = []int{int(port)}
	} else {
		shown = slices.Sorted(maps.Keys(ports))
		if len(shown) == 0 {
			c.out("WalT did not detect traffic going through this switch yet.\n")
			c.out("Use 'walt device rescan' to probe again.\n")
			return nil, nil
		}
		c.out(fmt.Sprintf("WalT currently uses the following ports of %s:\n", d.Name))
	}
	notes := ""
	if c.value("port_id") == nil {
		notes = "The other switch ports are in their default configuration.\n"
	}
	poe := registry.ConfBool(d.Conf, "poe.reboots", false)
	unavailable := false
	for _, n := range shown {
		p := ports[n]
		name, peer, power, reason := p.name, p.peer, "on", ""
		if name == "" {
			name = strconv.Itoa(n)
		}
		if peer == "" {
			peer = "unknown"
		}
		switch {
		case p.off != "":
			power, reason = "off", "  # "+p.off
		case !poe:
			power, unavailable = "unavailable", true
		}
		c.out(fmt.Sprintf("%d: name=\"%s\" poe=%s peer=%s%s\n", n, name, power, peer, reason))
	}
	if unavailable {
		notes += "PoE status is unavailable because the switch has its \"poe.reboots\" config option disabled (see: walt help show device-config).\n"
	}
	if notes != "" {
		c.out(notes)
	}
	return nil, nil
}
