package hcl

import (
	"slices"
	"strconv"

	hcl2 "github.com/hashicorp/hcl/v2"
)

// Appliance describes what the image contains: the content of image/appliance.hcl.
type Appliance struct {
	Name    string `hcl:"name"`    // as "walt"
	Version string `hcl:"version"` // WalT version announced to clients, as "10.0"

	Debian        *Debian         `hcl:"debian,block"`
	Disk          *Disk           `hcl:"disk,block"`
	Boot          *Boot           `hcl:"boot,block"`
	Root          *Root           `hcl:"root,block"`
	Kernel        *Kernel         `hcl:"kernel,block"`
	Architectures []*Architecture `hcl:"architecture,block"`
	Images        []*NodeImage    `hcl:"node_image,block"`
	Tools         []*Tool         `hcl:"tool,block"`
	Wheels        []*Wheels       `hcl:"wheels,block"`
	Users         []*User         `hcl:"user,block"`
	Folders       []*Folder       `hcl:"folder,block"` // made on the data partition at each boot
	Links         []*Link         `hcl:"link,block"`
}

// Debian is the distribution that packages come from.
type Debian struct {
	Architecture string   `hcl:"architecture"`          // as "amd64": of the appliance unless it is chosen, of tools and node images always
	Suites       []string `hcl:"suites"`                // as "trixie", "trixie-security"
	Components   []string `hcl:"components"`            // as "main"
	Keys         []string `hcl:"keys"`                  // fingerprints that may sign InRelease, hexadecimal
	Alternatives []string `hcl:"alternatives,optional"` // packages preferred where a dependency offers a choice
	Excluded     []string `hcl:"excluded,optional"`     // dependencies that are never followed
}

// Disk is the partition table; sizes as "512M".
type Disk struct {
	ESP  string `hcl:"esp"`
	Slot string `hcl:"slot"` // of each of root-a and root-b
	// Margin is left after the last slot in the image file, so that a partition
	// table fits; the data partition takes what the real disk has more.
	Margin string `hcl:"margin,optional"`
}

// Boot is what is loaded before the root.
type Boot struct {
	Packages []string `hcl:"packages,optional"` // besides the kernel: what unified kernel images begin with
	Modules  []string `hcl:"modules"`           // in the initramfs, with what they depend on

	Kernel  string // as the block architecture says
	Command string // the same
}

// Architecture is what appliances have on processors of a kind. When an appliance is
// decoded, Boot and Root take over the block that was chosen.
type Architecture struct {
	Name     string   `hcl:"name,label"`        // as Debian calls it: "amd64"
	Kernel   string   `hcl:"kernel"`            // package that holds vmlinuz and modules
	Command  string   `hcl:"command"`           // kernel command line; slot and root hash are appended
	Modules  []string `hcl:"modules,optional"`  // in the initramfs, besides those of boot
	Packages []string `hcl:"packages,optional"` // in the root, besides those of root
}

// Root is the read-only system.
type Root struct {
	Packages []string `hcl:"packages"`
	Modules  []string `hcl:"modules,optional"` // modules kept, folders or names; default all
	Drop     []string `hcl:"drop,optional"`    // path patterns removed (path.Match on each prefix)
}

// NodeImage is a container image for nodes, shipped inside the appliance.
type NodeImage struct {
	Name     string            `hcl:"name,label"` // full name, as "waltplatform/pc-x86-64-default:latest"
	Labels   map[string]string `hcl:"labels"`
	Model    string            `hcl:"model"`
	Packages []string          `hcl:"packages"`
	Modules  []string          `hcl:"modules"` // in its initramfs, with what they depend on
	Drop     []string          `hcl:"drop,optional"`
}

// Tool is a set of packages that the build or the lab runs from the cache.
type Tool struct {
	Name     string   `hcl:"name,label"`
	Packages []string `hcl:"packages"`
}

// Wheels is a set of Python packages that the lab runs from the cache.
type Wheels struct {
	Name         string   `hcl:"name,label"`
	Requirements []string `hcl:"requirements"` // as "walt-client==10.0"
	// Shipped are those that the appliance holds, for clients that update themselves.
	Shipped []string `hcl:"shipped,optional"`
}

// User is an account of the image; numbers are fixed because the data partition
// outlives the image.
type User struct {
	Name  string `hcl:"name,label"`
	ID    int    `hcl:"id"` // user and group number
	Home  string `hcl:"home,optional"`
	Shell string `hcl:"shell,optional"`
	// Groups are supplementary groups, by name.
	Groups []string `hcl:"groups,optional"`
}

