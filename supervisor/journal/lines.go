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
type lineReader struct{ reader *bufio.Reader }

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{bufio.NewReaderSize(r, maxEncoded)}
}

// next returns a whole line, or io.EOF; a last line without newline is torn and skipped.
func (l *lineReader) next() ([]byte, error) {
	for {
		line, err := l.reader.ReadSlice('\n')
		if err == nil {
			return line, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = l.reader.ReadSlice('\n')
		}
		if err != nil {
			return nil, err
		}
	}
}
