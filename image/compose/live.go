package compose

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/waltos/waltos/image/cpio"
	"github.com/waltos/waltos/image/fat"
	"github.com/waltos/waltos/image/gpt"
	"github.com/waltos/waltos/image/tree"
	"github.com/waltos/waltos/image/uki"
)

// A live system is booted as one file, over the network or from a medium: its initial
// root holds the whole root slot, which is verified like that of a disk. What it writes
// is in memory.

// live is the slot of a live system; liveFile is where the supervisor looks for its root
// (see package supervisor/boot).
const (
	live     = "live"
	liveFile = "/root.img"
	liveName = "walt-live.efi"
)

// liveSystem returns the parts of the live system that belongs to the disk.
func (b *builder) liveSystem(ctx context.Context) (parts uki.Parts, err error) {
	disk, err := b.openDisk(ctx)
	if err != nil {
		return parts, err
	}
	defer disk.Close()
	table, err := gpt.Read(disk, b.manifest.Outputs[DiskName].Size)
	if err != nil {
		return parts, err
	}
	_, system := table.Find("root-" + slot)
	if system == nil {
		return parts, errors.New("the disk has no root")
	}
	root := make([]byte, b.manifest.Sizes["root"]+b.manifest.Sizes["verity"])
	if _, err := disk.ReadAt(root, system.Offset()); err != nil {
		return parts, err
	}
	unified, err := os.ReadFile(filepath.Join(b.Output, ukiName))
	if err != nil {
		return parts, err
	}
	if parts, err = uki.Read(unified); err != nil {
		return parts, err
	}
	parts.Command = strings.NewReplacer("walt.slot="+slot, "walt.slot="+live, "walt.root=root-"+slot, "walt.root="+live).Replace(parts.Command)
	t := tree.New()
	if err := t.Add(liveFile, &tree.File{Mode: 0o400, Content: root}); err != nil {
		return parts, err
	}
	// The kernel unpacks archives one after the other; each begins at a multiple of four.
	initrd := bytes.NewBuffer(append(parts.Initrd, make([]byte, -len(parts.Initrd)&3)...))
	if err := cpio.Write(initrd, t, b.time); err != nil {
		return parts, err
	}
	parts.Initrd = initrd.Bytes()
	return parts, nil
}

// writeLive writes the signed UKI of a live system.
func writeLive(ctx context.Context, b *builder, w io.Writer) error {
	parts, err := b.liveSystem(ctx)
	if err != nil {
		return err
	}
	kernel, err := b.readKernel(ctx, b.Inputs)
	if err != nil {
		return err
	}
	parts.Stub = kernel.stub
	program, err := uki.Assemble(parts)
	if err != nil {
		return err
	}
	if program, err = b.signer.program(live, program); err != nil {
		return err
	}
	_, err = w.Write(program)
	return err
}

// netbootScript boots the files beside it with any iPXE.
const netbootScript = `#!ipxe
kernel vmlinuz initrd=initrd.img %s
initrd initrd.img
boot
`

// writeNetboot writes what a server for network boot serves, as a tar archive: the
// parts of the live system.
func writeNetboot(_ context.Context, b *builder, w io.Writer) error {
	program, err := os.ReadFile(filepath.Join(b.Output, liveName))
	if err != nil {
		return err
	}
	parts, err := uki.Read(program)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	for _, file := range []struct {
		name    string
		content []byte
	}{
		{"boot.ipxe", fmt.Appendf(nil, netbootScript, parts.Command)},
		{"cmdline", []byte(parts.Command + "\n")},
		{"initrd.img", parts.Initrd},
		{"vmlinuz", parts.Linux},
	} {
		header := &tar.Header{Name: file.name, Mode: 0o644, Size: int64(len(file.content)), ModTime: b.time, Format: tar.FormatUSTAR}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(file.content); err != nil {
			return err
		}
	}
	return archive.Close()
}

// writeISO writes a live system that UEFI boots from a CD or a USB stick: its ESP is
// both the El Torito image and a partition.
func writeISO(ctx context.Context, b *builder, w io.Writer) error {
	program, err := os.ReadFile(filepath.Join(b.Output, liveName))
	if err != nil {
		return err
	}
	dir, err := b.Inputs.Fetcher.Cache.TempDir()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	esp, content, iso := filepath.Join(dir, "esp"), filepath.Join(dir, "content"), filepath.Join(dir, "iso")
	if err := b.liveESP(esp, program); err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir(content, 0o755), os.Chmod(content, 0o755)); err != nil { // a umask would be in the image
		return err
	}
	stamp := b.time.Format("2006010215040500")
	cmd := b.toolbox.Command(ctx, "xorriso", "-no_rc", "-as", "mkisofs", "-quiet", "-o", iso, "-V", "WALT", "-R",
		"--modification-date="+stamp, "--set_all_file_dates", stamp, "--gpt_disk_guid", gpt.DerivedGUID(b.seed("iso")).String(),
		"-append_partition", "2", gpt.EFISystem.String(), esp, "-appended_part_as_gpt",
		"-e", "--interval:appended_partition_2:all::", "-no-emul-boot", content)
	cmd.Env = append(cmd.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", b.time.Unix()), "TZ=UTC")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("xorriso: %w\n%s", err, bytes.TrimSpace(out))
	}
	f, err := os.Open(iso)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// liveESP writes a FAT volume that holds the program where firmware looks for it.
func (b *builder) liveESP(name string, program []byte) error {
	t := tree.New()
	if err := t.Add(uki.BootName(b.Inputs.Appliance.Debian.Architecture), &tree.File{Mode: 0o644, Content: program}); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	size := (int64(len(program)) + 16<<20) &^ (1<<20 - 1)
	if err := f.Truncate(size); err != nil {
		return err
	}
	id := sha256.Sum256([]byte(b.seed("live esp")))
	volume := fat.Volume{Size: size, Label: "WALT-LIVE", ID: binary.LittleEndian.Uint32(id[:]), Time: b.time}
	if err := fat.Write(f, volume, t); err != nil {
		return err
	}
	return f.Close()
}
