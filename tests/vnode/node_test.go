package vnode

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/waltos/waltos/services/daemon/daemontest"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
	"github.com/waltos/waltos/tests/native"
)

const (
	mac     = "52:54:00:12:34:56"
	address = "192.168.152.30"
)

// waitLimit is how long a test waits for anything: a boot takes some 20 s when translated.
const waitLimit = 3 * time.Minute

// platform is a daemon with one node, whose image has the boot files of these tests.
type platform struct {
	*native.Daemon
	boot string // folder of the boot files
}

// script is what the image boots by: through HTTP, with a name that has spaces, and
// another file by relative TFTP.
const script = `#!ipxe
echo node ${name} of model ${model} on ${manufacturer} ${product}
chain none.ipxe || echo there is no such script
set base http://${next-server}/boot
chain "${base}/a folder/params.ipxe" || reboot
kernel --name kernel ${base}/kernel console=ttyS0 panic=-1 loglevel=0 ${params} && initrd initrd && boot ||
echo not booted # a comment
`

// startPlatform starts the daemon, and puts the boot files into the image.
func startPlatform(t *testing.T) *platform {
	t.Helper()
	p := &platform{Daemon: native.Start(t, db.Device{MAC: mac, IP: address, Name: "node1", Type: "node",
		Image: native.DefaultImage, Model: "pc-x86-64"})}
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = "walt-net"
	if err := errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetUp(bridge)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netlink.LinkDel(bridge) })
	root := filepath.Join("/var/lib/walt/nodes", mac, "fs")
	dbtest.Wait(t, "the image of the node", func(context.Context) error {
		_, err := os.Stat(filepath.Join(root, "boot/pc-x86-64/start.ipxe"))
		return err
	})
	p.boot = filepath.Join(root, "boot/pc-x86-64")
	p.putBootFiles(t)
	p.write(t, "a folder/params.ipxe", "set params walt.test=${mac:hexhyp},${gateway},${unknown}\n")
	p.write(t, "../../etc/marker", "the image\n")
	return p
}

// putBootFiles gives the image the kernel of these tests, and what it is booted by.
func (p *platform) putBootFiles(t *testing.T) {
	t.Helper()
	var s supplies
	if err := json.Unmarshal([]byte(os.Getenv(suppliesVariable)), &s); err != nil {
		t.Fatal(err)
	}
	for name, source := range map[string]string{"kernel": s.Kernel, "initrd": s.Initrd} {
		content, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		p.write(t, name, string(content))
	}
	p.write(t, "start.ipxe", script)
}

func (p *platform) write(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(p.boot, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// program is a walt-virtual-node that runs.
type program struct {
	t       *testing.T
	cmd     *exec.Cmd
	keys    io.WriteCloser
	ended   chan error
	mu      sync.Mutex
	printed strings.Builder
	longest int // write that was read at once
	seen    int // of printed, by await
}

// managed are the options that the server gives.
var managed = []string{"--hostname", "node1", "--mac", mac, "--ip", address, "--model", "pc-x86-64",
	"--server-ip", native.ServerIP, "--cpu-cores", "1", "--ram", "256M", "--disks", "none", "--networks", "walt-net",
	"--netmask", "255.255.255.0", "--gateway", "", "--boot-delay", "0", "--managed"}

// start starts the program.
func start(t *testing.T, options ...string) *program {
	t.Helper()
	args := append([]string{"walt-virtual-node", "--acceleration", "tcg"}, options...)
	p := &program{t: t, cmd: exec.Command(native.Get().Services, args...)}
	keys, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.keys = keys
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if p.ended, err = daemontest.Launch(p.cmd); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go p.read(r)
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		if t.Failed() {
			t.Logf("the virtual node printed:\n%s", p.text())
		}
	})
	return p
}

func (p *program) read(r *os.File) {
	defer r.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := r.Read(buffer)
		p.mu.Lock()
		p.printed.Write(buffer[:n])
		p.longest = max(p.longest, n)
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *program) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.printed.String()
}

// send sends commands.
func (p *program) send(lines ...string) {
	p.t.Helper()
	for _, line := range lines {
		if _, err := io.WriteString(p.keys, line+"\n"); err != nil {
			p.t.Fatal(err)
		}
	}
}

// await waits until the program prints something behind what was awaited last.
func (p *program) await(pattern string) []string {
	p.t.Helper()
	expression := regexp.MustCompile(pattern)
	ctx, cancel := context.WithTimeout(p.t.Context(), waitLimit)
	defer cancel()
	for {
		text := p.text()
		if at := expression.FindStringSubmatchIndex(text[p.seen:]); at != nil {
			found := expression.FindStringSubmatch(text[p.seen:])
			p.seen += at[1]
			return found
		}
		select {
		case err := <-p.ended:
			p.ended <- err
			p.t.Fatalf("the program ended (%v) before it printed %q", err, pattern)
		case <-ctx.Done():
			p.t.Fatalf("the program did not print %q", pattern)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// awaitEnd waits for the end of the program.
func (p *program) awaitEnd() error {
	p.t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(waitLimit):
		p.t.Fatal("the program does not end")
		return nil
	}
}

// machines returns the QEMU processes of the node.
func (p *program) machines() []int {
	var found []int
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		words, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(words), "mon:stdio") && strings.Contains(string(words), mac) {
			pid := 0
			fmt.Sscanf(file, "/proc/%d/", &pid)
			found = append(found, pid)
		}
	}
	return found
}

