package rpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Request is the identifier that opens a connection on TCP 12345 or 12347.
type Request int

// The requests of WalT 10.0. APISession belongs to port 12345, the others to 12347.
const (
	NewIncomingLogs Request = iota
	DumpLogs
	SQLPrompt
	DockerPrompt
	NodeCmd
	DevicePing
	TarFromImage
	TarToImage
	TarFromNode
	TarToNode
	APISession
	TCPToNode
	FakeTFTPGet
	VPNNodeImage
	NotifyBootupStatus
	DeviceShell
	TarForImageBuild
)

var requestNames = [...]string{
	"NEW_INCOMING_LOGS", "DUMP_LOGS", "SQL_PROMPT", "DOCKER_PROMPT", "NODE_CMD", "DEVICE_PING",
	"TAR_FROM_IMAGE", "TAR_TO_IMAGE", "TAR_FROM_NODE", "TAR_TO_NODE", "API_SESSION", "TCP_TO_NODE",
	"FAKE_TFTP_GET", "VPN_NODE_IMAGE", "NOTIFY_BOOTUP_STATUS", "DEVICE_SHELL", "TAR_FOR_IMAGE_BUILD",
}

// String returns the symbolic name, such as "REQ_API_SESSION".
func (r Request) String() string {
	if r < 0 || int(r) >= len(requestNames) {
		return "REQ_" + strconv.Itoa(int(r))
	}
	return "REQ_" + requestNames[r]
}

// ErrUnknownRequest is the error of a request line that names no request: the
// connection is to be closed without a word.
var ErrUnknownRequest = errors.New("unknown request")

// ParseRequest reads a request line: an identifier, decimal or symbolic.
func ParseRequest(line string) (Request, error) {
	line = strings.TrimSpace(line)
	if n, err := strconv.ParseUint(line, 10, 8); err == nil && int(n) < len(requestNames) {
		return Request(n), nil
	}
	for i, name := range requestNames {
		if line == "REQ_"+name {
			return Request(i), nil
		}
	}
	return 0, fmt.Errorf("%w %.40q", ErrUnknownRequest, line)
}

const (
	maxRequestLine = 64
	openingTime    = 10 * time.Second
)

// ReadRequest reads the request line of a new connection, within 10 seconds. The
// reader it returns holds what came after it; conn is left without deadline. It is to
// be called in the connection's own goroutine, because the peer may be silent.
func ReadRequest(ctx context.Context, conn net.Conn) (Request, *bufio.Reader, error) {
	stop := bound(ctx, conn, openingTime)
	defer stop()
	r := bufio.NewReader(conn)
	line, err := ReadLine(r, maxRequestLine)
	if err != nil {
		return 0, nil, fmt.Errorf("cannot read request: %w", err)
	}
	request, err := ParseRequest(line)
	if err != nil {
		return 0, nil, fmt.Errorf("cannot serve request: %w", err)
	}
	return request, r, nil
}

// bound makes reads of conn fail after a time or when ctx ends; the function it
// returns lifts the time limit.
func bound(ctx context.Context, conn net.Conn, limit time.Duration) (lift func()) {
	// Errors of deadlines mean a closed connection, which reads will tell.
	_ = conn.SetReadDeadline(time.Now().Add(limit))
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	return func() {
		if stop() {
			_ = conn.SetReadDeadline(time.Time{})
		}
	}
}

// ReadLine reads a line of at most limit bytes and returns it without its LF. It fails
// as soon as the limit is passed. The error is io.EOF only if the stream ends before
// the first byte.
func ReadLine(r *bufio.Reader, limit int) (string, error) {
	var line []byte
	for {
		c, err := r.ReadByte()
		switch {
		case err == io.EOF && len(line) > 0:
			return "", io.ErrUnexpectedEOF
		case err != nil:
			return "", err
		case c == '\n':
			return string(line), nil
		case len(line) == limit:
			return "", fmt.Errorf("a line is longer than %d bytes", limit)
		}
		line = append(line, c)
	}
}
