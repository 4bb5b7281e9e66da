package journal

import (
	"bufio"
	"errors"
	"io"
)

// maxEncoded is the longest line of a segment: a text of MaxLine bytes, each escaped in
// six, and the rest of the object.
const maxEncoded = 6*MaxLine + 1024

// lineReader reads lines and skips those that are longer than any record: the zeros that
// a power cut may leave at the end of a file hold no newline.
type lineReader struct {
	reader *bufio.Reader
	offset int64 // after the last line
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{reader: bufio.NewReaderSize(r, maxEncoded)}
}

// next returns a whole line, or io.EOF; a last line without newline is torn and skipped.
func (l *lineReader) next() ([]byte, error) {
	for {
		line, err := l.slice()
		if err == nil {
			return line, nil
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = l.slice()
		}
		if err != nil {
			return nil, err
		}
	}
}

func (l *lineReader) slice() ([]byte, error) {
	line, err := l.reader.ReadSlice('\n')
	l.offset += int64(len(line))
	return line, err
}
