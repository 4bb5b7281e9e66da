package store

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"maps"
	"slices"
)

// Kinds of entries of github.com/vbatts/tar-split/tar/storage.
const (
	splitFile    = 1
	splitSegment = 2
)

// splitEntry is a piece of an archive: raw bytes, or the content of a file, which
// is then taken from the layer and compared by its CRC-64.
type splitEntry struct {
	Type     int    `json:"type"`
	Name     string `json:"name,omitempty"`
	Size     int64  `json:"size,omitempty"`
	Payload  []byte `json:"payload"`
	Position int    `json:"position"`
}

// splitTar returns the compressed tar-split of an archive: what it takes, besides
// the files of the layer, to give back the archive with the same digest.
func splitTar(archive []byte) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	position := 0
	put := func(e splitEntry) error {
		e.Position = position
		position++
		return encoder.Encode(e)
	}
	in := bytes.NewReader(archive)
	reader := tar.NewReader(in)
	done := 0 // bytes of the archive described so far
	table := crc64.MakeTable(crc64.ISO)
	for {
		h, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("cannot split layer: %w", err)
		}
		start := len(archive) - in.Len()
		if err := put(splitEntry{Type: splitSegment, Payload: archive[done:start]}); err != nil {
			return nil, err
		}
		file := splitEntry{Type: splitFile, Name: h.Name, Size: h.Size}
		done = start
		if h.Size > 0 {
			done += int(h.Size)
			sum := crc64.New(table)
			sum.Write(archive[start:done])
			file.Payload = sum.Sum(nil)
		}
		if err := put(file); err != nil {
			return nil, err
		}
	}
	if err := put(splitEntry{Type: splitSegment, Payload: archive[done:]}); err != nil {
		return nil, err
	}
	return compress(out.Bytes())
}

func sorted(set map[int]bool) []int { return slices.Sorted(maps.Keys(set)) }
