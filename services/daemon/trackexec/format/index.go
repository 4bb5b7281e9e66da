package format

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"path/filepath"
	"strconv"
)

// EntrySize is the size of an entry of the index.
const EntrySize = 36

// Names of the files of a trace.
const (
	IndexName = "log_index"
	MapName   = "log_map"
	PIDName   = "pid"
)

// Entry is the place of one block, and what it covers.
type Entry struct {
	Segment, Offset, Size uint32
	Events                uint32
	First, Last           int64 // times of its events, see Event.Time
}

// SegmentPath returns the path of a segment of a trace.
func SegmentPath(folder string, segment uint32) string {
	return filepath.Join(folder, MapName, strconv.FormatUint(uint64(segment), 10))
}

// Append appends the entry to data.
func (e Entry) Append(data []byte) []byte {
	begin := len(data)
	for _, n := range []uint32{e.Segment, e.Offset, e.Size, e.Events} {
		data = binary.LittleEndian.AppendUint32(data, n)
	}
	data = binary.LittleEndian.AppendUint64(data, uint64(e.First))
	data = binary.LittleEndian.AppendUint64(data, uint64(e.Last))
	return binary.LittleEndian.AppendUint32(data, crc32.Checksum(data[begin:], table))
}

// DecodeEntry reads an entry.
func DecodeEntry(data []byte) (Entry, error) {
	if len(data) != EntrySize || crc32.Checksum(data[:32], table) != binary.LittleEndian.Uint32(data[32:]) {
		return Entry{}, errors.New("cannot read an entry of the index: its checksum is wrong")
	}
	word := func(at int) uint32 { return binary.LittleEndian.Uint32(data[at:]) }
	e := Entry{Segment: word(0), Offset: word(4), Size: word(8), Events: word(12),
		First: int64(binary.LittleEndian.Uint64(data[16:])), Last: int64(binary.LittleEndian.Uint64(data[24:]))}
	if e.Size < HeaderSize || e.Size > HeaderSize+MaxBody || e.First > e.Last {
		return Entry{}, errors.New("cannot read an entry of the index: it makes no sense")
	}
	return e, nil
}
