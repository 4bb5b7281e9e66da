package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// controlPort is where the server asks nodes for things (node-protocols.md section 4.1).
const controlPort = 12346

const (
	idleLimit       = 15 * time.Second
	maxRequest      = 4096 // bytes of one line
	maxControlPeers = 16   // connections served at once; the server uses one
)

// control serves the requests of the server.
type control struct {
	reboot   func()
	bootable func() error // tells why a reboot is impossible
}

// serve accepts connections until the listener fails or ctx ends.
func (c *control) serve(ctx context.Context, listener net.Listener) error {
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	slots := make(chan struct{}, maxControlPeers)
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("cannot accept control requests: %w", errors.Join(err, ctx.Err()))
		}
		if err != nil { // as "too many open files", which is no reason to reboot
			say("cannot accept a control request: %v", err)
			if err := pause(ctx, time.Second); err != nil {
				return err
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		go func() {
			defer func() { <-slots }()
			defer conn.Close()
			if c.converse(ctx, conn) {
				farewell(conn)
				c.reboot()
			}
		}()
	}
}

// farewell waits until the peer has closed, having read the answer: one that is still
// in this machine when it restarts is lost.
func farewell(conn net.Conn) {
	const limit = 2 * time.Second
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil && conn.SetReadDeadline(time.Now().Add(limit)) == nil {
		_, _ = io.Copy(io.Discard, conn) // any end will do
	}
	conn.Close()
}

// converse answers the requests of one connection; it returns true when the node
// must reboot.
func (c *control) converse(ctx context.Context, conn net.Conn) (reboot bool) {
	requests := bufio.NewReaderSize(conn, maxRequest)
	mode := ""
	for {
		if conn.SetReadDeadline(time.Now().Add(idleLimit)) != nil {
			return false
		}
		raw, err := requests.ReadSlice('\n')
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				fmt.Fprint(conn, "TIMEOUT Closing on my side.\n")
			}
			return false
		}
		words := strings.Fields(string(raw))
		if len(words) == 0 {
			continue
		}
		if words[0] == "MODE" && len(words) > 1 && (words[1] == "single" || words[1] == "multi") {
			mode, words = words[1], words[2:] // a request may follow on the same line
			if len(words) == 0 {
				continue
			}
		}
		if mode == "" {
			fmt.Fprint(conn, "KO Start by specifying \"MODE [single|multi]\". Closing on my side.\n")
			return false
		}
		switch words[0] {
		case "CLOSE":
			fmt.Fprint(conn, "OK Closing on my side.\n")
			return false
		case "REBOOT":
			if err := c.bootable(); err != nil {
				fmt.Fprintf(conn, "KO %v\n", err)
				break
			}
			fmt.Fprint(conn, "OK\n")
			return true
		default:
			c.answer(ctx, conn, words)
		}
		if mode == "single" {
			return false
		}
	}
}

// answer serves a request after which the connection may go on. Unknown requests get
// no reply.
func (c *control) answer(ctx context.Context, conn io.Writer, words []string) {
	switch words[0] {
	case "PING":
		fmt.Fprint(conn, "OK\n")
	case "BLINK":
		const program = "/bin/blink"
		switch {
		case len(words) != 2 || words[1] != "0" && words[1] != "1":
			fmt.Fprint(conn, "KO BLINK takes 0 or 1\n")
		case !executable(program):
			fmt.Fprint(conn, "KO /bin/blink unavailable or not executable on image\n")
		default:
			ctx, cancel := context.WithTimeout(ctx, idleLimit)
			defer cancel()
			if err := exec.CommandContext(ctx, program, words[1]).Run(); err != nil {
				fmt.Fprint(conn, "KO /bin/blink returned a non-zero error code\n")
				return
			}
			fmt.Fprint(conn, "OK\n")
		}
	case "DMESG":
		buffer := make([]byte, 1<<20)
		n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, buffer)
		if err != nil {
			fmt.Fprintf(conn, "KO cannot read the kernel log: %v\n", err)
			return
		}
		fmt.Fprintf(conn, "OK\n\n%s", buffer[:n])
	}
}
