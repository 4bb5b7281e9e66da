// Package flash writes a disk image to a disk of this machine and reads it back.
//
// The image is checked against its digest while it is read for the first time, before
// the disk is touched. Ranges of zeroes are given to the kernel (BLKZEROOUT), which
// knows fast ways; the end of the disk, where an older partition table has its copy, is
// cleared too. Afterwards everything is read from the medium, not from the page cache,
// and compared.
package flash

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/image/fetch"
)

// chunk is how much is read or written at once, in bytes.
const chunk = 4 << 20

// tail is what is cleared at the end of the disk: the copy of a partition table.
const tail = 1 << 20

// Image is what to write.
type Image struct {
	File   io.ReaderAt
	Size   int64
	SHA256 string
}

// Target is a disk, or a file that stands for it.
type Target interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	// Zero makes a range read as zeroes.
	Zero(offset, length int64) error
	// Forget drops what the system keeps of the content in memory.
	Forget() error
}

// Write checks an image, writes it to a target of some size and reads it back.
func Write(ctx context.Context, target Target, size int64, image Image, progress *fetch.Progress) error {
	if image.Size > size {
		return fmt.Errorf("cannot write the image: it has %d bytes, the disk only %d", image.Size, size)
	}
	h := sha256.New()
	err := pass(ctx, progress, "checking the image", image.Size, func(_ int64, data []byte) error {
		h.Write(data)
		return nil
	}, image.File)
	if err != nil {
		return fmt.Errorf("cannot read the image: %w", err)
	}
	if got := digest(h); got != image.SHA256 {
		return fmt.Errorf("the image is damaged: its SHA-256 is %s, not %s; the disk was not touched", got, image.SHA256)
	}
	zeroes := make([]byte, chunk)
	err = pass(ctx, progress, "writing", image.Size, func(at int64, data []byte) error {
		if bytes.Equal(data, zeroes[:len(data)]) {
			return target.Zero(at, int64(len(data)))
		}
		_, err := target.WriteAt(data, at)
		return err
	}, image.File)
	if end := max(image.Size, size-tail); err == nil && end < size {
		err = target.Zero(end, size-end)
	}
	if err == nil {
		err = target.Sync()
	}
	if err == nil {
		err = target.Forget()
	}
	if err != nil {
		return fmt.Errorf("cannot write the disk: %w; what it holds now does not boot", err)
	}
	h.Reset()
	err = pass(ctx, progress, "reading back", image.Size, func(_ int64, data []byte) error {
		h.Write(data)
		return nil
	}, target)
	if err != nil {
		return fmt.Errorf("cannot read the disk back: %w", err)
	}
	if got := digest(h); got != image.SHA256 {
		return fmt.Errorf("the disk does not hold what was written: its SHA-256 is %s, not %s; do not use it", got, image.SHA256)
	}
	return nil
}

func digest(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// pass visits the bytes of a reader in order.
func pass(ctx context.Context, progress *fetch.Progress, what string, size int64, visit func(at int64, data []byte) error, from io.ReaderAt) (err error) {
	task := progress.Begin(size, "%s", what)
	defer func() { task.End(err) }()
	buffer := make([]byte, chunk)
	for at := int64(0); at < size; at += chunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		data := buffer[:min(chunk, size-at)]
		if n, err := from.ReadAt(data, at); n < len(data) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("at byte %d: %w", at, err)
		}
		if err := visit(at, data); err != nil {
			return fmt.Errorf("at byte %d: %w", at, err)
		}
		task.Add(int64(len(data)))
	}
	return nil
}

// Disk is an open block device.
type Disk struct{ *os.File }

// Zero uses BLKZEROOUT of Linux.
func (d Disk) Zero(offset, length int64) error {
	span := [2]uint64{uint64(offset), uint64(length)}
	return d.ioctl(unix.BLKZEROOUT, uintptr(unsafe.Pointer(&span)))
}

// Forget drops the page cache of the device.
func (d Disk) Forget() error { return d.ioctl(unix.BLKFLSBUF, 0) }

// Partitions has the kernel read the new partition table. A disk without partitions, as
// some loop devices, says EINVAL.
func (d Disk) Partitions() error {
	if err := d.ioctl(unix.BLKRRPART, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("cannot have the partition table read again: %w; unplug the disk and plug it in", err)
	}
	return nil
}

func (d Disk) ioctl(request, argument uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), request, argument); errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	return nil
}
