// Package verity computes the hash tree of a dm-verity device.
//
// Specification: Linux Documentation/admin-guide/device-mapper/verity.rst, hash
// format 1, SHA-256, data and hash blocks of 4096 bytes, salt before the data,
// no superblock. The result equals that of
//
//	veritysetup format --no-superblock --salt=SALT DATA TREE
package verity

import (
	"crypto/sha256"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// BlockSize is the size of data and hash blocks in bytes.
const BlockSize = 4096

const perBlock = BlockSize / sha256.Size

// Append reads size bytes of data from f, whose size it must be, and appends the
// hash tree: the level of one block first. It returns the root hash and the length
// of the tree in bytes. The tree begins at block size/BlockSize.
func Append(f interface {
	io.ReaderAt
	io.WriterAt
}, size int64, salt []byte) (root [sha256.Size]byte, length int64, err error) {
	if size <= 0 || size%BlockSize != 0 {
		return root, 0, fmt.Errorf("cannot hash %d bytes: not a multiple of %d", size, BlockSize)
	}
	level, err := leaves(f, size, salt)
	if err != nil {
		return root, 0, fmt.Errorf("cannot hash data: %w", err)
	}
	if size == BlockSize { // the root hash is that of the data, and there is no tree
		copy(root[:], level)
		return root, 0, nil
	}
	levels := [][]byte{level}
	for len(level) > BlockSize {
		level = pad(hashBlocks(nil, level, salt))
		levels = append(levels, level)
	}
	copy(root[:], hashBlocks(nil, level, salt))
	for i := len(levels) - 1; i >= 0; i-- {
		if _, err := f.WriteAt(levels[i], size+length); err != nil {
			return root, 0, fmt.Errorf("cannot write hash tree: %w", err)
		}
		length += int64(len(levels[i]))
	}
	return root, length, nil
}

// leaves returns the padded level of the hashes of the data, with all processors.
func leaves(r io.ReaderAt, size int64, salt []byte) ([]byte, error) {
	const chunk = 256 * BlockSize
	level := make([]byte, (size/BlockSize+perBlock-1)/perBlock*BlockSize)
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for at := int64(0); at < size; at += chunk {
		group.Go(func() error {
			data := make([]byte, min(chunk, size-at))
			if _, err := r.ReadAt(data, at); err != nil {
				return err
			}
			start := at / BlockSize * sha256.Size
			hashBlocks(level[start:start], data, salt)
			return nil
		})
	}
	return level, group.Wait()
}

// hashBlocks appends the hash of each block of data to out.
func hashBlocks(out, data, salt []byte) []byte {
	h := sha256.New()
	for len(data) > 0 {
		h.Reset()
		h.Write(salt)
		h.Write(data[:BlockSize])
		out = h.Sum(out)
		data = data[BlockSize:]
	}
	return out
}

func pad(level []byte) []byte {
	return append(level, make([]byte, -len(level)&(BlockSize-1))...)
}
