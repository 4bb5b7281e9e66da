package uevent

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	e := parse([]byte("add@/devices/x\x00ACTION=add\x00MODALIAS=pci:v1=2\x00"))
	if e["ACTION"] != "add" || e["MODALIAS"] != "pci:v1=2" || len(e) != 2 {
		t.Errorf("%v", e)
	}
	for _, bad := range []string{"", "libudev\x00x=y", "add@/x"} {
		if parse([]byte(bad)) != nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("add@/devices/x\x00ACTION=add\x00"))
	f.Fuzz(func(t *testing.T, message []byte) { parse(message) })
}

// TestKernel has the real kernel announce an interface that comes and goes, in a network
// namespace of its own.
func TestKernel(t *testing.T) {
	runtime.LockOSThread() // for good: the thread ends with the test, and its namespace with it
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace of its own: %v", err)
	}
	s, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Next(time.Now()); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("before anything: %v", err)
	}
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "probe"}}
	if err := netlink.LinkAdd(link); err != nil {
		t.Skipf("this kernel has no bridge: %v", err)
	}
	await := func(action string) {
		t.Helper()
		for {
			e, err := s.Next(time.Now().Add(time.Minute))
			if err != nil {
				t.Fatalf("waiting for %s: %v", action, err)
			}
			if e["ACTION"] == action && e["SUBSYSTEM"] == "net" && e["INTERFACE"] == "probe" {
				return
			}
		}
	}
	await("add")
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	await("remove")
}

// TestStranger: only the kernel is believed.
func TestStranger(t *testing.T) {
	s, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	raw, err := s.file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var address unix.Sockaddr
	if err := raw.Control(func(own uintptr) { address, err = unix.Getsockname(int(own)) }); err != nil {
		t.Fatal(err)
	}
	err = unix.Sendto(fd, []byte("add@/forged\x00ACTION=add\x00DEVPATH=/forged\x00"), 0, &unix.SockaddrNetlink{
		Family: unix.AF_NETLINK, Pid: address.(*unix.SockaddrNetlink).Pid,
	})
	if err != nil {
		t.Skipf("nobody may send to the socket: %v", err)
	}
	for {
		e, err := s.Next(time.Now().Add(100 * time.Millisecond))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil || e["DEVPATH"] == "/forged" {
			t.Fatalf("received %v, %v", e, err)
		}
	}
	s.Close()
	if _, err := s.Next(time.Time{}); err == nil {
		t.Error("a closed socket has events")
	}
}
