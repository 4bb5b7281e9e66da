package tftp

import (
	"net/netip"

	"github.com/waltos/waltos/services/metrics"
)

// counts are what the service tells of itself.
type counts struct {
	set      *metrics.Set
	requests *metrics.Counter
	answers  *metrics.By[metrics.Counter]
	bytes    *metrics.Counter
}

// refusals are the answers that are errors, by their code.
var refusals = map[uint16]string{codeOther: "failed", codeNotFound: "not_found", codeAccess: "refused", codeIllegal: "malformed"}

func newCounts(transfers func() int) counts {
	set := metrics.New("tftpd")
	set.Func(func() []metrics.Family {
		return []metrics.Family{metrics.Gauge("walt_tftp_transfers", "TFTP transfers under way.", metrics.Value(float64(transfers())))}
	})
	return counts{
		set:      set,
		requests: set.Counter("walt_tftp_requests_total", "TFTP requests, without repeated ones."),
		answers:  set.CountersBy("walt_tftp_answers_total", "TFTP requests answered, by how that ended.", "result"),
		bytes:    set.Counter("walt_tftp_sent_bytes_total", "Bytes of files sent by TFTP, without what was sent again."),
	}
}

// Measures is what the server counts.
func (s *Server) Measures() *metrics.Set { return s.count.set }

func (s *Server) transfers() int {
	_, all := s.quota.Held(netip.Addr{})
	return all
}
