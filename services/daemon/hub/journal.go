package hub

import (
	"fmt"
	"log"
	"net/netip"
	"sync"
	"time"

	"github.com/waltos/waltos/services/wire/literal"
	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/services/wire/rpc"
)

// maxLines is how many lines about calls are printed in a second. A program that calls
// all the time would fill the journal, and wait for it.
const maxLines = 50

// journal prints a line per call (client-api 1.6).
type journal struct {
	mu      sync.Mutex
	second  int64
	printed int
	skipped int
}

// room tells whether a line more may be printed now.
func (j *journal) room(now time.Time) bool {
	second := now.Unix()
	j.mu.Lock()
	defer j.mu.Unlock()
	if second != j.second {
		if j.skipped > 0 {
			log.Printf("%d more lines about calls", j.skipped)
		}
		j.second, j.printed, j.skipped = second, 0, 0
	}
	if j.printed == maxLines {
		j.skipped++
		return false
	}
	j.printed++
	return true
}

func (j *journal) printf(now time.Time, format string, args ...any) {
	if j.room(now) {
		log.Printf(format, args...)
	}
}

// call prints a call.
func (j *journal) call(now time.Time, api string, peer netip.Addr, m *rpc.Message) {
	if j.room(now) {
		log.Print(describe(api, peer, m))
	}
}

// describe returns the line that is logged of a call.
func describe(api string, peer netip.Addr, m *rpc.Message) string {
	const limit = 300
	text, err := literal.Format(pickle.Tuple{m.Args, m.Kwargs})
	if err != nil {
		text = err.Error()
	}
	if len(text) > limit {
		text = text[:limit] + "..."
	}
	return fmt.Sprintf("%v: %.20q %.80q %s", peer, api, m.Name, text)
}
