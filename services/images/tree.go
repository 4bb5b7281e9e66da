package images

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/waltos/waltos/services/bootfile"
	"github.com/waltos/waltos/services/internal/pattern"
)

// The tree State/nodes (server-state 1.11) leads from what a node knows of itself
// (MAC, address, name) to its image, boot files and storage.

var macAddress = pattern.Lazy(`^[0-9a-f]{2}(:[0-9a-f]{2}){5}$`)

// validName tells whether a text may stand as a name in a folder.
func validName(s string) bool {
	return s != "" && !strings.HasPrefix(s, ".") && !strings.ContainsAny(s, "/\x00\n") && len(s) < 256
}

// maxProbing bounds the links made for free addresses: those of a /16.
const maxProbing = 1 << 16

const (
	probing   = "probing"
	forbidden = "forbidden_dir" // does not exist, so that mounting it fails
)

func (m *Manager) nodes() string { return filepath.Join(m.config.State, "nodes") }

// inNetwork tells whether a device is in walt-net, and its address.
func (m *Manager) inNetwork(d Device) (netip.Addr, bool) {
	ip, err := netip.ParseAddr(d.IP)
	return ip, err == nil && m.config.Network.Contains(ip)
}

// owner returns the first part of the image name of a node.
func owner(d Device) string {
	user, _, _ := strings.Cut(d.Image, "/")
	return user
}

// persistDir returns the folder in which a node may store files of the owner of its
// image, or "" for another device.
func (m *Manager) persistDir(d Device) string {
	_, ok := m.inNetwork(d)
	if d.Type != "node" || !ok || !macAddress().MatchString(d.MAC) || !validName(owner(d)) || strings.ContainsAny(owner(d), " \t\"\\#()") {
		return ""
	}
	return filepath.Join(m.nodes(), d.MAC, "persist_dirs", owner(d))
}

// wantedTree computes the links of the tree, by path below it, and the folders that
// must exist.
func (m *Manager) wantedTree(devices []Device) (links map[string]string, folders map[string]bool) {
	links, folders = map[string]string{}, map[string]bool{probing: true}
	c := m.catalog.Load()
	// Nodes first: a name or address of a node is never taken by something else.
	devices = slices.Clone(devices)
	slices.SortStableFunc(devices, func(a, b Device) int { return rank(a) - rank(b) })
	taken := map[netip.Addr]bool{m.config.Network.Addr(): true}
	add := func(name, target string) {
		if _, known := links[name]; !known && validName(name) && !folders[name] {
			links[name] = target
		}
	}
	for _, d := range devices {
		ip, ok := m.inNetwork(d)
		if !ok {
			continue
		}
		taken[ip] = true
		if !macAddress().MatchString(d.MAC) {
			continue
		}
		dashes := strings.ReplaceAll(d.MAC, ":", "-")
		switch {
		case d.Type == "node":
			folders[d.MAC] = true
			for _, name := range []string{dashes, ip.String(), d.Name} {
				add(name, d.MAC)
			}
			if id := c.names[d.Image]; id != "" && validName(d.Model) {
				root := "../../images/" + id + "/fs"
				links[d.MAC+"/fs"] = root
				links[d.MAC+"/tftp"] = root + "/boot/" + d.Model
			}
			persist := forbidden
			if dir := m.persistDir(d); dir != "" {
				folders[d.MAC+"/persist_dirs/"+owner(d)] = true
				if d.Persist {
					persist = "persist_dirs/" + owner(d)
				}
			}
			links[d.MAC+"/persist"] = persist
		case d.Type == "unknown" && bootfile.RaspberryPi(d.MAC): // generic boot files, node-protocols 1.5
			for _, name := range []string{d.MAC, dashes, ip.String(), d.Name} {
				add(name, probing)
			}
		}
	}
	links[probing+"/tftp"] = "../../tftp-static"
	subnet := m.config.Network.Masked()
	if bits := 32 - subnet.Bits(); subnet.Addr().Is4() && bits >= 2 && 1<<bits <= maxProbing {
		ip := subnet.Addr().Next()
		for range 1<<bits - 2 {
			if !taken[ip] {
				add(ip.String(), probing)
			}
			ip = ip.Next()
		}
	}
	return links, folders
}

func rank(d Device) int {
	if d.Type == "node" {
		return 0
	}
	return 1
}

// ours are the links that this package makes in the folder of a node.
var ours = []string{"fs", "tftp", "persist"}

// writeTree brings the tree in line. It makes and removes links and empty folders;
// files of nodes are never touched.
func (m *Manager) writeTree(devices []Device) error {
	root, err := os.OpenRoot(m.nodes())
	if err != nil {
		return fmt.Errorf("cannot keep the tree of nodes: %w", err)
	}
	defer root.Close()
	t := &imageRoot{root}
	links, folders := m.wantedTree(devices)
	var problems []error
	report := func(err error) {
		if err != nil && len(problems) < 10 {
			problems = append(problems, fmt.Errorf("cannot keep the tree of nodes: %w", err))
		}
	}
	report(removeUnwanted(root, links, folders))
	for folder := range folders {
		report(makeFolder(root, folder))
	}
	for name, target := range links {
		report(t.linkResolved(name, target))
	}
	return errors.Join(problems...)
}

// removeUnwanted removes the links that are not wanted, and folders of nodes gone that
// hold nothing else.
func removeUnwanted(root *os.Root, links map[string]string, folders map[string]bool) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			if _, wanted := links[name]; !wanted {
				err = errors.Join(err, root.Remove(name))
			}
		case e.IsDir() && macAddress().MatchString(name):
			for _, link := range ours {
				at := path.Join(name, link)
				info, statErr := root.Lstat(at)
				if _, wanted := links[at]; !wanted && statErr == nil && info.Mode()&fs.ModeSymlink != 0 {
					err = errors.Join(err, root.Remove(at))
				}
			}
			if !folders[name] {
				_ = root.Remove(name) // fails if the node has stored something
			}
		}
	}
	return err
}

// makeFolder makes a folder, and moves what very old versions of WalT kept elsewhere:
// persist was a folder first, then persist_dir was one for all owners.
func makeFolder(root *os.Root, name string) error {
	mac, _, nested := strings.Cut(name, "/")
	if nested {
		if info, err := root.Lstat(mac + "/persist"); err == nil && info.IsDir() {
			if err := root.Rename(mac+"/persist", mac+"/persist_dir"); err != nil {
				return err
			}
		}
		_, err := root.Lstat(name)
		info, oldErr := root.Lstat(mac + "/persist_dir")
		if errors.Is(err, fs.ErrNotExist) && oldErr == nil && info.IsDir() {
			if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
				return err
			}
			return root.Rename(mac+"/persist_dir", name)
		}
	}
	if info, err := root.Lstat(name); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		// A device that was unknown has become a node.
		if err := root.Remove(name); err != nil {
			return err
		}
	}
	return root.MkdirAll(name, 0o755)
}
