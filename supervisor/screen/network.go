package screen

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aymanbagabas/go-udiff"
	"github.com/waltos/waltos/hcl"
)

// none is what a person types to leave something out.
const none = "none"

// applyTime is how long the units may take to follow a configuration.
const applyTime = 3 * time.Minute

// network lets a person change the networks of the server: it asks, shows what changes in
// the site file, and has the supervisor check and apply it.
func (c *Console) network(f face) error {
	old, err := c.Machine.Site()
	if err != nil {
		return err
	}
	site, err := hcl.ParseSite(old, hcl.SitePath)
	if err != nil {
		return err
	}
	text := old
	wired := strings.Join(interfaces(), " ")
	for _, form := range []struct{ name, about string }{
		{hcl.WaltNet, "platform (nodes)"}, {"walt-out", "way out"},
	} {
		n := hcl.Network{Name: form.name}
		if now := site.Network(form.name); now != nil {
			n = *now
		}
		for _, field := range []struct {
			question string
			value    *string
			asked    func() bool
		}{
			{fmt.Sprintf("Interface of the %s (%s, %s):", form.about, wired, none), &n.Interface, func() bool { return true }},
			{fmt.Sprintf("Address of the %s (as 192.168.152.1/24, dhcp, %s):", form.about, none), &n.IP,
				func() bool { return n.Interface != "" || n.Name == hcl.WaltNet }},
			{"Gateway (" + none + "):", &n.Gateway, func() bool { return n.Name != hcl.WaltNet && n.IP != "" && n.IP != "dhcp" }},
		} {
			if !field.asked() {
				*field.value = ""
				continue
			}
			answer, ok := f.ask(field.question, *field.value)
			if !ok {
				return nil
			}
			if *field.value = strings.TrimSpace(answer); *field.value == none {
				*field.value = ""
			}
		}
		if text, err = hcl.SetNetwork(text, hcl.SitePath, n); err != nil {
			return err
		}
	}
	difference := udiff.Unified("now", "then", string(old), string(text))
	if difference == "" {
		f.show("Network", []string{"Nothing is changed."})
		return nil
	}
	f.show("What changes", strings.Split(strings.TrimRight(difference, "\n"), "\n"))
	if answer, ok := f.ask("To apply type yes:", ""); !ok || answer != "yes" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), applyTime)
	defer cancel()
	done, err := c.Machine.Configure(ctx, text)
	if err != nil {
		return err
	}
	f.show("Network", strings.Split(done, "\n"))
	return nil
}

// interfaces are the network interfaces that are hardware.
func interfaces() []string {
	paths, err := filepath.Glob("/sys/class/net/*/device")
	if err != nil {
		return nil
	}
	var names []string
	for _, path := range paths {
		if name := filepath.Base(filepath.Dir(path)); name != "" {
			if _, err := os.Stat("/sys/class/net/" + name + "/wireless"); err != nil {
				names = append(names, name)
			}
		}
	}
	return names
}
