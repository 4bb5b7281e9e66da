// Package uevent receives the kernel's messages about devices that come and go
// (NETLINK_KOBJECT_UEVENT; Documentation/driver-api/uevent of Linux). Messages that are
// not from the kernel are dropped.
package uevent

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Event is one message: its variables, ACTION, DEVPATH, SUBSYSTEM, MODALIAS ….
type Event map[string]string

// Socket receives events.
type Socket struct{ file *os.File }

// bufferSize holds what comes while nobody reads: a cold plug makes thousands.
const bufferSize = 2 << 20

// Listen opens a socket; events are queued from now on.
func Listen() (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for devices: %w", err)
	}
	// More than the limit needs privilege; without it the default must do.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferSize)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot listen for devices: %w", err)
	}
	return &Socket{os.NewFile(uintptr(fd), "uevent")}, nil
}

// Close ends a pending Next.
func (s *Socket) Close() error { return s.file.Close() }

// Next waits for an event until the deadline (zero: for ever); then the error is
// os.ErrDeadlineExceeded. Lost events (the queue was full) come as an empty one.
func (s *Socket) Next(deadline time.Time) (Event, error) {
	if err := s.file.SetReadDeadline(deadline); err != nil {
		return nil, fmt.Errorf("cannot wait for devices: %w", err)
	}
	raw, err := s.file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("cannot wait for devices: %w", err)
	}
	buffer := make([]byte, 16<<10)
	for {
		var n int
		var from unix.Sockaddr
		var recvErr error
		err := raw.Read(func(fd uintptr) bool {
			n, from, recvErr = unix.Recvfrom(int(fd), buffer, 0)
			return !errors.Is(recvErr, unix.EAGAIN)
		})
		switch {
		case err != nil:
			return nil, err
		case errors.Is(recvErr, unix.ENOBUFS):
			return Event{}, nil
		case errors.Is(recvErr, unix.EINTR):
			continue
		case recvErr != nil:
			return nil, fmt.Errorf("cannot wait for devices: %w", recvErr)
		}
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
			continue
		}
		if event := parse(buffer[:n]); event != nil {
			return event, nil
		}
	}
}

// parse reads "ACTION@DEVPATH\0NAME=VALUE\0…".
func parse(message []byte) Event {
	head, rest, ok := bytes.Cut(message, []byte{0})
	if !ok || !bytes.Contains(head, []byte("@")) {
		return nil
	}
	event := Event{}
	for part := range bytes.SplitSeq(rest, []byte{0}) {
		if name, value, ok := strings.Cut(string(part), "="); ok {
			event[name] = value
		}
	}
	return event
}
