package core

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
)

// listNodes is the result of show_nodes (client-api §2.10.1).
func listNodes(v *registry.View, user string, showAll bool) string {
	var owned, free, others [][]any
	for _, d := range v.Nodes() {
		row := []any{d.Name, d.Kind(), d.Model}
		end := []any{none(d.IP), netSetup(d), d.BootedText()}
		owner, image := registry.SplitImageName(d.Image)
		switch {
		case owner == user:
			owned = append(owned, slices.Concat(row, []any{image}, end))
		case d.Free():
			free = append(free, slices.Concat(row, end))
		default:
			others = append(others, slices.Concat(row, []any{owner, "walt:" + owner + "/" + image}, end))
		}
	}
	var b strings.Builder
	paragraph := func(title string, rows [][]any, columns ...string) {
		if len(rows) > 0 {
			b.WriteString(text.Paragraph(title, text.Table(columns, rows), ""))
		}
	}
	paragraph("You currently own the following nodes:", owned,
		"name", "type", "model", "image", "ip", "netsetup", "booted")
	if showAll {
		paragraph("The following nodes are currently free:", free,
			"name", "type", "model", "ip", "netsetup", "booted")
		paragraph("The following nodes currently belong to other users:", others,
			"name", "type", "model", "image_owner", "clonable_image_link", "ip", "netsetup", "booted")
	}
	var notes []string
	switch {
	case len(owned) == 0 && !showAll:
		notes = append(notes, "You currently do not own any nodes.", "Re-run with --all to see all available nodes.")
	case len(v.Nodes()) == 0:
		notes = append(notes, "No nodes detected!")
	case !showAll:
		notes = append(notes, "Re-run with --all to see all available nodes.")
	case len(free)+len(others) == 0:
		notes = append(notes, "No other nodes were detected (apart from the ones listed above).")
	}
	notes = append(notes, "Type `walt help show node-ownership` for help.")
	return b.String() + strings.Join(notes, "\n")
}

// nodeNames is the result of show_nodes for names only.
func nodeNames(v *registry.View, user string, showAll bool) []string {
	var names []string
	for _, d := range v.Nodes() {
		if showAll || d.Owner() == user {
			names = append(names, d.Name)
		}
	}
	return names
}

// none is an empty cell for an unknown text.
func none(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func netSetup(d *registry.Device) string {
	if d.NAT() {
		return "NAT"
	}
	return "LAN"
}

// listDevices is the result of device_show (client-api §2.10.2).
func listDevices(v *registry.View) string {
	var known, unknown [][]any
	for _, d := range v.Devices() {
		row := []any{d.Name, none(d.IP), d.MAC, d.TypeText(), nil}
		if v.Managed(d) {
			row[4] = netSetup(d)
		}
		if d.Type == registry.Unknown {
			unknown = append(unknown, row)
		} else {
			known = append(known, row)
		}
	}
	byType := func(a, b []any) int { return cmp.Compare(a[3].(string), b[3].(string)) }
	slices.SortStableFunc(known, byType)
	b := text.Paragraph("The WalT network contains the following devices:", deviceTable(known),
		"tips:\n- use 'walt device tree' for a tree view of the network\n- use 'walt device forget <device_name>' to make WalT forget about an obsolete device")
	if len(unknown) > 0 {
		b += text.Paragraph("WalT also detected the following devices but could not detect their type:", deviceTable(unknown),
			"If one of them is actually a switch, use 'walt device config <name> type=switch' to fix this.")
	}
	return b
}

// deviceTable drops the columns in which no row has a value.
func deviceTable(rows [][]any) string {
	columns := []string{"name", "ip", "mac", "type", "netsetup"}
	for i := len(columns) - 1; i >= 0; i-- {
		if slices.ContainsFunc(rows, func(row []any) bool { return row[i] != nil }) {
			continue
		}
		columns = slices.Delete(columns, i, i+1)
		for r := range rows {
			rows[r] = slices.Delete(rows[r], i, i+1)
		}
	}
	return text.Table(columns, rows)
}

// image is one name of an image, as listings show it.
type image struct {
	ID       string
	FullName string // with tag
	User     string
	Name     string // without user, nor tag "latest"
	Models   []string
	Created  time.Time
	InUse    bool
}

func (i *image) created() string { return i.Created.Local().Format(time.DateTime) }

func (i *image) link() string { return "walt:" + i.User + "/" + i.Name }

// listImages is the result of show_images (client-api §2.10.3).
func listImages(all []*image, user string, showAll bool) string {
	var owned, others, defaults [][]any
	for _, i := range all {
		switch {
		case i.User == user:
			owned = append(owned, []any{i.Name, i.InUse, i.created(), text.CompactModels(i.Models)})
		case i.User == registry.FreeOwner && strings.HasSuffix(i.Name, "-default"):
			defaults = append(defaults, []any{i.Name, i.created(), i.link()})
		default:
			others = append(others, []any{i.User, i.Name, i.created(), i.link()})
		}
	}
	var b strings.Builder
	paragraph := func(title string, rows [][]any, columns ...string) {
		if len(rows) > 0 {
			b.WriteString(text.Paragraph(title, text.Table(columns, rows), ""))
		}
	}
	paragraph("Your working set is made of the following images:", owned, "name", "in_use", "created", "compatibility")
	if showAll {
		paragraph("Other users of this platform have created the following images:", others, "user", "name", "created", "clonable_link")
		paragraph("The following are default OS images:", defaults, "name", "created", "clonable_link")
	}
	foreign := len(others)+len(defaults) > 0
	var notes []string
	switch {
	case len(owned) == 0 && !showAll:
		notes = append(notes, "Your working set is empty.")
	case len(all) == 0:
		notes = append(notes, "No OS images found!")
	}
	if !showAll && foreign {
		notes = append(notes, "Re-run with --all to see all OS images on this platform.")
	}
	if showAll && len(all) > 0 {
		if foreign {
			notes = append(notes, "Use 'walt image clone <clonable_link>' to clone an image\ninto your working set.")
		}
		notes = append(notes, "Use 'walt image search [<keyword>]' to search for images\non remote registries.")
	}
	return b.String() + strings.Join(notes, "\n")
}
