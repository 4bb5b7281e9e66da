package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/node/layout"
)

// Ports of the server (node-protocols.md section 1.1).
const (
	apiPort     = 12345
	streamsPort = 12347
)

const (
	dialLimit = 5 * time.Second
	callLimit = 30 * time.Second
	// maxReply bounds a line that the server answers, in bytes.
	maxReply = 1 << 20
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

// call makes one call of the node API (NSAPI) and returns the literal of its result.
// The arguments are Python literals.
func call(ctx context.Context, server netip.Addr, limit time.Duration, method string, args ...string) (string, error) {
	conn, err := dial(ctx, server, apiPort)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return "", err
	}
	tuple := "("
	for _, arg := range args {
		tuple += " " + arg + ","
	}
	_, err = fmt.Fprintf(conn, "REQ_API_SESSION\nNSAPI\n('API_CALL', '%s', %s), {})\n", method, tuple)
	if err != nil {
		return "", fmt.Errorf("cannot call %s: %w", method, err)
	}
	replies := bufio.NewReader(io.LimitReader(conn, maxReply))
	if _, err := replies.ReadString('\n'); err != nil { // the version of the server
		return "", fmt.Errorf("cannot call %s: %w", method, err)
	}
	reply, err := replies.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("cannot read the answer to %s: %w", method, err)
	}
	fmt.Fprint(conn, "('CLOSE',)\n")
	return result(strings.TrimSpace(reply))
}

// result takes the value out of the literal of a RESULT tuple.
func result(reply string) (string, error) {
	if value, ok := strings.CutPrefix(reply, "('RESULT', "); ok && strings.HasSuffix(value, ")") {
		return strings.TrimSuffix(value, ")"), nil
	}
	if text, ok := strings.CutPrefix(reply, "('EXCEPTION', "); ok {
		return "", errors.New(strings.Trim(strings.TrimSuffix(text, ")"), `'"`))
	}
	return "", fmt.Errorf("cannot understand the answer %.100q", reply)
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
	value, err := call(ctx, server, callLimit, args[0], args[1:]...)
	if err != nil {
		return err
	}
	fmt.Println(value)
	return nil
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
	_, err = call(ctx, server, callLimit, "report_lldp_neighbor", pythonString(args[0]), pythonString(args[1]))
	return err
}

// pythonString writes a Python string literal.
func pythonString(s string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range s {
		switch {
		case r == '\'' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('\'')
	return b.String()
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
	value, err := call(ctx, server, clockLimit, "sync_clock")
	if err != nil {
		return fmt.Errorf("cannot synchronise the clock: %w", err)
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil || seconds <= 0 {
		return fmt.Errorf("cannot synchronise the clock: the server answered %q", value)
	}
	if err := unix.Settimeofday(&unix.Timeval{Sec: seconds}); err != nil {
		return fmt.Errorf("cannot set the clock: %w", err)
	}
	return nil
}
