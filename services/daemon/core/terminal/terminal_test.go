package terminal

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"testing"

	"github.com/waltos/waltos/services/wire/pickle"
)

// FuzzEvents: whatever a client sends to its terminal is obeyed or ends it.
func FuzzEvents(f *testing.F) {
	for _, event := range []*pickle.Dict{
		pickle.NewDict("evt", "input_data", "data", []byte("x")),
		pickle.NewDict("evt", "window_resize", "lines", 24, "columns", 80),
		pickle.NewDict("evt", "window_resize", "lines", -1, "columns", 1<<40),
		pickle.NewDict("evt", "input_data", "data", "text"),
		pickle.NewDict("evt", 5),
	} {
		data, err := pickle.Marshal(event)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(append(data, data...))
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { null.Close() })
	f.Fuzz(func(t *testing.T, typed []byte) {
		c := &Conn{TCPConn: &net.TCPConn{}, R: bufio.NewReader(bytes.NewReader(typed))}
		c.typeInto(null)
	})
}
