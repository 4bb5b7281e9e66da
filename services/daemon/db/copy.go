package db

import (
	"encoding/binary"
	"errors"
	"iter"
	"math"
	"time"
)

// Log lines travel from server-main to PostgreSQL as rows of COPY's binary format
// (PostgreSQL manual, COPY, "Binary Format"), so that server-db passes them on
// without looking inside: at 150,000 lines a second each decoding would show.

// maxCopyBytes bounds the rows of one call of InsertLines, well below a frame of the
// connector. A single line larger than this makes a call of its own.
const maxCopyBytes = 4 << 20

// MaxLine is the longest text of a log line, in bytes; longer is cut by InsertLines.
const MaxLine = 1 << 20

// copyRow is the size of a row without its text: field count, then length and value
// of stream_id (int4), of timestamp (int8), and the length of the text.
const copyRow = 2 + 4 + 4 + 4 + 8 + 4

var (
	copyHeader  = append([]byte("PGCOPY\n\xff\r\n\x00"), 0, 0, 0, 0, 0, 0, 0, 0)
	copyTrailer = []byte{0xff, 0xff}
)

// epoch2000 is PostgreSQL's origin of time, in microseconds since 1970.
const epoch2000 = 946684800 * 1_000_000

// Rows are log lines as they travel: rows of (stream, time, text). It is known that
// they are well formed, unless they come from another process.
type Rows []byte

// Batch names rows that are stored once, however often: those of a sender have numbers that
// grow. The zero value names none.
type Batch struct{ Sender, Number int64 }

// AppendRow adds a line of stream 0, see SetStream. Its text is clean, and not longer
// than MaxLine.
func AppendRow[T string | []byte](r Rows, at time.Time, text T) Rows {
	b := append(r, rowHead...)
	fields := b[len(b)-copyRow:]
	binary.BigEndian.PutUint64(fields[rowTime:], uint64(pgMicros(at)))
	binary.BigEndian.PutUint32(fields[rowSize:], uint32(len(text)))
	return append(b, text...)
}

// RowSize is the size of the row of a text of so many bytes.
func RowSize(text int) int { return copyRow + text }

// Places of the fields of a row.
const (
	rowStream = 6
	rowTime   = 14
	rowSize   = 22
)

const rowHead = "\x00\x03" + "\x00\x00\x00\x04\x00\x00\x00\x00" + "\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00"

// SetStream puts the number of their stream in all rows.
func (r Rows) SetStream(id int64) {
	for len(r) > 0 {
		binary.BigEndian.PutUint32(r[rowStream:], uint32(id))
		r = r[copyRow+int(binary.BigEndian.Uint32(r[rowSize:])):]
	}
}

// All gives the time and text of each row.
func (r Rows) All() iter.Seq2[time.Time, []byte] {
	return func(yield func(time.Time, []byte) bool) {
		for len(r) > 0 {
			end := copyRow + int(binary.BigEndian.Uint32(r[rowSize:]))
			if !yield(goTime(int64(binary.BigEndian.Uint64(r[rowTime:]))), r[copyRow:end]) {
				return
			}
			r = r[end:]
		}
	}
}

// encodeLines writes rows for as many lines as fit in max bytes, at least one, and
// says how many.
func encodeLines(lines []Line, max int) (Rows, int) {
	size, n := 0, 0
	for n < len(lines) && (n == 0 || size+RowSize(len(lines[n].Text)) <= max) {
		size += RowSize(len(lines[n].Text))
		n++
	}
	b := make(Rows, 0, size)
	for _, l := range lines[:n] {
		text := Clean(l.Text)
		if len(text) > MaxLine {
			text = Clean(text[:MaxLine]) // the cut may fall inside a character
		}
		start := len(b)
		b = AppendRow(b, l.Time, text)
		b[start:].SetStream(l.Stream)
	}
	return b, n
}

func pgMicros(t time.Time) int64 { return t.UnixMicro() - epoch2000 }

// eachRow calls f with the stream and the bytes of each row. It fails on anything
// that AppendRow does not write.
func eachRow(rows []byte, f func(stream uint32, row []byte)) error {
	for len(rows) > 0 {
		if len(rows) < copyRow || binary.BigEndian.Uint16(rows) != 3 ||
			binary.BigEndian.Uint32(rows[2:]) != 4 || binary.BigEndian.Uint32(rows[10:]) != 8 {
			return errors.New("cannot read log lines: bad row")
		}
		size := int64(copyRow) + int64(binary.BigEndian.Uint32(rows[rowSize:]))
		if size > int64(len(rows)) {
			return errors.New("cannot read log lines: truncated row")
		}
		f(binary.BigEndian.Uint32(rows[rowStream:]), rows[:size])
		rows = rows[size:]
	}
	return nil
}

// A history travels back as blocks: rows of (stream, time, text) with a table of
// the streams, so that names are sent once.

type wireStream struct {
	ID           int64
	Issuer, Name string
}

type wireHistory struct {
	Cursor uint64
	Filter LogFilter
	Count  bool // count the lines before
}

type wireOpened struct {
	Streams []wireStream
	Count   int64
}

func appendRecord(b []byte, stream uint32, pgTime int64, text []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, stream)
	b = binary.BigEndian.AppendUint64(b, uint64(pgTime))
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	return append(b, text...)
}

// decodeRecords reads what appendRecord wrote. The texts share one string.
func decodeRecords(block []byte, streams map[int64]wireStream) ([]Record, error) {
	all := string(block)
	records := make([]Record, 0, len(block)/64+1)
	for at := 0; at < len(block); {
		if len(block)-at < 16 {
			return nil, errors.New("cannot read log lines: truncated record")
		}
		id := int64(binary.BigEndian.Uint32(block[at:]))
		micros := int64(binary.BigEndian.Uint64(block[at+4:]))
		size := int64(binary.BigEndian.Uint32(block[at+12:]))
		at += 16
		if size > int64(len(block)-at) {
			return nil, errors.New("cannot read log lines: truncated text")
		}
		s := streams[id]
		records = append(records, Record{Time: goTime(micros), Line: all[at : at+int(size)], Issuer: s.Issuer, Stream: s.Name})
		at += int(size)
	}
	return records, nil
}

// goTime converts PostgreSQL's microseconds; its two infinities become the first
// and last instants that clients can show.
func goTime(micros int64) time.Time {
	switch {
	case micros == math.MinInt64:
		return time.Unix(0, 0)
	case micros >= math.MaxInt64-epoch2000:
		return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Local()
	}
	return time.UnixMicro(micros + epoch2000)
}
