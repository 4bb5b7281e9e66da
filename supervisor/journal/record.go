package journal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"time"
)

// Record is one line of a unit.
type Record struct {
	Number   uint64 `json:"n"`
	Boot     uint64 `json:"b,omitempty"`
	Micros   int64  `json:"t"`           // since 1970
	Since    int64  `json:"s,omitempty"` // microseconds since boot, which no clock moves; 0: not known
	Unit     string `json:"u"`
	Priority string `json:"p,omitempty"`
	Text     string `json:"m"`
}

// Info is the priority of lines that have none.
const Info = "info"

// Priorities are those of syslog(3), the most urgent first.
var Priorities = []string{"emerg", "alert", "crit", "err", "warning", "notice", Info, "debug"}

// Urgency is the place of the record's priority among [Priorities]: 0 is the most urgent.
func (r Record) Urgency() int {
	if i := slices.Index(Priorities, r.Priority); i >= 0 {
		return i
	}
	return slices.Index(Priorities, Info)
}

// Time returns when the line was received.
func (r Record) Time() time.Time { return time.UnixMicro(r.Micros) }

// sumHead stands before the checksum at the end of each line.
const sumHead = `,"c":"`

// sumLength is that of the end of a line: the checksum in hexadecimal digits.
const sumLength = len(sumHead) + 8 + len("\"}\n")

// appendRecord adds a line to what is to be written.
func appendRecord(to []byte, r Record) []byte {
	begin := len(to)
	to = strconv.AppendUint(append(to, `{"n":`...), r.Number, 10)
	if r.Boot != 0 {
		to = strconv.AppendUint(append(to, `,"b":`...), r.Boot, 10)
	}
	to = strconv.AppendInt(append(to, `,"t":`...), r.Micros, 10)
	if r.Since != 0 {
		to = strconv.AppendInt(append(to, `,"s":`...), r.Since, 10)
	}
	to = appendString(append(to, `,"u":`...), r.Unit)
	if r.Priority != "" {
		to = appendString(append(to, `,"p":`...), r.Priority)
	}
	to = appendString(append(to, `,"m":`...), r.Text)
	return fmt.Appendf(to, "%s%08x\"}\n", sumHead, crc32.ChecksumIEEE(to[begin:]))
}

// appendString adds a string as JSON has it; nearly all lines are plain.
func appendString(to []byte, text string) []byte {
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			var escaped bytes.Buffer
			encoder := json.NewEncoder(&escaped)
			encoder.SetEscapeHTML(false)
			_ = encoder.Encode(text) // a string has a form in JSON, and a buffer takes it
			return append(to, bytes.TrimSuffix(escaped.Bytes(), []byte("\n"))...)
		}
	}
	return append(append(append(to, '"'), text...), '"')
}

// decode reads a line; one that is not as it was written is refused.
func decode(line []byte) (r Record, ok bool) {
	end := len(line) - sumLength
	if end < 1 || !bytes.HasPrefix(line[end:], []byte(sumHead)) || !bytes.HasSuffix(line, []byte("\"}\n")) {
		return r, false
	}
	sum, err := strconv.ParseUint(string(line[end+len(sumHead):len(line)-len("\"}\n")]), 16, 32)
	if err != nil || crc32.ChecksumIEEE(line[:end]) != uint32(sum) || json.Unmarshal(line, &r) != nil {
		return Record{}, false
	}
	return r, r.Number > 0
}

// Read calls each for all records of a segment; lines that a power cut tore are skipped.
func Read(r io.Reader, each func(Record) error) error {
	_, err := read(r, func([]byte) bool { return true }, each)
	return err
}

// read decodes only lines that may be wanted, and returns also where the last of them ends.
func read(r io.Reader, maybe func(line []byte) bool, each func(Record) error) (end int64, err error) {
	lines := newLineReader(r)
	for {
		line, err := lines.next()
		if err == io.EOF {
			return end, nil
		}
		if err != nil {
			return end, fmt.Errorf("cannot read journal: %w", err)
		}
		if !maybe(line) {
			continue
		}
		record, ok := decode(line)
		if !ok {
			continue
		}
		end = lines.offset
		if err := each(record); err != nil {
			return end, err
		}
	}
}
