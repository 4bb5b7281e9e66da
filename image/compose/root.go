package compose

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/image/tree"
)

// lib is where everything of ours is on the appliance.
const lib = "/usr/lib/walt"

// mountPoints are folders that are empty in the root.
var mountPoints = []string{"/boot", "/dev", "/media", "/mnt", "/proc", "/run", "/srv", "/sys", "/tmp", "/var"}

// rootContent is what the read-only root is put together from.
type rootContent struct {
	kernel   *kernel
	packages *tree.Tree
	images   *tree.Tree // container store
	wheels   []lock.Wheel
}

// root completes the tree of the packages. What is ours replaces what packages bring.
func (b *builder) root(c *rootContent) (*tree.Tree, error) {
	t := c.packages
	a := b.Inputs.Appliance
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"mount points", func() error { return addMountPoints(t) }},
		{"modules", func() error { return t.Graft("/", c.kernel.modules) }},
		{"programs", func() error { return b.addPrograms(t) }},
		{"network boot loaders", func() error { return addLoaders(t) }},
		{"certificates", func() error { return addCertificates(t) }},
		{"accounts", func() error { return addAccounts(t, a.Users) }},
		{"wheels", func() error { return addWheels(t, b.Inputs.Fetcher.Cache, c.wheels) }},
		{"static files", func() error { return addStatic(t, filepath.Join(b.Source, "image", "root")) }},
		{"units", func() error { return b.addUnits(t) }},
		{"folders", func() error { return addFolders(t, a) }},
		{"kernel settings", func() error { return addKernelSettings(t, a.Kernel) }},
		{"links", func() error { return addLinks(t, a.Links) }},
		{"description", func() error { return b.addDescription(t, c.kernel) }},
		{"node images", func() error { return t.Graft(lib+"/storage", c.images) }},
	} {
		if err := step.do(); err != nil {
			return nil, fmt.Errorf("cannot compose the root: %s: %w", step.what, err)
		}
	}
	// The node images share libraries with the root.
	t.Dedupe(1024)
	return t, nil
}

