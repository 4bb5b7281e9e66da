//go:build !race

package direct

import (
	"syscall"
	"unsafe"
)

// read reads a descriptor once.
func read(fd int, p []byte) (int, error) { return call(syscall.SYS_READ, fd, p) }

// write writes to a descriptor once.
func write(fd int, p []byte) (int, error) { return call(syscall.SYS_WRITE, fd, p) }

func call(trap uintptr, fd int, p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