func input(text string) string { return "INPUT " + base64.StdEncoding.EncodeToString([]byte(text)) }

// TestManaged walks through what the server asks of a virtual node (node-protocols 6.3,
// 6.4) with real virtual machines.
func TestManaged(t *testing.T) {
	p := startPlatform(t)
	// What the server gives at first cannot be booted: the program tries until it can.
	start0, err := os.ReadFile(filepath.Join(p.boot, "start.ipxe"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(p.boot, "start.ipxe")); err != nil {
		t.Fatal(err)
	}
	n := start(t, managed...)
	n.await(`Starting\.\.\.\r\n`)
	n.await(`tftp:/start.ipxe\.\.\. no such file\r\n`)
	n.await(`cannot boot: .*\r\n`)
	p.write(t, "start.ipxe", string(start0))
	n.await(`node node1 of model pc-x86-64 on QEMU Standard PC \(i440FX \+ PIIX, 1996\)\r\n`)
	n.await(`there is no such script\r\n`)
	n.await(`http:/boot/a%20folder/params.ipxe\.\.\. ok\r\n`)

	// The virtual machine is what the server and the scripts say.
	n.await(`node: modules left: \[\]\r\n`)
	n.await(`node: cmdline: .*console=ttyS0 panic=-1 loglevel=0 walt.test=52-54-00-12-34-56,,\r\n`)
	n.await(`node: vendor: QEMU\r\n`)
	n.await(`node: product: Standard PC \(i440FX \+ PIIX, 1996\)\r\n`)
	n.await(`node: processors: 1\r\n`)
	n.await(`node: mac: ` + mac + `\r\n`)
	n.await(`node: image: <nil> the image\r\n`)
	n.await(`node: ready: \r\n`)
	n.send(input("good day\r"))
	n.await(`node: echo: good day\r\n`)

	// Without the daemon the node lives on, and commands are obeyed.
	p.Kill("server-main")
	p.Kill("server-hub")
	n.send("WHAT is this", "CONF cpu_cores many", "INPUT ?", "CONF cpu_cores 2", "CONF disks 1G,2G[template=ext4]",
		"CONF networks walt-net,home-net", "CONF gateway 192.168.152.1")
	n.await(`Invalid command, ignored: WHAT is this\r\n`)
	n.await(`Invalid command, ignored: CONF cpu_cores many\r\n`)
	n.await(`Invalid command, ignored: INPUT \?\r\n`)
	n.send(input("still there\r"))
	n.await(`node: echo: still there\r\n`)
	p.Up("server-main")
	p.Up("server-hub")
	p.Await()

	// Another start, with other settings.
	first := n.machines()
	if len(first) != 1 {
		t.Errorf("there are virtual machines %v", first)
	}
	n.send("KILL_VM")
	n.await(`Starting\.\.\.\r\n`)
	n.await(`node: cmdline: .* walt.test=52-54-00-12-34-56,192.168.152.1,\r\n`)
	n.await(`node: processors: 2\r\n`)
	n.await(`node: mac: ` + mac + `\r\n`)
	other := n.await(`node: mac: (52:54:00:[0-7][0-9a-f]:[0-9a-f:]{5})\r\n`)[1]
	n.await(`node: disk: sda 1953125\r\n`)
	n.await(`node: disk: sdb 3906250\r\n`)
	n.await(`node: disk: sdb1 3904202\r\n`)
	n.await(`node: ready: \r\n`)
	if _, err := netlink.LinkByName("home-net"); err != nil {
		t.Errorf("the network of the node: %v", err)
	}

	// The node's own reboot, too.
	n.send(input("reboot\r"))
	n.await(`Starting\.\.\.\r\n`)
	n.await(`node: mac: ` + other + `\r\n`)
	n.await(`node: ready: \r\n`)

	// An end in order.
	n.send("EXIT")
	if err := n.awaitEnd(); err != nil {
		t.Errorf("the program ended with %v", err)
	}
	if left := n.machines(); len(left) > 0 {
		t.Errorf("virtual machines are left: %v", left)
	}
	if n.longest > 4096 {
		t.Errorf("a write had %d bytes", n.longest)
	}
	mustBeUnplugged(t)
}

// mustBeUnplugged checks that no network of virtual nodes is left.
func mustBeUnplugged(t *testing.T) {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if name := l.Attrs().Name; name != "lo" && name != "walt-net" {
			t.Errorf("interface %s is left", name)
		}
	}
}
