package boot

import (
	"fmt"
	"os"

	"github.com/waltos/waltos/supervisor/disk"
	"github.com/waltos/waltos/supervisor/verity"
	"golang.org/x/sys/unix"
)

// live is the value of walt.root= of a system that has no disk: it was booted over the
// network or from a medium as one file. Its root is verified like any other.
const live = "live"

// liveFile is where the initramfs of a live system holds the content of a root slot.
const liveFile = "/root.img"

// openLive makes the root of the initramfs a block device. The file is removed with the
// initramfs; the device keeps its memory.
func (s *state) openLive() (p disk.Partition, err error) {
	loader, err := openLoader()
	if err == nil {
		err = loader.Load("loop")
	}
	if err != nil {
		return p, err
	}
	f, err := os.Open(liveFile)
	if err != nil {
		return p, fmt.Errorf("cannot open the root of a live system: %w", err)
	}
	defer f.Close()
	if err := s.verity.Check(f); err != nil {
		return p, err
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return p, fmt.Errorf("cannot make a loop device: %w", err)
	}
	defer control.Close()
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return p, fmt.Errorf("cannot make a loop device: %w", err)
	}
	p = disk.Partition{Name: live, Device: fmt.Sprintf("/dev/loop%d", number), Number: fmt.Sprintf("7:%d", number)}
	device, err := os.OpenFile(p.Device, os.O_RDONLY, 0)
	if err != nil {
		return p, fmt.Errorf("cannot open loop device: %w", err)
	}
	defer device.Close()
	config := unix.LoopConfig{Fd: uint32(f.Fd()), Size: verity.BlockSize, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY}}
	if err := unix.IoctlLoopConfigure(int(device.Fd()), &config); err != nil {
		return p, fmt.Errorf("cannot configure %s: %w", p.Device, err)
	}
	return p, nil
}
