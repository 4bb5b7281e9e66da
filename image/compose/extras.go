package compose

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/waltos/waltos/image/qcow2"
)

// virtualRoom is added to the size of a qcow2 disk for the data partition, which takes
// space only as it is filled.
const virtualRoom = 32 << 30

// An extra is an output in another form, made on demand from those that are always there.
type extra struct {
	file string
	what string
	make func(ctx context.Context, b *builder, w io.Writer) error
}

// extras by the names that users choose them by.
var extras = map[string]extra{
	"zst":   {DiskName + ".zst", "the disk image, compressed", compressDisk},
	"live":  {liveName, "a live system as one UEFI program", writeLive},
	"iso":   {"walt.iso", "the live system on a medium: CD or USB stick", writeISO},
	"nodes": {"walt-nodes.tar", "the default images of nodes, for podman load", writeNodes},
	"pxe":   {"walt-netboot.tar", "the live system for network boot by iPXE", writeNetboot},
	"qcow2": {"walt.qcow2", "the disk image for QEMU and libvirt, with room for data", convertDisk},
}

// Extras describes what Options.Also may name.
func Extras() map[string]string {
	all := map[string]string{}
	for name, e := range extras {
		all[name] = e.what
	}
	return all
}

func checkExtras(names []string) error {
	for _, name := range names {
		if _, ok := extras[name]; !ok {
			return fmt.Errorf("no output %q; there are %v", name, slices.Sorted(maps.Keys(extras)))
		}
	}
	return nil
}

// extras names those that a build holds.
func (m *Manifest) extras() (names []string) {
	for _, name := range slices.Sorted(maps.Keys(extras)) {
		if _, ok := m.Outputs[extras[name].file]; ok {
			names = append(names, name)
		}
	}
	return names
}

// addExtras makes what is asked for and not there, and signs the manifest again.
func (b *builder) addExtras(ctx context.Context) error {
	made := 0
	also := b.Also
	if slices.Contains(also, "iso") || slices.Contains(also, "pxe") { // they are made of it
		also = append([]string{"live"}, also...)
	}
	for _, name := range also {
		e := extras[name]
		if _, ok := b.manifest.Outputs[e.file]; ok {
			continue
		}
		if b.toolbox == nil {
			var err error
			if b.toolbox, err = b.Inputs.Toolbox(ctx, tools); err != nil {
				return err
			}
		}
		if err := b.addExtra(ctx, e); err != nil {
			return fmt.Errorf("cannot make %s: %w", e.file, err)
		}
		b.Progress.Say("made %s, %s", e.file, e.what)
		made++
	}
	if made == 0 {
		return nil
	}
	b.reused = false
	return b.publish(b.Output, nil)
}

func (b *builder) addExtra(ctx context.Context, e extra) error {
	f, err := os.CreateTemp(b.Output, unfinished)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := e.make(ctx, b, w); err != nil {
		return err
	}
	if err := errors.Join(w.Flush(), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	name := filepath.Join(b.Output, e.file)
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	return b.manifest.add(b.Output, e.file)
}

// removeExtras removes what was made of an earlier disk.
func (b *builder) removeExtras() error {
	for _, e := range extras {
		if err := os.Remove(filepath.Join(b.Output, e.file)); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

// openDisk opens the disk image, whose reading ends with the context.
func (b *builder) openDisk(ctx context.Context) (*contextReader, error) {
	f, err := os.Open(filepath.Join(b.Output, DiskName))
	if err != nil {
		return nil, err
	}
	return &contextReader{f, ctx}, nil
}

type contextReader struct {
	*os.File
	ctx context.Context
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.File.Read(p)
}

func (r *contextReader) ReadAt(p []byte, at int64) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.File.ReadAt(p, at)
}

func compressDisk(ctx context.Context, b *builder, w io.Writer) error {
	disk, err := b.openDisk(ctx)
	if err != nil {
		return err
	}
	defer disk.Close()
	// One thread, so that the output does not depend on the number of processors. The
	// root is compressed already: a better level takes long for nothing.
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	// Only Read: the encoder must not get at the file beneath.
	if _, err := io.Copy(z, struct{ io.Reader }{disk}); err != nil {
		return errors.Join(err, z.Close())
	}
	return z.Close()
}

func convertDisk(ctx context.Context, b *builder, w io.Writer) error {
	disk, err := b.openDisk(ctx)
	if err != nil {
		return err
	}
	defer disk.Close()
	size := b.manifest.Outputs[DiskName].Size
	return qcow2.Write(w, qcow2.Image{Size: size + virtualRoom, Content: disk, ContentSize: size})
}
