// Package esp writes the image of a disk that has an EFI system partition only, as a USB
// stick that starts a program. See packages gpt and fat for formats and limits.
package esp

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/waltos/waltos/image/fat"
	"github.com/waltos/waltos/image/gpt"
	"github.com/waltos/waltos/image/tree"
)

// margin is what the two partition tables take, alignment included.
const margin = 2 * gpt.Alignment

// Write writes a disk with an ESP of some size, a multiple of a MiB, to a new file. Identifiers
// derive from the label.
func Write(name string, size int64, label string, at time.Time, content *tree.Tree) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("cannot make disk image: %w", err)
	}
	defer f.Close()
	if err := write(f, size, label, at, content); err != nil {
		return fmt.Errorf("cannot make disk image %s: %w", name, err)
	}
	return f.Close()
}

func write(f *os.File, size int64, label string, at time.Time, content *tree.Tree) error {
	if err := f.Truncate(size + margin); err != nil {
		return err
	}
	table, err := gpt.New(size+margin, gpt.DerivedGUID("disk "+label))
	if err != nil {
		return err
	}
	part := &gpt.Partition{Name: "esp", Type: gpt.EFISystem, ID: gpt.DerivedGUID("esp " + label)}
	if err := table.Add(part, size); err != nil {
		return err
	}
	if err := table.Write(f); err != nil {
		return err
	}
	id := sha256.Sum256([]byte(label))
	return fat.Write(io.NewOffsetWriter(f, part.Offset()), fat.Volume{
		Size: part.Size(), Label: label, ID: binary.LittleEndian.Uint32(id[:]), Time: at, Hidden: uint32(part.First),
	}, content)
}
