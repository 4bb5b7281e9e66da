package vnode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/daemon/db/dbtest"
	"github.com/waltos/waltos/tests/native"
)

// bridgePlatform makes walt-net a bridge that has the address of the server, as on an
// appliance: all others are those of virtual machines.
func bridgePlatform(t *testing.T) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := netlink.AddrList(lo, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	network := &net.IPNet{IP: net.IPv4(192, 168, 152, 1), Mask: net.CIDRMask(24, 32)}
	var away []netlink.Addr
	for _, a := range addresses {
		if network.Contains(a.IP) {
			// With the first one of a network all others of it may go.
			if err := netlink.AddrDel(lo, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				t.Fatal(err)
			}
			away = append(away, a)
		}
	}
	t.Cleanup(func() {
		for _, a := range away { // in their order: the first one is what the kernel sends from
			if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: a.IPNet}); err != nil {
				t.Error(err)
			}
		}
	})
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = "walt-net"
	if err := netlink.LinkAdd(bridge); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netlink.LinkDel(bridge) })
	if err := netlink.AddrAdd(bridge, &netlink.Addr{IPNet: network}); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		t.Fatal(err)
	}
}

// lab is a daemon with the real client of a user.
type lab struct {
	*native.Daemon
	t *testing.T
}

// command is a command line of alice.
func (l *lab) command(ctx context.Context, words ...string) *exec.Cmd {
	l.t.Helper()
	cmd, err := l.User("alice").Command(ctx, words...)
	if err != nil {
		l.t.Fatal(err)
	}
	cmd.Dir = l.Folder("alice")
	return cmd
}

// walt runs a command line, and compares what it prints.
func (l *lab) walt(line, want string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), waitLimit)
	defer cancel()
	out, err := l.command(ctx, strings.Fields(line)...).CombinedOutput()
	if err != nil || !regexp.MustCompile(`^(?s:`+want+`)$`).Match(out) {
		l.t.Fatalf("walt %s: %v\n%s\nwant %s", line, err, out, want)
	}
}

// console is a terminal with the console of a node.
type console struct {
	l    *lab
	pty  *os.File
	mu   sync.Mutex
	text bytes.Buffer
}

// console opens the console of a node, as alice.
func (l *lab) console(node string) *console {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.t.Context())
	cmd := l.command(ctx, "node", "console", node)
	cmd.Env = append(cmd.Env, "TERM=xterm", "HOME="+cmd.Dir)
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 100})
	if err != nil {
		l.t.Fatal(err)
	}
	c := &console{l: l, pty: terminal}
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := terminal.Read(buffer)
			c.mu.Lock()
			c.text.Write(buffer[:n])
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	l.t.Cleanup(func() {
		cancel()
		cmd.Wait()
		terminal.Close()
	})
	c.await(`to abort: $`)
	c.key("\r")
	c.await(`OK, connecting\.`)
	return c
}

func (c *console) key(text string) {
	c.l.t.Helper()
	if _, err := io.WriteString(c.pty, text); err != nil {
		c.l.t.Fatal(err)
	}
}

// find returns the groups of a pattern that has been printed, nil if it has not.
func (c *console) find(expression *regexp.Regexp) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := c.text.String()
	found := expression.FindStringSubmatch(text)
	if found != nil {
		c.text.Next(expression.FindStringIndex(text)[1])
	}
	return found
}

// await waits until a pattern is printed, and returns its groups.
func (c *console) await(pattern string) []string {
	c.l.t.Helper()
	expression := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if found := c.find(expression); found != nil {
			return found
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.l.t.Fatalf("the console does not show %q but %q", pattern, c.text.String())
	return nil
}

// bootID asks the node which boot it is. What is typed while a part of the server is away is
// lost, so it asks again until there is an answer.
func (c *console) bootID() string {
	c.l.t.Helper()
	expression := regexp.MustCompile(`node: boot: ([0-9a-f-]{36})\r\n`)
	asked := time.Time{}
	for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if found := c.find(expression); found != nil {
			return found[1]
		}
		if time.Since(asked) > 2*time.Second {
			c.key("boot id\r")
			asked = time.Now()
		}
	}
	c.l.t.Fatal("the node does not say which boot it is")
	return ""
}