// Folder is a folder of the running system outside of the read-only root.
type Folder struct {
	Path string `hcl:"path,label"`
	User string `hcl:"user,optional"` // owner, default root
	Mode string `hcl:"mode,optional"` // octal, default "0755"
}

// Link is a symbolic link of the read-only root.
type Link struct {
	Path   string `hcl:"path,label"`
	Target string `hcl:"target"`

	Range hcl2.Range `hcl:",def_range"`
}

// ParseAppliance decodes and checks an appliance description, for processors of an
// architecture; empty: of that which debian names. For another one it has no images,
// tools and wheels: those of the first serve it too.
func ParseAppliance(src []byte, name, architecture string) (*Appliance, error) {
	d, err := parse(src, name)
	if err != nil {
		return nil, err
	}
	a := &Appliance{}
	if err := d.decode(a, nil); err != nil {
		return nil, err
	}
	a.check(d)
	a.choose(d, architecture)
	if err := d.err(); err != nil {
		return nil, err
	}
	return a, nil
}

// choose makes an appliance one of an architecture.
func (a *Appliance) choose(d *document, architecture string) {
	if a.Debian == nil || a.Boot == nil || a.Root == nil {
		return // refused already
	}
	if architecture == "" {
		architecture = a.Debian.Architecture
	}
	i := slices.IndexFunc(a.Architectures, func(x *Architecture) bool { return x.Name == architecture })
	if i < 0 {
		file := d.body.MissingItemRange()
		d.refuse(&file, "Invalid appliance", "No block architecture %q says what an appliance for it is made of.", architecture)
		return
	}
	own := a.Architectures[i]
	a.Boot.Kernel, a.Boot.Command = own.Kernel, own.Command
	a.Boot.Modules = slices.Concat(a.Boot.Modules, own.Modules)
	a.Root.Packages = slices.Concat(a.Root.Packages, own.Packages)
	if architecture != a.Debian.Architecture {
		a.Debian.Architecture = architecture
		a.Images, a.Tools, a.Wheels = nil, nil, nil
	}
}

// LoadAppliance reads an appliance description; see ParseAppliance.
func LoadAppliance(path, architecture string) (*Appliance, error) {
	src, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return ParseAppliance(src, path, architecture)
}

func (a *Appliance) check(d *document) {
	file := d.body.MissingItemRange()
	refuse := func(format string, args ...any) {
		d.refuse(&file, "Invalid appliance", format, args...)
	}
	for _, block := range []struct {
		name    string
		missing bool
	}{{"debian", a.Debian == nil}, {"disk", a.Disk == nil}, {"boot", a.Boot == nil}, {"root", a.Root == nil}} {
		if block.missing {
			refuse("The block %s is missing.", block.name)
		}
	}
	a.Kernel = orNew(a.Kernel)
	checkKernel(d, a.Kernel, file)
	if a.Disk != nil {
		setDefault(&a.Disk.Margin, "1M")
		for _, field := range [][2]string{{"esp", a.Disk.ESP}, {"slot", a.Disk.Slot}, {"margin", a.Disk.Margin}} {
			if size, err := ParseSize(field[1]); err != nil || size%(1<<20) != 0 {
				refuse("disk %s is %q; write a multiple of 1M.", field[0], field[1])
			}
		}
	}
	names, ids := map[string]bool{}, map[int]string{}
	for _, u := range a.Users {
		if names[u.Name] {
			refuse("User %q is defined twice.", u.Name)
		}
		if other, taken := ids[u.ID]; taken {
			refuse("Users %q and %q have the same number %d.", other, u.Name, u.ID)
		}
		names[u.Name], ids[u.ID] = true, u.Name
		setDefault(&u.Home, "/nonexistent")
		setDefault(&u.Shell, "/usr/sbin/nologin")
	}
	for _, f := range a.Folders {
		setDefault(&f.User, "root")
		setDefault(&f.Mode, "0755")
		if _, err := strconv.ParseUint(f.Mode, 8, 12); err != nil {
			refuse("Folder %q has mode %q; write octal digits such as \"0755\".", f.Path, f.Mode)
		}
		if f.User != "root" && !names[f.User] {
			refuse("Folder %q belongs to %q, which no user block defines.", f.Path, f.User)
		}
	}
}
