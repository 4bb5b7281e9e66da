package core

import (
	"slices"
	"strings"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/wire/pickle"
)

func (c *call) showNodes() (any, error) {
	user := c.text("username")
	if user == "" {
		return "", nil
	}
	if c.flag("names_only") {
		return strings.Join(nodeNames(c.registry.View(), user, c.flag("show_all")), "\n"), nil
	}
	return c.registry.View().Text(nodeListing{user, c.flag("show_all")}, func(v *registry.View) string {
		return listNodes(v, user, c.flag("show_all"))
	}), nil
}

// nodeListing is the key of the result of show_nodes.
type nodeListing struct {
	user    string
	showAll bool
}

func (c *call) getNodesIP() (any, error) {
	devices, err := c.nodes("node_set")
	if err != nil {
		return c.fail(err, pickle.Tuple{})
	}
	ips := make(pickle.Tuple, len(devices))
	for i, d := range devices {
		ips[i] = orNone(d.IP)
	}
	return ips, nil
}

func (c *call) getNodesInfo() (any, error) {
	v := c.registry.View()
	devices, err := v.ResolveNodes(c.text("node_set"), c.user)
	if err != nil {
		return c.fail(err, pickle.Tuple{})
	}
	records := make(pickle.Tuple, len(devices))
	for i, d := range devices {
		records[i] = info(v, d)
	}
	return records, nil
}

// getNodeIP answers G5 for a node without address, where 10.0 fails (CN-23).
func (c *call) getNodeIP() (any, error) {
	d, err := c.registry.View().NodeNamed(c.text("node_name"))
	if err == nil && d.IP == "" {
		err = text.UnknownIP(d.Name)
	}
	if err != nil {
		return c.fail(err, nil)
	}
	return d.IP, nil
}

func (c *call) blink() (any, error) {
	d, err := c.registry.View().NodeNamed(c.text("node_name"))
	if err != nil {
		return c.fail(err, false)
	}
	request := "BLINK 0"
	if c.flag("blink_status") {
		request = "BLINK 1"
	}
	if err := c.Control.Request(c, d.IP, request); err != nil {
		return c.fail(text.Refuse("Blink request to %s failed: %v\n", d.Name, err), false)
	}
	return true, nil
}

// waitForNodes waits until all nodes of a set are booted. Nodes that are forgotten
// meanwhile are not waited for.
func (c *call) waitForNodes() (any, error) {
	devices, err := c.nodes("node_set")
	if err != nil {
		return c.fail(err, false)
	}
	c.notIdle(devices)
	if slices.ContainsFunc(devices, func(d *registry.Device) bool { return !d.Booted }) {
		c.wakeUp(devices)
	}
	for announced := ""; ; {
		v := c.registry.View()
		var missing []string
		for _, d := range devices {
			if now := v.ByMAC(d.MAC); now != nil && !now.Booted {
				missing = append(missing, now.Name)
			}
		}
		switch {
		case len(missing) == 0 && announced == "":
			return true, nil
		case len(missing) == 0:
			c.busy("")
			return int64(0), nil
		}
		if label := text.Sentence("Waiting for bootup of %s", missing); label != announced {
			c.busy(label)
			announced = label
		}
		select {
		case <-v.Superseded():
		case <-c.Done():
			return nil, c.Context.Err()
		}
	}
}

// setImage associates nodes to an image, which they boot at their next boot.
func (c *call) setImage() (any, error) {
	devices, err := c.nodes("node_set")
	if err != nil {
		return c.fail(err, false)
	}
	name := c.text("image_name")
	fullName := func(d *registry.Device) string { return registry.DefaultImage(d.Model) }
	if name != "default" {
		image, err := c.userImage(name)
		if err != nil {
			return c.fail(err, false)
		}
		if err := compatible(image.Models, devices); err != nil {
			return c.fail(err, false)
		}
		fullName = func(*registry.Device) string { return image.FullName }
	}
	changed, same, err := c.associate(devices, fullName)
	if err != nil {
		return c.fail(err, false)
	}
	if len(changed) > 0 {
		template := "%s will now boot IMAGE."
		if name == "default" {
			template = "%s will now boot its(their) default image (other users will see it(they) is(are) 'free')."
		}
		c.out(text.Sentence(strings.Replace(template, "IMAGE", name, 1), changed) + "\n")
	}
	if len(same) > 0 {
		c.out(text.Sentence("%s: ignored, it(they) is(are) already using this image.", same) + "\n")
	}
	return true, nil
}

// compatible refuses an image that does not suit the models of all nodes (I7).
func compatible(models []string, devices []*registry.Device) error {
	var lacking []string
	for _, d := range devices {
		if !contains(models, d.Model) && !contains(lacking, d.Model) {
			lacking = append(lacking, d.Model)
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	return &text.Refusal{Text: text.About("Sorry, this image is not compatible with %s.\n", lacking,
		text.Noun{None: "no node models", One: "node model", Many: "node models"}, "and")}
}

// associate records the image of each node, and returns the names of those for which it
// was another, and the same.
func (c *call) associate(devices []*registry.Device, image func(*registry.Device) string) (changed, same []string, err error) {
	err = c.locked(func() error {
		changed, same, err = c.associateEach(devices, image)
		return err
	})
	return changed, same, err
}

func (c *call) associateEach(devices []*registry.Device, image func(*registry.Device) string) (changed, same []string, err error) {
	v := c.registry.View()
	recorded := map[string]bool{}
	var updates []db.Device
	for _, d := range devices {
		now := v.ByMAC(d.MAC)
		if now == nil {
			return nil, nil, text.NoSuchDevice(d.Name)
		}
		wanted := image(now)
		if wanted == now.Image {
			same = append(same, now.Name)
			continue
		}
		if !recorded[wanted] {
			if _, there := c.Images.ByName(wanted); !there {
				_, name := registry.SplitImageName(wanted)
				return nil, nil, text.NoSuchImage(name)
			}
			if err := c.saveImage(wanted); err != nil {
				return nil, nil, err
			}
			recorded[wanted] = true
		}
		updated := now.Device
		updated.Image = wanted
		updates = append(updates, updated)
		changed = append(changed, now.Name)
	}
	return changed, same, c.saveDevices(c, updates...)
}
