package hub

import (
	"errors"
	"sync/atomic"
)

// maxMemory bounds what the messages of all clients together take: those that are being
// read or wait for their turn, and what clients are slow to read.
const maxMemory = 64 << 20

var errMemory = errors.New("messages of clients take too much memory")

// memory counts bytes up to a limit.
type memory struct {
	limit int64
	taken atomic.Int64
}

// take adds n bytes, or nothing and tells that they are too many.
func (m *memory) take(n int) error {
	if m.taken.Add(int64(n)) > m.limit {
		m.taken.Add(int64(-n))
		return errMemory
	}
	return nil
}

// give takes back n bytes.
func (m *memory) give(n int) { m.taken.Add(int64(-n)) }
