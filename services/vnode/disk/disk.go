// Package disk makes the disks of virtual nodes: sparse files, which may hold a partition
// with an empty file system or the marks of a hybrid boot mode (node-protocols 2.6, 6.3).
//
// A disk is kept as long as its size and template are those that are asked for; else it is
// made anew, and what was on it is lost once the new one is there. Disks are counted from 0,
// as upstream's are, and one without a word about its template has none: it is of a version
// of upstream that had no templates. Partition tables are of the MBR kind: what is
// beyond 2 TiB of a larger disk is in no partition.
package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/waltos/waltos/services/atomicfile"
	"github.com/waltos/waltos/services/internal/pattern"
)

// Spec describes a disk.
type Spec struct {
	Size     int64  // bytes
	Template string // one of the templates below
}

// Templates.
const (
	none             = "none" // nothing on the disk
	ext4             = "ext4"
	fat32            = "fat32"
	hybridVolatile   = "hybrid-boot-v"
	hybridPersistent = "hybrid-boot-p"
)

var templates = []string{none, ext4, fat32, hybridVolatile, hybridPersistent}

// maxDisks is what one SCSI controller of QEMU has addresses for.
const maxDisks = 255

var form = pattern.Lazy(`^([0-9]{1,6})([GT])(?:\[([^\[\]]*)\])?$`)

// Parse reads "none" or a list as 8G,1T[template=ext4].
func Parse(text string) ([]Spec, error) {
	if text == "none" {
		return nil, nil
	}
	var specs []Spec
	// Options are parted by commas too, but there is only one, whose values have none.
	for item := range strings.SplitSeq(text, ",") {
		found := form().FindStringSubmatch(item)
		if found == nil {
			return nil, fmt.Errorf("%q is no disk, such as 8G or 1T[template=ext4]", item)
		}
		spec := Spec{Template: none}
		n, err := strconv.ParseInt(found[1], 10, 64)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("disk %q has no size", item)
		}
		spec.Size = n * 1e9
		if found[2] == "T" {
			spec.Size = n * 1e12
		}
		if strings.HasSuffix(item, "]") {
			template, is := strings.CutPrefix(found[3], "template=")
			if !is || !slices.Contains(templates, template) {
				return nil, fmt.Errorf("%q of a disk is not template= and one of %s", found[3], strings.Join(templates, ", "))
			}
			spec.Template = template
		}
		specs = append(specs, spec)
	}
	if len(specs) > maxDisks {
		return nil, fmt.Errorf("there are more than %d disks", maxDisks)
	}
	return specs, nil
}

// File is a disk that exists.
type File struct{ Path string }

// info is the file beside each disk.
type info struct {
	Template string `json:"template"`
}

// Prepare makes those disks in a folder that are not there as they must be, and returns all.
func Prepare(ctx context.Context, folder string, specs []Spec) ([]File, error) {
	if len(specs) == 0 {
		return nil, nil
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, fmt.Errorf("cannot make disks: %w", err)
	}
	files := make([]File, len(specs))
	for i, spec := range specs {
		name := filepath.Join(folder, fmt.Sprintf("disk_%d", i))
		files[i].Path = name + ".dd"
		if spec.isAt(name) {
			continue
		}
		if err := spec.make(ctx, name); err != nil {
			return nil, fmt.Errorf("cannot make disk %s: %w", files[i].Path, err)
		}
	}
	return files, nil
}

// isAt tells whether the disk is there.
func (s Spec) isAt(name string) bool {
	stat, err := os.Stat(name + ".dd")
	if err != nil || stat.Size() != s.Size {
		return false
	}
	text, err := os.ReadFile(name + ".info")
	if errors.Is(err, fs.ErrNotExist) {
		return s.Template == none
	}
	var have info
	return err == nil && json.Unmarshal(text, &have) == nil && have.Template == s.Template
}

// make makes the disk, and puts it in the place of another when it is complete.
func (s Spec) make(ctx context.Context, name string) error {
	path, unfinished := name+".dd", name+".new"
	if err := remove(unfinished); err != nil {
		return err
	}
	f, err := os.OpenFile(unfinished, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = f.Truncate(s.Size)
	if err == nil {
		err = s.format(ctx, f)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, remove(unfinished))
	}
	text, err := json.Marshal(info{s.Template})
	if err != nil {
		return err
	}
	// The old information first: it must never be that of the new disk.
	if err := remove(name + ".info"); err != nil {
		return err
	}
	if err := os.Rename(unfinished, path); err != nil {
		return err
	}
	return atomicfile.Write(name+".info", text, 0o644)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// format writes what the template says.
func (s Spec) format(ctx context.Context, f *os.File) error {
	if s.Template == none {
		return nil
	}
	p := partition(s.Size)
	if s.Template == fat32 {
		p.kind = kindFAT32
		if err := p.write(f); err != nil {
			return err
		}
		return formatFAT32(f, p)
	}
	if err := p.write(f); err != nil {
		return err
	}
	return formatExt4(ctx, f.Name(), p, s.Template)
}
