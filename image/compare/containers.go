package compare

import (
	"bytes"
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/cavaliergopher/cpio"
	"github.com/klauspost/compress/zstd"

	"github.com/waltos/waltos/image/erofs"
	"github.com/waltos/waltos/image/gpt"
	"github.com/waltos/waltos/image/verity"
)

// maxUnpacked bounds what a compressed content may become, in bytes.
const maxUnpacked = 1 << 30

func nothing() {}

// hasAt reports whether a content has some bytes at an offset.
func hasAt(r *io.SectionReader, at int64, want string) bool {
	got := make([]byte, len(want))
	_, err := r.ReadAt(got, at)
	return err == nil && string(got) == want
}

// openDisk takes a disk with a GPT apart; what is outside of partitions counts as one
// part.
func openDisk(_ *comparison, r *io.SectionReader) (map[string]part, func(), bool, error) {
	if !hasAt(r, gpt.SectorSize, "EFI PART") {
		return nil, nil, false, nil
	}
	table, err := gpt.Read(r, r.Size())
	if err != nil {
		return nil, nil, false, err
	}
	parts := map[string]part{}
	end := int64(0)
	var outside []byte
	between := func(to int64) error {
		if to <= end {
			return nil
		}
		if to-end > 64<<20 {
			return fmt.Errorf("%d bytes at %d belong to no partition", to-end, end)
		}
		gap := make([]byte, to-end)
		_, err := r.ReadAt(gap, end)
		outside = append(outside, gap...)
		return err
	}
	for _, p := range table.Partitions {
		if p == nil {
			continue
		}
		if err := between(p.Offset()); err != nil {
			return nil, nil, false, err
		}
		end = p.Offset() + p.Size()
		parts["partition "+p.Name] = part{
			about:   fmt.Sprintf("%d bytes at %d, type %s, id %s", p.Size(), p.Offset(), p.Type, p.ID),
			content: io.NewSectionReader(r, p.Offset(), p.Size()),
		}
	}
	if err := between(r.Size()); err != nil {
		return nil, nil, false, err
	}
	parts["outside of partitions"] = part{about: "partition table", content: section(outside), plain: true}
	return parts, nothing, true, nil
}

func section(content []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(content), 0, int64(len(content)))
}

// timeForm is how times are shown, always in UTC.
const timeForm = "2006-01-02T15:04:05.999999999Z"

// openFAT copies the files of a FAT volume out.
func openFAT(c *comparison, r *io.SectionReader) (map[string]part, func(), bool, error) {
	if !hasAt(r, 510, "\x55\xaa") || !hasAt(r, 82, "FAT32") && !hasAt(r, 54, "FAT16") {
		return nil, nil, false, nil
	}
	return c.unpack(r, func(image, to string) error {
		return c.run("mcopy", "-s", "-n", "-m", "-Q", "-i", image, "::*", to)
	}, nil)
}

// openEROFS lists a root slot and copies its files out; what is behind the file
// system is the hash tree.
func openEROFS(c *comparison, r *io.SectionReader) (map[string]part, func(), bool, error) {
	if !hasAt(r, 1024, "\xe2\xe1\xf5\xe0") {
		return nil, nil, false, nil
	}
	listed := map[string]part{}
	size, err := erofs.Size(r)
	if err != nil {
		return nil, nil, false, err
	}
	image := io.NewSectionReader(r, 0, min(size, r.Size()))
	err = erofs.List(image, func(e erofs.Entry) error {
		about := fmt.Sprintf("%s %d:%d", e.Mode, e.UID, e.GID)
		if e.Target != "" {
			about += " -> " + e.Target
		}
		if e.Mode&fs.ModeDevice != 0 {
			about += fmt.Sprintf(" device %#x", e.Device)
		}
		listed[e.Path] = part{about: about, time: e.Time.UTC().Format(timeForm)}
		return nil
	})
	if err != nil {
		return nil, nil, false, err
	}
	// A damaged file ends the unpacking; it is then shorter than it should be.
	parts, remove, ok, err := c.unpack(image, func(image, to string) error {
		return c.run("fsck.erofs", "--extract="+to, "--no-preserve", "--overwrite", image)
	}, listed)
	if !ok {
		return nil, nil, false, err
	}
	if r.Size() > image.Size() {
		hashes := io.NewSectionReader(r, image.Size(), r.Size()-image.Size())
		parts["hash tree"] = part{about: fmt.Sprintf("blocks of %d bytes", verity.BlockSize), content: hashes, plain: true}
	}
	return parts, remove, true, err
}

