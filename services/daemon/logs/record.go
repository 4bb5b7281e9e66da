package logs

import (
	"bufio"
	"encoding/binary"
	"math"
	"time"
)

// timeFormat is how time stamps are sent to clients.
type timeFormat int

const (
	datetime timeFormat = iota // naive, server local time
	floatSeconds
	floatMilliseconds
)

// Fixed parts of the pickle of a record, protocol 4: a dict with the keys timestamp,
// line, issuer and stream. They are written here and not by package pickle because a
// history is sent at hundreds of thousands of records a second. Each record is one
// frame, which Python's unpickler reads at once instead of byte by byte.
const (
	recordHead   = "}(\x8c\x09timestamp"
	datetimeHead = "\x8c\x08datetime\x8c\x08datetime\x93C\x0a" // then 10 bytes
	datetimeTail = "\x85R"
	lineKey      = "\x8c\x04line"
	issuerKey    = "\x8c\x06issuer"
	streamKeyKey = "\x8c\x06stream"
	recordTail   = "u."
)

func writeRecord[T string | []byte](out *bufio.Writer, format timeFormat, at time.Time, text T, issuer, stream string) error {
	size := len(recordHead) + len(lineKey) + len(issuerKey) + len(streamKeyKey) + len(recordTail) + 3*5 + len(text) + len(issuer) + len(stream)
	if format == datetime {
		size += len(datetimeHead) + 10 + len(datetimeTail)
	} else {
		size += 9
	}
	b := out.AvailableBuffer()
	b = append(b, 0x80, 4, 0x95)
	b = binary.LittleEndian.AppendUint64(b, uint64(size))
	b = append(b, recordHead...)
	b = appendTime(b, format, at)
	b = appendText(append(b, lineKey...), text)
	b = appendText(append(b, issuerKey...), issuer)
	b = appendText(append(b, streamKeyKey...), stream)
	b = append(b, recordTail...)
	_, err := out.Write(b)
	return err
}

func appendText[T string | []byte](b []byte, s T) []byte {
	b = append(b, 'X')
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

func appendTime(b []byte, format timeFormat, at time.Time) []byte {
	if format != datetime {
		f := float64(at.UnixMicro()) / 1e6
		if format == floatMilliseconds {
			f = float64(at.UnixMicro()) / 1e3
		}
		return binary.BigEndian.AppendUint64(append(b, 'G'), math.Float64bits(f))
	}
	at = at.Local()
	year, month, day := at.Date()
	hour, minute, second := at.Clock()
	year = min(max(year, 1), 9999) // of Python's datetime
	micro := at.Nanosecond() / 1000
	b = append(b, datetimeHead...)
	b = append(b, byte(year>>8), byte(year), byte(month), byte(day), byte(hour), byte(minute), byte(second),
		byte(micro>>16), byte(micro>>8), byte(micro))
	return append(b, datetimeTail...)
}
