package dhcp

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/waltos/waltos/services/state"
	wire "github.com/waltos/waltos/services/wire/client"
)

const (
	eventUsage = "usage: walt-dhcp-event commit [--force-name] VCI UCI IP MAC CLIENT_NAME IS_KNOWN DEV_TYPE"
	// eventText bounds each argument: an option of DHCP holds 255 bytes.
	eventText = 255
	// eventTimeout bounds a registration: the client waits for its acknowledgement.
	eventTimeout = 10 * time.Second
	apiServer    = "127.0.0.1:12345"
)

// EventMain is the command walt-dhcp-event, by which another DHCP server, a test or an
// administrator registers a device as this server does (node-protocols 1.2.5).
func EventMain(ctx context.Context, args []string) error {
	r, err := parseEvent(args)
	if err != nil || r == nil {
		return err
	}
	return sendEvent(ctx, apiServer, *r)
}

// parseEvent reads the arguments of walt-dhcp-event. It returns nil if the daemon has
// nothing to learn from them.
func parseEvent(args []string) (*state.Registration, error) {
	if len(args) == 0 || args[0] != "commit" {
		return nil, errors.New(eventUsage)
	}
	args = args[1:]
	force := len(args) > 0 && args[0] == "--force-name"
	if force {
		args = args[1:]
	}
	if len(args) != 7 {
		return nil, fmt.Errorf("%d arguments follow commit, where 7 are needed\n%s", len(args), eventUsage)
	}
	if i := slices.IndexFunc(args, func(arg string) bool { return len(arg) > eventText }); i >= 0 {
		return nil, fmt.Errorf("argument %d has %d bytes; an option of DHCP has at most %d", i+1, len(args[i]), eventText)
	}
	ip, err := netip.ParseAddr(args[2])
	if err != nil || !ip.Is4() {
		return nil, fmt.Errorf("%q is not an IPv4 address", args[2])
	}
	hw, err := net.ParseMAC(args[3])
	if err != nil || len(hw) != len(mac{}) {
		return nil, fmt.Errorf("%q is not a MAC address", args[3])
	}
	if args[5] != "0" && args[5] != "1" {
		return nil, fmt.Errorf("IS_KNOWN is %q, where 0 or 1 is needed", args[5])
	}
	r := state.Registration{VCI: text([]byte(args[0])), UCI: text([]byte(args[1])), IP: ip.String(), MAC: mac(hw).String(), Name: text([]byte(args[4]))}
	if !worthTelling(r, args[6], args[5] == "1") {
		return nil, nil
	}
	if !force {
		r.Name = proposedName(r.Name, mac(hw))
	}
	return &r, nil
}

// worthTelling says whether the daemon can learn anything of a client: whether it is
// unknown, or turns out to be a node.
func worthTelling(r state.Registration, deviceType string, known bool) bool {
	return !known || deviceType == "unknown" && (strings.HasPrefix(r.VCI, nodeClass) || strings.HasPrefix(r.UCI, nodeClass))
}

// proposedName makes the name that a client gave unlikely to be that of another.
func proposedName(name string, m mac) string {
	if name == "" {
		return ""
	}
	name = strings.ToLower(name)
	if suffix := hex.EncodeToString(m[3:]); !strings.HasSuffix(name, suffix) {
		name += "-" + suffix
	}
	return name
}

// sendEvent registers a device by the API of server programs.
func sendEvent(ctx context.Context, server string, r state.Registration) error {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	s, err := wire.Dial(ctx, server, wire.Options{API: "SSAPI"})
	if err != nil {
		return fmt.Errorf("cannot register %s: %w", r.MAC, err)
	}
	defer s.Close()
	if _, err := s.Call(ctx, "register_device", r.VCI, r.UCI, r.IP, r.MAC, r.Name); err != nil {
		return fmt.Errorf("cannot register %s: %w", r.MAC, err)
	}
	return nil
}