// unpack writes a file system to the scratch folder, has it unpacked, and returns its
// files, with what a list says of them and of everything that is no regular file. Where
// the unpacking fails, the parts are those it has made until then.
func (c *comparison) unpack(r *io.SectionReader, unpack func(image, to string) error, listed map[string]part) (map[string]part, func(), bool, error) {
	dir, err := os.MkdirTemp(c.Scratch, "unpacked-")
	if err != nil {
		return nil, nil, false, err
	}
	remove := func() { os.RemoveAll(dir) }
	var damage error
	parts, err := func() (map[string]part, error) {
		image := filepath.Join(dir, "image")
		f, err := os.Create(image)
		if err != nil {
			return nil, err
		}
		_, err = io.Copy(f, io.NewSectionReader(r, 0, r.Size()))
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		to := filepath.Join(dir, "files")
		if err := os.Mkdir(to, 0o700); err != nil {
			return nil, err
		}
		damage = unpack(image, to)
		if err := os.Remove(image); err != nil {
			return nil, err
		}
		parts := maps.Clone(listed)
		if parts == nil {
			parts = map[string]part{}
		}
		return parts, filepath.WalkDir(to, func(host string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			name := "/" + filepath.ToSlash(strings.TrimPrefix(host, to+string(filepath.Separator)))
			p := parts[name]
			if p.about == "" {
				p.about = "file"
			}
			p.content = io.NewSectionReader(lazyFile(host), 0, info.Size())
			parts[name] = p
			return nil
		})
	}()
	if err != nil {
		remove()
		return nil, nil, false, err
	}
	return parts, remove, true, damage
}

// lazyFile is a file that is open only while it is read: a root has thousands.
type lazyFile string

func (name lazyFile) ReadAt(p []byte, at int64) (int, error) {
	f, err := os.Open(string(name))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.ReadAt(p, at)
}

func (c *comparison) run(name string, arguments ...string) error {
	out, err := c.Command(c.ctx, name, arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, lastLine(out))
	}
	return nil
}

func lastLine(out []byte) string {
	text := strings.TrimSpace(string(out))
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// openProgram takes a PE file apart, as unified kernel images are.
func openProgram(_ *comparison, r *io.SectionReader) (map[string]part, func(), bool, error) {
	if !hasAt(r, 0, "MZ") {
		return nil, nil, false, nil
	}
	f, err := pe.NewFile(r)
	if err != nil { // a kernel may begin as one
		return nil, nil, false, nil
	}
	parts := map[string]part{}
	header := r.Size()
	for _, s := range f.Sections {
		if s.Size == 0 {
			continue
		}
		header = min(header, int64(s.Offset))
		size := s.Size
		if s.VirtualSize < size { // without what fills up to the alignment
			size = s.VirtualSize
		}
		parts["section "+s.Name] = part{
			about:   fmt.Sprintf("%d bytes at %d", size, s.Offset),
			content: io.NewSectionReader(r, int64(s.Offset), int64(size)),
		}
	}
	parts["headers"] = part{about: fmt.Sprintf("%d bytes", header), content: io.NewSectionReader(r, 0, header)}
	return parts, nothing, true, nil
}

// openCompressed unpacks a zstd frame.
func openCompressed(_ *comparison, r *io.SectionReader) (map[string]part, func(), bool, error) {
	if !hasAt(r, 0, "\x28\xb5\x2f\xfd") {
		return nil, nil, false, nil
	}
	d, err := zstd.NewReader(io.NewSectionReader(r, 0, r.Size()), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return nil, nil, false, err
	}
	defer d.Close()
	content, err := io.ReadAll(io.LimitReader(d, maxUnpacked+1))
	if err != nil {
		return nil, nil, false, fmt.Errorf("cannot decompress: %w", err)
	}
	if len(content) > maxUnpacked {
		return nil, nil, false, fmt.Errorf("more than %d bytes when decompressed", maxUnpacked)
	}
	return map[string]part{"decompressed": {about: "zstd", content: section(content)}}, nothing, true, nil
}

// openArchive takes a cpio archive apart.
func openArchive(_ *comparison, r *io.SectionReader) (map[string]part, func(), bool, error) {
	if !hasAt(r, 0, "070701") {
		return nil, nil, false, nil
	}
	in := cpio.NewReader(io.NewSectionReader(r, 0, r.Size()))
	parts := map[string]part{}
	left := r.Size()
	for {
		h, err := in.Next()
		if err == io.EOF {
			return parts, nothing, true, nil
		}
		if err != nil {
			return nil, nil, false, err
		}
		if h.Size < 0 || h.Size > left {
			return nil, nil, false, fmt.Errorf("%q has %d bytes", h.Name, h.Size)
		}
		content := make([]byte, h.Size)
		if _, err := io.ReadFull(in, content); err != nil {
			return nil, nil, false, fmt.Errorf("%q: %w", h.Name, err)
		}
		left -= h.Size
		p := part{
			about: fmt.Sprintf("mode %o %d:%d inode %d", h.Mode, h.Uid, h.Guid, h.Inode),
			time:  h.ModTime.UTC().Format(timeForm), content: section(content),
		}
		if h.Linkname != "" {
			p.about += " -> " + h.Linkname
		}
		parts["/"+strings.TrimPrefix(strings.TrimPrefix(h.Name, "."), "/")] = p
	}
}
