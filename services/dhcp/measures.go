package dhcp

import (
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/waltos/waltos/services/metrics"
)

// counts are what the service tells of itself.
type counts struct {
	set               *metrics.Set
	received, sent    *metrics.By[metrics.Counter]
	malformed, failed *metrics.Counter
}

func newCounts(leases func() int) counts {
	set := metrics.New("dhcpd")
	set.Func(func() []metrics.Family {
		return []metrics.Family{metrics.Gauge("walt_dhcp_leases", "DHCP leases acknowledged.", metrics.Value(float64(leases())))}
	})
	return counts{
		set:       set,
		received:  set.CountersBy("walt_dhcp_received_messages_total", "DHCP messages of clients, by type.", "type"),
		sent:      set.CountersBy("walt_dhcp_sent_messages_total", "DHCP messages to clients, by type.", "type"),
		malformed: set.Counter("walt_dhcp_malformed_messages_total", "Datagrams received that are not DHCP."),
		failed:    set.Counter("walt_dhcp_send_failures_total", "DHCP messages that could not be sent."),
	}
}

// Measures is what the server counts.
func (s *Server) Measures() *metrics.Set { return s.count.set }

// kindName is the name of a type of messages, of which clients may send any.
func kindName(kind dhcpv4.MessageType) string {
	if kind < dhcpv4.MessageTypeDiscover || kind > dhcpv4.MessageTypeInform {
		return "other"
	}
	return strings.ToLower(kind.String())
}
