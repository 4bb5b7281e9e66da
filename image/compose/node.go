package compose

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/image/store"
	"github.com/waltos/waltos/image/tree"
)

// registry is the one that image names without any refer to.
const registry = "docker.io/"

// nodeImages returns all node images, which are for the architecture of the tools,
// whatever that of the appliance is.
func (b *builder) nodeImages(ctx context.Context, k *kernel) ([]store.Image, error) {
	var images []store.Image
	for _, image := range b.Inputs.Native.Appliance.Images {
		root, err := b.nodeRoot(ctx, k, image)
		if err != nil {
			return nil, fmt.Errorf("cannot make image %s: %w", image.Name, err)
		}
		images = append(images, store.Image{
			Name: registry + image.Name, Labels: image.Labels, Architecture: b.Inputs.Native.Appliance.Debian.Architecture,
			Created: b.time, Command: []string{"/sbin/init"}, Root: root,
		})
	}
	return images, nil
}

// writeNodes writes the node images as an archive for podman and docker.
func writeNodes(ctx context.Context, b *builder, w io.Writer) error {
	k, err := b.readKernel(ctx, b.Inputs.Native)
	if err != nil {
		return err
	}
	images, err := b.nodeImages(ctx, k)
	if err != nil {
		return err
	}
	return store.WriteArchive(w, images)
}

// nodeRoot fills a node image: packages, a user land of busybox, our static files,
// and what boots it.
func (b *builder) nodeRoot(ctx context.Context, k *kernel, image *hcl.NodeImage) (*tree.Tree, error) {
	t, err := b.readPackages(ctx, b.Inputs.Native.Lock, lock.ImageSet(image.Name), image.Drop)
	if err != nil {
		return nil, err
	}
	for _, dir := range []struct {
		path string
		mode fs.FileMode
	}{
		{"/dev", 0o755}, {"/proc", 0o755}, {"/sys", 0o755}, {"/run", 0o755}, {"/mnt", 0o755}, {"/home", 0o755},
		{"/persist", 0o755}, {"/tmp", 0o777 | fs.ModeSticky}, {"/root", 0o700}, {"/root/.ssh", 0o700},
		{"/etc/dropbear", 0o755}, {"/var/log", 0o755}, {"/var/lib", 0o755}, {"/var/tmp", 0o777 | fs.ModeSticky},
	} {
		if err := t.Dir(dir.path, dir.mode, 0, 0, "builder"); err != nil {
			return nil, err
		}
	}
	if err := b.addApplets(ctx, t, lock.ImageSet(image.Name)); err != nil {
		return nil, err
	}
	if err := addStatic(t, filepath.Join(b.Source, "image", "node")); err != nil {
		return nil, err
	}
	if err := t.Graft("/", k.modules); err != nil {
		return nil, err
	}
	initrd, err := b.initramfs(k, b.programs.node, image.Modules, &hcl.Kernel{})
	if err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{"kernel": k.image, "initrd": initrd} {
		f := &tree.File{Mode: 0o644, Content: content, Origin: "builder"}
		if err := t.Add(path.Join("/boot", image.Model, name), f); err != nil {
			return nil, err
		}
	}
	b.Progress.Say("image %s: %d MB, initrd %.1f MB", image.Name, t.Size()/1e6, float64(len(initrd))/1e6)
	return t, nil
}

// addApplets makes a link for each command of busybox that no package provides.
func (b *builder) addApplets(ctx context.Context, t *tree.Tree, set string) error {
	if t.Find("/usr/bin/busybox") == nil {
		return nil
	}
	box, err := b.Inputs.Toolbox(ctx, set)
	if err != nil {
		return err
	}
	list, err := box.Command(ctx, "busybox", "--list").Output()
	if err != nil {
		return fmt.Errorf("cannot list the commands of busybox: %w", err)
	}
	for applet := range strings.FieldsSeq(string(bytes.TrimSpace(list)) + " init") {
		if strings.Contains(applet, "/") {
			return fmt.Errorf("cannot link command %q of busybox", applet)
		}
		dir, target := "/usr/bin", "busybox"
		if systemCommands[applet] {
			dir, target = "/usr/sbin", "../bin/busybox"
		}
		if t.Find("/usr/bin/"+applet) != nil || t.Find("/usr/sbin/"+applet) != nil {
			continue
		}
		if err := t.Add(path.Join(dir, applet), symlink(target)); err != nil {
			return err
		}
	}
	return nil
}

// systemCommands are called as /sbin/NAME by the kernel, by init or by scripts.
var systemCommands = map[string]bool{
	"init": true, "modprobe": true, "insmod": true, "rmmod": true, "depmod": true, "mdev": true, "getty": true,
	"halt": true, "poweroff": true, "reboot": true, "ifconfig": true, "route": true, "ip": true, "udhcpc": true,
	"mkswap": true, "swapon": true, "swapoff": true, "switch_root": true, "pivot_root": true, "sysctl": true,
	"losetup": true, "nbd-client": true, "syslogd": true, "klogd": true,
}
