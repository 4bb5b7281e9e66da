package vnode

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/waltos/waltos/qemu/machine/machinetest"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
	"github.com/waltos/waltos/tests/native"
)

// tiny makes the node boot a kernel of some bytes, which says a text and stays, or ends.
func (p *platform) tiny(t *testing.T, text string, stay bool) {
	t.Helper()
	kernel, err := os.ReadFile(machinetest.Kernel(t, text, stay))
	if err != nil {
		t.Fatal(err)
	}
	p.write(t, "kernel", string(kernel))
	p.write(t, "start.ipxe", "#!ipxe\necho ${hostname} ${ip} <${netmask}> <${gateway}>\nboot kernel\n")
}

// TestKilled kills the program without any care: its virtual machine goes with it, and
// what is left of its networks goes at the next start.
func TestKilled(t *testing.T) {
	p := startPlatform(t)
	p.tiny(t, "hello\r\n", true)
	options := append([]string{"--networks", "walt-net,home-net"}, without(managed, "--networks")...)
	n := start(t, options...)
	n.await(`hello\r\n`)
	pids := n.machines()
	if len(pids) != 1 {
		t.Fatalf("there are virtual machines %v", pids)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pids[0]))
	if err != nil || !strings.Contains(string(status), "NoNewPrivs:\t1\n") || !strings.Contains(string(status), "CapAmb:\t0000000000000000\n") {
		t.Errorf("QEMU may have privileges: %v\n%s", err, status)
	}
	n.cmd.Process.Kill()
	dbtest.Wait(t, "the end of the virtual machine", func(context.Context) error {
		if left := n.machines(); len(left) > 0 {
			return fmt.Errorf("there are %v", left)
		}
		return nil
	})
	dbtest.Wait(t, "the end of the taps", func(context.Context) error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if strings.HasPrefix(l.Attrs().Name, "vnode") {
				return fmt.Errorf("there is %s", l.Attrs().Name)
			}
		}
		return err
	})

	again := start(t, managed...)
	again.await(`hello\r\n`)
	if _, err := netlink.LinkByName("home-net"); err == nil {
		t.Error("the network of the killed node is left")
	}
	again.keys.Close() // the server is gone
	if err := again.awaitEnd(); err != nil {
		t.Errorf("the program ended with %v", err)
	}
	mustBeUnplugged(t)
}

// without leaves an option and its value out.
func without(options []string, name string) []string {
	var kept []string
	for i := 0; i < len(options); i++ {
		if options[i] == name {
			i++
			continue
		}
		kept = append(kept, options[i])
	}
	return kept
}

// TestUnmanaged runs the node as on another machine: it registers itself, asks for what
// it is not told, and obeys signals.
func TestUnmanaged(t *testing.T) {
	p := startPlatform(t)
	p.tiny(t, "hello\r\n", true)
	folder := t.TempDir()
	log, ends, pid := filepath.Join(folder, "log"), filepath.Join(folder, "ends"), filepath.Join(folder, "run", "pid")
	t.Setenv("STY", "123.walt")
	session := filepath.Join(folder, "run", "session")
	n := start(t, "--hostname", "node1", "--mac", mac, "--ip", address, "--model", "pc-x86-64", "--server-ip", native.ServerIP,
		"--boot-delay", "1", "--on-vm-reboot", "echo end >> "+ends+"; echo noted", "--log-file", log, "--log-prefix", "node1",
		"--pid-path", pid, "--screen-session-path", session)
	n.await(`Starting in 1s\.\.\.\r\nStarting\.\.\.\r\n`)
	n.await(`node1 192.168.152.30 <255.255.255.0> <>\r\n`)
	n.await(`hello\r\n`)
	for file, want := range map[string]string{pid: fmt.Sprintln(n.cmd.Process.Pid), session: "123.walt\n"} {
		if text, err := os.ReadFile(file); string(text) != want {
			t.Errorf("%s holds %q, %v", file, text, err)
		}
	}
	n.keys.Close() // nobody types, which ends nothing
	if err := n.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	n.await(`noted\r\n`)
	n.await(`Starting\.\.\.\r\n`)
	n.await(`hello\r\n`)
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := n.awaitEnd(); err != nil {
		t.Errorf("the program ended with %v", err)
	}
	if text, err := os.ReadFile(ends); string(text) != "end\nend\n" {
		t.Errorf("the ends of the virtual machine are %q, %v", text, err)
	}
	if text, err := os.ReadFile(log); !strings.HasPrefix(string(text), "[node1] Starting in 1s...\r\n[node1] Starting...\r\n") {
		t.Errorf("the log is %q, %v", text, err)
	}
	mustBeUnplugged(t)
}

// TestWithoutServer starts before the server does, and outlives a machine that ends by
// itself.
func TestWithoutServer(t *testing.T) {
	p := startPlatform(t)
	p.tiny(t, "hello\r\n", false)
	p.Kill("server-main")
	n := start(t, managed...)
	n.await(`tftp:/start.ipxe\.\.\. failed\r\n\[fake-ipxe\] cannot .*\r\n`)
	n.await(`cannot boot: .*\r\n`)
	p.Up("server-main")
	n.await(`hello\r\n`)
	n.await(`hello\r\n`) // again and again
	n.send("EXIT")
	if err := n.awaitEnd(); err != nil {
		t.Errorf("the program ended with %v", err)
	}
}

// TestDHCP asks the DHCP server of the platform who the node is (node-protocols 6.6): it
// is only told the MAC and the model. There is no QEMU here, then one that ends at once: what
// happens before is tried again and again, and leaves nothing.
func TestDHCP(t *testing.T) {
	p := startPlatform(t)
	p.tiny(t, "hello\r\n", true)
	p.Up("dhcpd")
	folder := t.TempDir()
	t.Setenv("PATH", folder)
	n := start(t, "--mac", mac, "--model", "pc-x86-64", "--net-conf-udhcpc", "--boot-delay", "0")
	for range 2 {
		n.await(`node1 192.168.152.30 <255.255.255.0> <>\r\n`)
		n.await(`cannot start the virtual machine: .*\r\n`)
	}
	if err := os.WriteFile(filepath.Join(folder, "qemu-system-x86_64"), []byte("#!/bin/sh\necho no memory\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		n.await(`no memory\r\n`)
		n.await(`the virtual machine ended: exit status 1\r\n`)
	}
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := n.awaitEnd(); err != nil {
		t.Errorf("the program ended with %v", err)
	}
	mustBeUnplugged(t)
}
