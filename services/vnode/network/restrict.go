package network

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// ownLatency is about what frames take to a node anyway; a latency asked for
	// includes it.
	ownLatency = 300 * time.Microsecond
	// leastBurst is what a token bucket must hold at any rate, in bytes.
	leastBurst = 256_000
	// delayedFrames are how many frames wait for a latency: those of a second and more at
	// the speed of a virtual network.
	delayedFrames = 100_000
)

// restrict limits what goes through a tap towards the node.
func (s Spec) restrict(tap netlink.Link) error {
	attrs := netlink.QdiscAttrs{LinkIndex: tap.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
	if s.Latency > 0 {
		if err := netlink.QdiscAdd(s.delay(attrs)); err != nil {
			return fmt.Errorf("cannot restrict the latency: %w", kernelLacks(err, "sch_netem"))
		}
		attrs.Parent, attrs.Handle = netlink.MakeHandle(1, 1), netlink.MakeHandle(10, 0)
	}
	if s.Bandwidth > 0 {
		if err := netlink.QdiscAdd(s.rate(attrs)); err != nil {
			return fmt.Errorf("cannot restrict the bandwidth: %w", kernelLacks(err, "sch_tbf"))
		}
	}
	return nil
}

// delay returns the queue of a latency.
func (s Spec) delay(attrs netlink.QdiscAttrs) *netlink.Netem {
	delay := max(s.Latency-ownLatency, time.Microsecond)
	return netlink.NewNetem(attrs, netlink.NetemQdiscAttrs{Latency: uint32(delay.Microseconds()), Limit: delayedFrames})
}

// rate returns the queue of a bandwidth: a token bucket that holds the frames of the
// latency at the full rate.
func (s Spec) rate(attrs netlink.QdiscAttrs) *netlink.Tbf {
	latency := s.Latency
	if latency == 0 {
		latency = ownLatency
	}
	bytesPerSecond := float64(s.Bandwidth) * 1e6 / 8
	burst := bytesPerSecond*latency.Seconds() + leastBurst
	return &netlink.Tbf{
		QdiscAttrs: attrs, Rate: uint64(bytesPerSecond),
		Buffer: netlink.Xmittime(uint64(bytesPerSecond), uint32(burst)),
		Limit:  uint32(bytesPerSecond*latency.Seconds() + burst),
	}
}

// kernelLacks explains an error that the kernel has for a queue it does not know.
func kernelLacks(err error, module string) error {
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("the kernel has no module %s", module)
	}
	return err
}