// TestClient is the life of a virtual node as the users of the real client see it
// (node-protocols 8, row V2). Processes of the daemon that die meanwhile reboot no machine.
func TestClient(t *testing.T) {
	bridgePlatform(t)
	l := &lab{Daemon: native.Start(t), t: t}
	const created = `Default image for pc-x86-64 was saved as "pc-x86-64-default" in your working set.\n` +
		`Node vn1 is now booting your image "pc-x86-64-default".\n` + "Use `walt node boot vn1 <other-image>` if needed.\n"
	l.walt("node create vn1", created)
	l.walt("node config vn1 ram=256M cpu.cores=1 boot.delay=0 boot.timeout=none", `Done. Reboot node\(s\) to see new settings in effect.\n`)
	l.walt("node show", `.*vn1 +virtual +pc-x86-64 +pc-x86-64-default +192\.168\.152\.2 +LAN +NO .*`)
	roots, err := filepath.Glob("/var/lib/walt/nodes/52:54:00:*/fs")
	if err != nil || len(roots) != 1 {
		t.Fatal(roots, err)
	}
	folder := filepath.Dir(roots[0])
	p := &platform{Daemon: l.Daemon, boot: filepath.Join(roots[0], "boot/pc-x86-64")}
	p.putBootFiles(t)
	p.write(t, "a folder/params.ipxe", "set params walt.ip=${ip} walt.server=${next-server}\n")

	// It boots, and says so.
	c := l.console("vn1")
	c.await(`node: cmdline: .* walt\.ip=192\.168\.152\.2 walt\.server=192\.168\.152\.1\r\n`)
	l.walt("node wait vn1", ``)
	l.walt("node show", `.*vn1 +virtual +pc-x86-64 +pc-x86-64-default +192\.168\.152\.2 +LAN +yes .*`)
	l.walt("log show --platform --history full", `.*walt-server\.platform\.nodes -> node vn1 is booted\n`)
	c.await(`node: ready: \r\n`)
	c.key("good day\r")
	c.await(`node: echo: good day\r\n`)
	first := c.bootID()

	// The daemon dies and comes back: the machine and its console go on.
	for _, service := range []string{"server-main", "server-hub", "server-db", "server-blocking"} {
		l.Kill(service)
	}
	for _, service := range []string{"server-db", "server-blocking", "server-main", "server-hub"} {
		l.Up(service)
	}
	l.Await()
	c = l.console("vn1")
	if again := c.bootID(); again != first {
		t.Errorf("the machine has rebooted: %s, then %s", first, again)
	}
	// So does the service that holds the machine, and whoever reads the console sees no end of it.
	for _, end := range []func(string){l.Kill, l.Kill, func(name string) { l.Down(name) }} {
		end("vnodes")
		l.Up("vnodes")
		if again := c.bootID(); again != first {
			t.Errorf("the machine has rebooted with its service: %s, then %s", first, again)
		}
	}
	// What it prints meanwhile is logged.
	c.key("count\r")
	c.await(`node: count: 1\r\n`)
	l.Kill("server-main")
	l.Up("server-main")
	l.Await()
	dbtest.Wait(t, "the end of the count", func(ctx context.Context) error {
		out, err := l.command(ctx, "log", "show", "--history", "full", "--nodes", "vn1", "--streams", "virtualconsole").CombinedOutput()
		if err == nil && !strings.Contains(string(out), `node: count: 30\r\n`) {
			err = fmt.Errorf("it is not in\n%s", out)
		}
		return err
	})

	l.walt("node wait vn1", ``)

	// A hard reboot is another machine, with the settings of now.
	l.walt("node config vn1 cpu.cores=2 networks=walt-net,home-net disks=1G", `Done.*`)
	l.walt("node reboot --hard vn1", "Node vn1: rebooted ok.\n")
	c = l.console("vn1")
	c.await(`node: processors: 2\r\n`)
	c.await(`node: disk: sda 1953125\r\n`)
	c.await(`node: ready: \r\n`)
	l.walt("node wait vn1", ``)
	if next := c.bootID(); next == first {
		t.Error("the machine has not rebooted")
	}
	l.walt("log show --platform --history full", `.*node vn1 is down \(cause: reboot requested, method: vnode hard-reboot\)\n.*`)
	if _, err := os.Stat(filepath.Join(folder, "disks/disk_0.dd")); err != nil {
		t.Error(err)
	}

	// Nothing of it is left when it is removed.
	l.walt("node remove vn1", ``)
	l.walt("node show --all", "No nodes detected!\n.*")
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("the folder of the node: %v", err)
	}
	mustBeUnplugged(t)
}
