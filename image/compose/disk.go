package compose

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/image/erofs"
	"github.com/waltos/waltos/image/fat"
	"github.com/waltos/waltos/image/gpt"
	"github.com/waltos/waltos/image/tree"
	"github.com/waltos/waltos/image/uki"
	"github.com/waltos/waltos/image/verity"
)

// slot is the partition that a fresh image boots from.
const slot = "a"

// seed makes identifiers that depend on what the appliance is, not on when it is built.
func (b *builder) seed(of string) string {
	return b.Inputs.Appliance.Name + " " + b.Inputs.Appliance.Version + " " + of
}

// unfinished begins the names of what is not an output yet.
const unfinished = ".walt-build-"

// sweep removes what a build that was killed has left among the outputs.
func (b *builder) sweep() error {
	entries, err := os.ReadDir(b.Output)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), unfinished) {
			if err := os.RemoveAll(filepath.Join(b.Output, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// write makes all outputs in a folder beside the final one and moves them there, the
// manifest last. Files in use, as by a running lab, stay what they are.
func (b *builder) write(ctx context.Context, root *tree.Tree, k *kernel, initrd []byte) error {
	dir, err := os.MkdirTemp(b.Output, unfinished)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	slotFile := filepath.Join(dir, "root")
	system, err := b.rootImage(ctx, slotFile, root)
	if err != nil {
		return err
	}
	b.Progress.Say("root slot: %d MB", (system.size+system.tree)/1e6)
	b.manifest.Command = b.command(slot, system)
	ukis, err := b.ukis(k, initrd, system)
	if err != nil {
		return err
	}
	unified := ukis[slot]
	if err := b.disk(filepath.Join(dir, DiskName), unified, system); err != nil {
		return err
	}
	if err := b.bundle(filepath.Join(dir, bundleName), ukis, system); err != nil {
		return err
	}
	b.manifest.Content = root.Origins()
	materials, err := b.materials()
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		sbomName: materials, kernelName: k.image, initrdName: initrd, ukiName: unified, commandName: []byte(b.manifest.Command + "\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	if err := os.Remove(slotFile); err != nil {
		return err
	}
	for name, size := range map[string]int64{
		"kernel": int64(len(k.image)), "initrd": int64(len(initrd)), "uki": int64(len(unified)),
		"root": system.size, "verity": system.tree, "root content": root.Size(),
		"supervisor": int64(len(b.programs.supervisor)), "services": int64(len(b.programs.services)),
		"installer": int64(len(b.programs.installer)), "node program": int64(len(b.programs.node)),
	} {
		b.manifest.Sizes[name] = size
	}
	names := []string{DiskName, kernelName, initrdName, ukiName, bundleName, commandName, sbomName}
	for _, name := range names {
		if err := b.manifest.add(dir, name); err != nil {
			return fmt.Errorf("cannot hash %s: %w", name, err)
		}
	}
	if err := b.removeExtras(); err != nil {
		return err
	}
	return b.publish(dir, names)
}

// publish signs the manifest in a folder and moves it and some outputs from there to
// where outputs are, the manifest last.
func (b *builder) publish(dir string, names []string) error {
	content, err := json.MarshalIndent(b.manifest, "", "  ")
	if err != nil {
		return err
	}
	content = append(content, '\n')
	signature, err := b.signer.manifest(content, b.release().String())
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{manifestName: content, signatureName: signature} {
		if err := os.WriteFile(filepath.Join(dir, name+".new"), content, 0o644); err != nil {
			return err
		}
	}
	// Without a manifest nobody takes a mixture of old and new for an image.
	if err := os.Remove(filepath.Join(b.Output, manifestName)); err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, name := range names {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(b.Output, name)); err != nil {
			return err
		}
	}
	for _, name := range []string{signatureName, manifestName} {
		if err := os.Rename(filepath.Join(dir, name+".new"), filepath.Join(b.Output, name)); err != nil {
			return err
		}
	}
	return nil
}

// rootSlot is the content of a root partition.
type rootSlot struct {
	file       string
	size, tree int64 // bytes of the file system and of the hash tree after it
	salt, hash []byte
}

// verity returns the parameter that tells the initramfs how to map the slot.
func (s *rootSlot) verity() string {
	blocks := s.size / verity.BlockSize
	return fmt.Sprintf("%s,%s,%d,%d", hex.EncodeToString(s.hash), hex.EncodeToString(s.salt), blocks, blocks)
}

func (b *builder) rootImage(ctx context.Context, name string, root *tree.Tree) (*rootSlot, error) {
	size, err := erofs.Write(ctx, name, root, erofs.Options{
		UUID: gpt.DerivedGUID(b.seed("root")).String(), Time: b.time,
		Command: func(ctx context.Context, arguments ...string) (*exec.Cmd, error) {
			return b.toolbox.Command(ctx, "mkfs.erofs", arguments...), nil
		},
	})
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	salt := sha256.Sum256([]byte(b.seed("salt") + b.Inputs.Lock.Digest()))
	hash, length, err := verity.Append(f, size, salt[:])
	if err != nil {
		return nil, err
	}
	return &rootSlot{name, size, length, salt[:], hash[:]}, f.Close()
}

// disk writes the whole disk: the partitions esp, root-a and root-b. The partition
// data is added when it first boots.
func (b *builder) disk(name string, unified []byte, system *rootSlot) error {
	d := b.Inputs.Appliance.Disk
	var sizes [3]int64 // of the ESP, a slot, the margin
	for i, text := range []string{d.ESP, d.Slot, d.Margin} {
		n, err := hcl.ParseSize(text)
		if err != nil {
			return err
		}
		sizes[i] = n
	}
	if used := system.size + system.tree; used > sizes[1] {
		return fmt.Errorf("the root takes %d bytes, but a slot has %d; raise disk.slot or drop content in image/appliance.hcl", used, sizes[1])
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	total := gpt.Alignment + sizes[0] + 2*sizes[1] + sizes[2]
	if err := f.Truncate(total); err != nil {
		return err
	}
	table, err := gpt.New(total, gpt.DerivedGUID(b.seed("disk")))
	if err != nil {
		return err
	}
	for _, p := range []struct {
		name string
		kind gpt.GUID
		size int64
	}{{"esp", gpt.EFISystem, sizes[0]}, {"root-a", gpt.Linux, sizes[1]}, {"root-b", gpt.Linux, sizes[1]}} {
		part := &gpt.Partition{Name: p.name, Type: p.kind, ID: gpt.DerivedGUID(b.seed(p.name))}
		if err := table.Add(part, p.size); err != nil {
			return err
		}
	}
	if err := table.Write(f); err != nil {
		return err
	}

	content := tree.New()
	if err := content.Add(uki.BootName(b.Inputs.Appliance.Debian.Architecture), &tree.File{Mode: 0o644, Content: unified}); err != nil {
		return err
	}
	_, esp := table.Find("esp")
	_, root := table.Find("root-" + slot)
	id := sha256.Sum256([]byte(b.seed("esp")))
	group := errgroup.Group{}
	group.Go(func() error {
		return fat.Write(io.NewOffsetWriter(f, esp.Offset()), fat.Volume{
			Size: esp.Size(), Label: "WALT-ESP", ID: binary.LittleEndian.Uint32(id[:]), Time: b.time, Hidden: uint32(esp.First),
		}, content)
	})
	group.Go(func() error {
		from, err := os.Open(system.file)
		if err != nil {
			return err
		}
		defer from.Close()
		_, err = io.Copy(io.NewOffsetWriter(f, root.Offset()), from)
		return err
	})
	if err := group.Wait(); err != nil {
		return fmt.Errorf("cannot write disk image: %w", err)
	}
	return f.Close()
}
