// Package network plugs virtual nodes into networks: bridges of the kernel, joined by one
// tap for each network card (node-protocols 6.3).
//
// The bridge of the platform is there before; those of other networks are made for the
// first card, and removed after the last. A tap goes with the process that holds it, so
// nothing is left of a node that was killed but empty bridges, which the next node that
// starts or stops removes.
//
// It needs CAP_NET_ADMIN and /dev/net/tun, and refuses networks whose name is too long for
// an interface of Linux, or is that of an interface that is no bridge.
package network

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/waltos/waltos/services/internal/items"
	"github.com/waltos/waltos/services/internal/pattern"
)

// Platform is the network that every node is on.
const Platform = "walt-net"

// Spec describes a network card.
type Spec struct {
	Name      string
	Latency   time.Duration // 0: not restricted
	Bandwidth int           // Mbit/s; 0: not restricted
}

var (
	form        = pattern.Lazy(`^([a-z][a-z-]*)(?:\[([^\[\]]*)\])?$`)
	restriction = pattern.Lazy(`^(lat|bw)=([0-9]{1,7})(ms|us|mbps|gbps)$`)
)

const (
	maxName  = 15 // bytes of an interface's name
	maxCards = 25 // what fits on a PCI bus besides the rest
)

// Parse reads a list as walt-net,home-net[lat=8ms,bw=100Mbps].
func Parse(text string) ([]Spec, error) {
	var specs []Spec
	seen := map[string]bool{}
	for _, item := range items.Split(text) {
		spec, err := parse(item)
		if err != nil {
			return nil, err
		}
		if seen[spec.Name] {
			return nil, fmt.Errorf("network %s is there twice", spec.Name)
		}
		seen[spec.Name] = true
		specs = append(specs, spec)
	}
	if !seen[Platform] {
		return nil, fmt.Errorf("network %s is missing", Platform)
	}
	if len(specs) > maxCards {
		return nil, fmt.Errorf("there are more than %d networks", maxCards)
	}
	return specs, nil
}

func parse(item string) (Spec, error) {
	found := form().FindStringSubmatch(item)
	if found == nil {
		return Spec{}, fmt.Errorf("%q is no network, such as home-net or home-net[lat=8ms,bw=100Mbps]", item)
	}
	spec := Spec{Name: found[1]}
	if len(spec.Name) > maxName {
		return Spec{}, fmt.Errorf("the name of network %s has more than %d letters", spec.Name, maxName)
	}
	if !strings.HasSuffix(item, "]") {
		return spec, nil
	}
	for option := range strings.SplitSeq(found[2], ",") {
		parts := restriction().FindStringSubmatch(strings.ToLower(option))
		n, unit := 0, ""
		if parts != nil {
			n, _ = strconv.Atoi(parts[2]) // seven digits
			unit = parts[1] + parts[3]
		}
		switch unit {
		case "latms":
			spec.Latency = time.Duration(n) * time.Millisecond
		case "latus":
			spec.Latency = time.Duration(n) * time.Microsecond
		case "bwmbps":
			spec.Bandwidth = n
		case "bwgbps":
			spec.Bandwidth = n * 1000
		default:
			return Spec{}, fmt.Errorf("%q is no restriction of a network, such as lat=8ms or bw=100Mbps", option)
		}
	}
	return spec, nil
}
