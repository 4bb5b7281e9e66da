// Package power waits for the power button, which the kernel shows as a key of an input
// device (include/uapi/linux/input.h; drivers "button" and "evdev").
package power

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	evKey    = 1
	keyPower = 116
	// eviocgbit is EVIOCGBIT(EV_KEY, 96): the keys that a device has, one bit each.
	eviocgbit = 2<<30 | 96<<16 | 'E'<<8 | 0x20 + evKey
)

// event is struct input_event; the time before it has two machine words.
type event struct {
	Type, Code uint16
	Value      int32
}

const (
	timeSize  = 2 * int(unsafe.Sizeof(uintptr(0)))
	eventSize = timeSize + 8
)

// Devices returns the present input devices that may be buttons.
func Devices() []string {
	paths, err := filepath.Glob("/dev/input/event*")
	if err != nil {
		return nil
	}
	return paths
}

// ErrNoButton is returned for devices that have no power key.
var ErrNoButton = errors.New("no power button")

// Watch calls pressed at each press of the power key of a device, until the device
// goes. It returns ErrNoButton at once for a device without one.
func Watch(path string, pressed func()) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot watch power button: %w", err)
	}
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("cannot watch power button: %w", err)
	}
	var keys [96]byte
	var errno unix.Errno
	if err := raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, eviocgbit, uintptr(unsafe.Pointer(&keys)))
	}); err != nil {
		return fmt.Errorf("cannot watch power button: %w", err)
	}
	if errno != 0 || keys[keyPower/8]&(1<<(keyPower%8)) == 0 {
		return ErrNoButton
	}
	buffer := make([]byte, 64*eventSize)
	for {
		n, err := f.Read(buffer)
		if err != nil {
			return fmt.Errorf("cannot watch power button: %w", err)
		}
		for at := 0; at+eventSize <= n; at += eventSize {
			if isPress(buffer[at : at+eventSize]) {
				pressed()
			}
		}
	}
}

func isPress(raw []byte) bool {
	var e event
	if _, err := binary.Decode(raw[timeSize:], binary.NativeEndian, &e); err != nil {
		return false
	}
	return e.Type == evKey && e.Code == keyPower && e.Value == 1
}