func addMountPoints(t *tree.Tree) error {
	for _, dir := range mountPoints {
		mode := fs.FileMode(0o755)
		if dir == "/tmp" {
			mode = 0o777 | fs.ModeSticky
		}
		t.Remove(dir)
		if err := t.Dir(dir, mode, 0, 0, "builder"); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) addPrograms(t *tree.Tree) error {
	for name, content := range map[string][]byte{
		lib + "/supervisor":           b.programs.supervisor,
		lib + "/services":             b.programs.services,
		lib + "/node/walt-node":       b.programs.node,
		"/usr/sbin/walt-server-setup": b.programs.installer,
	} {
		if err := t.Add(name, &tree.File{Mode: 0o755, Content: content, Origin: "our programs"}); err != nil {
			return err
		}
	}
	return nil
}

// loaders are the boot loaders of nodes, by their names in our folder and in the
// package ipxe.
var loaders = [][2]string{
	{"undionly.kpxe", "undionly.kpxe"},
	{"walt-x86-undionly.kpxe", "undionly.kpxe"}, // as nodes have always asked for it
	{"snponly.efi", "snponly.efi"},
	{"ipxe.efi", "ipxe.efi"},
}

func addLoaders(t *tree.Tree) error {
	for _, names := range loaders {
		f, err := t.Get("/usr/lib/ipxe/" + names[1])
		if err != nil {
			return err
		}
		if err := t.Add(lib+"/pxe/"+names[0], f); err != nil {
			return err
		}
	}
	t.Remove("/usr/lib/ipxe")
	return nil
}

// addCertificates joins the certificates of authorities into the file that TLS
// libraries read, which a maintainer script does on Debian.
func addCertificates(t *tree.Tree) error {
	const from = "/usr/share/ca-certificates"
	var bundle []byte
	err := t.Walk(func(name string, f *tree.File) error {
		if strings.HasPrefix(name, from+"/") && strings.HasSuffix(name, ".crt") {
			bundle = append(bundle, f.Content...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(bundle) == 0 {
		return fmt.Errorf("no certificate below %s", from)
	}
	t.Remove(from)
	return t.Replace("/etc/ssl/certs/ca-certificates.crt", &tree.File{Mode: 0o644, Content: bundle, Origin: "builder"})
}

// addStatic adds the files of a folder of the sources at the same paths. Only the
// owner's execute bit of the host is looked at, because a umask changes the others.
func addStatic(t *tree.Tree, dir string) error {
	return filepath.WalkDir(dir, func(host string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		below, err := filepath.Rel(dir, host)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		f := &tree.File{Mode: 0o644, Origin: "static files"}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			if f.Target, err = os.Readlink(host); err != nil {
				return err
			}
			f.Mode = fs.ModeSymlink | 0o777
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s is no regular file", host)
		default:
			if info.Mode()&0o100 != 0 {
				f.Mode = 0o755
			}
			if f.Content, err = os.ReadFile(host); err != nil {
				return err
			}
		}
		return t.Replace("/"+filepath.ToSlash(below), f)
	})
}

// addUnits checks the units before they become read-only.
func (b *builder) addUnits(t *tree.Tree) error {
	dir := filepath.Join(b.Source, "image", "units")
	if _, err := hcl.LoadUnits(dir); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.hcl"))
	if err != nil {
		return err
	}
	for _, host := range files {
		content, err := os.ReadFile(host)
		if err != nil {
			return err
		}
		if err := t.Add(path.Join(lib, "units", filepath.Base(host)), &tree.File{Mode: 0o644, Content: content, Origin: "units"}); err != nil {
			return err
		}
	}
	return nil
}

// RuntimeFolder is an element of /usr/lib/walt/folders.json: what the supervisor
// makes on the data partition and in /run at each boot, in this order.
type RuntimeFolder struct {
	Path string `json:"path"`
	User string `json:"user"`
	Mode string `json:"mode"` // octal, as "1777"
}

// writable tells the paths that are not in the read-only root.
func writable(name string) bool {
	return strings.HasPrefix(name, "/var/") || strings.HasPrefix(name, "/run/")
}

func addFolders(t *tree.Tree, a *hcl.Appliance) error {
	list := []RuntimeFolder{}
	for _, f := range a.Folders {
		if !writable(f.Path) {
			return fmt.Errorf("folder %q is neither below /var nor below /run", f.Path)
		}
		list = append(list, RuntimeFolder{f.Path, f.User, f.Mode})
	}
	return addJSON(t, lib+"/folders.json", list)
}

// addKernelSettings writes what the supervisor applies at each boot, in the usual forms.
func addKernelSettings(t *tree.Tree, k *hcl.Kernel) error {
	for name, content := range map[string][]byte{
		modprobeConf:                        k.ModprobeConf(),
		"/usr/lib/sysctl.d/walt.conf":       k.SysctlConf(),
		"/usr/lib/modules-load.d/walt.conf": []byte(strings.Join(append(k.Loaded(), ""), "\n")),
	} {
		if err := t.Replace(name, &tree.File{Mode: 0o644, Content: content, Origin: "builder"}); err != nil {
			return err
		}
	}
	return nil
}

// modprobeConf counts in the initramfs too.
const modprobeConf = "/usr/lib/modprobe.d/walt.conf"

func addLinks(t *tree.Tree, links []*hcl.Link) error {
	for _, l := range links {
		if writable(l.Path) {
			return fmt.Errorf("link %q is not in the read-only root", l.Path)
		}
		// A folder of packages that holds nothing gives way, as /root does.
		if err := t.Replace(l.Path, symlink(l.Target)); err != nil {
			return fmt.Errorf("link %s: %w", l.Path, err)
		}
	}
	return nil
}

// Description is the content of /usr/lib/walt/appliance.json.
type Description struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Released bool   `json:"released"` // false: built from a lock override
	Time     string `json:"time"`     // of the packages, RFC 3339
	Kernel   string `json:"kernel"`
	Go       string `json:"go"`
	Lock     string `json:"lock"`  // digest
	Build    string `json:"build"` // digest of all that the image is built from; see bundle.Release
}

func (b *builder) addDescription(t *tree.Tree, k *kernel) error {
	d := Description{
		Name: b.Inputs.Appliance.Name, Version: b.Inputs.Appliance.Version, Released: b.Inputs.Released(),
		Time: b.time.Format("2006-01-02T15:04:05Z"), Kernel: k.release, Go: b.programs.toolchain,
		Lock: b.Inputs.Lock.Digest(), Build: b.manifest.Build,
	}
	if err := addJSON(t, lib+"/appliance.json", d); err != nil {
		return err
	}
	t.Remove("/etc/os-release")
	release := &tree.File{Mode: 0o644, Content: b.osRelease(), Origin: "builder"}
	if err := t.Replace("/usr/lib/os-release", release); err != nil {
		return err
	}
	return t.Add("/etc/os-release", symlink("../usr/lib/os-release"))
}

// osRelease is an os-release(5) file. IMAGE_VERSION orders images, BUILD_ID tells apart what has the same.
func (b *builder) osRelease() []byte {
	a := b.Inputs.Appliance
	text := fmt.Sprintf("NAME=\"WalT\"\nPRETTY_NAME=\"WalT server %s\"\nID=walt\nID_LIKE=debian\nVERSION_ID=%s\nIMAGE_ID=%s\nIMAGE_VERSION=%s\nBUILD_ID=%.12s\n",
		a.Version, a.Version, a.Name, b.time.Format("20060102.150405"), b.manifest.Build)
	if !b.Inputs.Released() {
		text += "VARIANT=\"not the released image\"\n"
	}
	return []byte(text)
}

func addJSON(t *tree.Tree, name string, value any) error {
	content, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return t.Replace(name, &tree.File{Mode: 0o644, Content: append(content, '\n'), Origin: "builder"})
}
