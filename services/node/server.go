package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/node/layout"
	"github.com/waltos/waltos/services/wire/client"
	"github.com/waltos/waltos/services/wire/literal"
	"github.com/waltos/waltos/services/wire/rpc"
)

// Ports of the server (node-protocols.md section 1.1).
const (
	apiPort     = 12345
	streamsPort = 12347
)

const (
	dialLimit  = 5 * time.Second
	callLimit  = 30 * time.Second
	clockLimit = 3 * time.Second
)

// findServer returns the address of the WalT server: from the environment file that
// it wrote in the image, else from the kernel command line.
func findServer() (netip.Addr, error) {
	if text, err := os.ReadFile(layout.Environment); err == nil {
		if addr, err := netip.ParseAddr(variable(string(text), "walt_server_ip")); err == nil {
			return addr, nil
		}
	}
	kernel, err := readCmdline()
	if err != nil {
		return netip.Addr{}, err
	}
	addr, err := netip.ParseAddr(kernel["walt.server.ip"])
	if err != nil {
		return netip.Addr{}, fmt.Errorf("cannot find the server: neither %s nor kernel parameter walt.server.ip gives its address", layout.Environment)
	}
	return addr, nil
}

// variable returns the value of a line "export NAME=VALUE" of a shell file; quotes
// around the value are removed.
func variable(file, name string) string {
	for _, line := range strings.Split(file, "\n") {
		value, found := strings.CutPrefix(strings.TrimPrefix(strings.TrimSpace(line), "export "), name+"=")
		if found {
			return strings.Trim(value, `'"`)
		}
	}
	return ""
}

func dial(ctx context.Context, server netip.Addr, port uint16) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialLimit}
	conn, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(server, port).String())
	if err != nil {
		return nil, fmt.Errorf("cannot reach the server: %w", err)
	}
	return conn, nil
}

// call makes one call of the node API (NSAPI).
func call(ctx context.Context, server netip.AddrPort, limit time.Duration, method string, args ...any) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s, err := client.Dial(ctx, server.String(), client.Options{API: "NSAPI", Mode: rpc.Lines})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Call(ctx, method, args...)
}

// callServer is walt-rpc METHOD [LITERAL...].
func callServer(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: walt-rpc METHOD [PYTHON-LITERAL...]")
	}
	server, err := findServer()
	if err != nil {
		return err
	}
	text, err := callText(ctx, netip.AddrPortFrom(server, apiPort), args[0], args[1:])
	if err != nil {
		return err
	}
	fmt.Println(text)
	return nil
}

// callText makes a call whose arguments and result are Python literals.
func callText(ctx context.Context, server netip.AddrPort, method string, args []string) (string, error) {
	values := make([]any, len(args))
	for i, text := range args {
		var err error
		if values[i], err = literal.Parse(text); err != nil {
			return "", fmt.Errorf("argument %d: %w", i+1, err)
		}
	}
	v, err := call(ctx, server, callLimit, method, values...)
	if err != nil {
		return "", err
	}
	return literal.Format(v)
}

// reportNeighbor is walt-report-lldp-neighbor SWITCH-MAC PORT-LABEL.
func reportNeighbor(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: walt-report-lldp-neighbor SWITCH-MAC PORT-LABEL")
	}
	server, err := findServer()
	if err != nil {
		return err
	}
	_, err = call(ctx, netip.AddrPortFrom(server, apiPort), callLimit, "report_lldp_neighbor", args[0], args[1])
	return err
}

// syncClock is walt-clock-sync.
func syncClock(ctx context.Context, _ []string) error {
	server, err := findServer()
	if err != nil {
		return err
	}
	return syncClockWith(ctx, server)
}

// syncClockWith sets the clock to the second that the server names: it answers right
// when that second begins.
func syncClockWith(ctx context.Context, server netip.Addr) error {
	value, err := call(ctx, netip.AddrPortFrom(server, apiPort), clockLimit, "sync_clock")
	if err != nil {
		return fmt.Errorf("cannot synchronise the clock: %w", err)
	}
	seconds, ok := value.(int64)
	if !ok || seconds <= 0 {
		return fmt.Errorf("cannot synchronise the clock: the server answered %v", value)
	}
	if err := unix.Settimeofday(&unix.Timeval{Sec: seconds}); err != nil {
		return fmt.Errorf("cannot set the clock: %w", err)
	}
	return nil
}
