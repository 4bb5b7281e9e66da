// Package nodes is what the server holds with each node: requests to its control service
// (TCP 12346, node-protocols §4.1), the connection that says it is booted (request 14 of
// TCP 12347, §3.4), the time it is given to boot (server-state §2.9) and that it is left
// alone (§2.13). It knows nodes by their addresses only; names and logs are its caller's
// business.
//
// Bytes of nodes are bounded and never trusted: an answer is one line of at most
// maxReply bytes, and what follows the first byte of a boot notification is ignored.
package nodes

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// ControlPort is where nodes listen for requests.
	ControlPort = "12346"
	// controlTimeout bounds the connection, then the wait for the reply.
	controlTimeout = 15 * time.Second
	maxReply       = 4096
)

// Control sends requests to the control service of nodes.
type Control struct {
	// Dial replaces net.Dialer.DialContext, if not nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Pause is the wait before another try at a refused connection: a node accepts one
	// connection at a time, and listens again a second after the last one. 0: one second.
	Pause time.Duration
}

// A Failure is why a request was not served, in the words that users are told: the reason
// that the node gave, or one of those of server-state §2.12.
type Failure string

func (f Failure) Error() string { return string(f) }

const (
	errTimedOut = Failure("Connection timed out")
	errNoReply  = Failure("Timed out waiting for reply")
	errBroken   = Failure("Broken connection")
	errNonsense = Failure("Node did not respond properly")
	errNowhere  = Failure("Unknown IP address")
)

// Request sends one request, as "REBOOT" or "BLINK 1". The error is a Failure.
func (c Control) Request(ctx context.Context, ip, request string) error {
	if ip == "" {
		return errNowhere
	}
	conn, err := c.connect(ctx, ip)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn.SetDeadline(time.Now().Add(controlTimeout))
	if _, err := io.WriteString(conn, "MODE single\n"+request+"\n"); err != nil {
		return errBroken
	}
	line, err := bufio.NewReader(io.LimitReader(conn, maxReply)).ReadString('\n')
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errNoReply
	case err != nil:
		return errBroken
	}
	return reply(line)
}

// reply reads the answer of a node: "OK", or "KO reason".
func reply(line string) error {
	status, reason, _ := strings.Cut(strings.TrimSpace(line), " ")
	switch {
	case status == "OK":
		return nil
	case reason != "" && utf8.ValidString(reason):
		return Failure(strings.Map(printable, reason))
	}
	return errNonsense
}

func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return '?'
}

func (c Control) connect(ctx context.Context, ip string) (net.Conn, error) {
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	pause := c.Pause
	if pause == 0 {
		pause = time.Second
	}
	within, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	for tries := 3; ; tries-- {
		conn, err := dial(within, "tcp", net.JoinHostPort(ip, ControlPort))
		if err == nil {
			return conn, nil
		}
		if tries == 1 || !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, connectError(err)
		}
		select {
		case <-within.Done():
			return nil, connectError(err)
		case <-time.After(pause):
		}
	}
}

// connectError gives the text of the system error below err, with a capital as strerror.
func connectError(err error) error {
	var netErr net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &netErr) && netErr.Timeout() {
		return errTimedOut
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		text := errno.Error()
		return Failure(strings.ToUpper(text[:1]) + text[1:])
	}
	return Failure(err.Error())
}
