package process

import (
	"bufio"
	"errors"
	"io"
	"strings"
)

// lineLimit is where a longer line is cut into several.
const lineLimit = 8 << 10

// readLines calls each for every line until the end; the last may lack its newline.
func readLines(r io.Reader, each func(line string)) {
	reader := bufio.NewReaderSize(r, lineLimit)
	for {
		line, err := reader.ReadSlice('\n')
		if len(line) > 0 {
			each(strings.TrimRight(string(line), "\r\n"))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}
