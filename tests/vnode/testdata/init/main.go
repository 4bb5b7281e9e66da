// Command init is all of a virtual node's root in a test: it prints what the virtual machine
// is made of on the serial line, then echoes lines until one of them says "reboot".
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func main() {
	for dir, kind := range map[string]string{"/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs"} {
		os.Mkdir(dir, 0o755) // /dev is there
		check(unix.Mount(kind, dir, kind, 0, ""))
	}
	loadModules()
	say("cmdline", read("/proc/cmdline"))
	say("vendor", read("/sys/class/dmi/id/sys_vendor"))
	say("product", read("/sys/class/dmi/id/product_name"))
	say("processors", fmt.Sprint(len(glob("/sys/devices/system/cpu/cpu[0-9]*"))))
	for _, card := range glob("/sys/class/net/*/device") {
		say("mac", read(filepath.Join(filepath.Dir(card), "address")))
	}
	for _, disk := range settled("/sys/class/block/sd*") {
		say("disk", filepath.Base(disk)+" "+read(filepath.Join(disk, "size")))
	}
	os.Mkdir("/image", 0o755)
	say("image", fmt.Sprint(unix.Mount("walt_image", "/image", "9p", unix.MS_RDONLY, "trans=virtio"), " ", read("/image/etc/marker")))
	announce()
	say("ready", "")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch line := strings.TrimSpace(lines.Text()); line {
		case "reboot":
			check(unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
		case "boot id":
			say("boot", read("/proc/sys/kernel/random/boot_id"))
		case "count":
			go count()
		default:
			say("echo", line)
		}
	}
	check(lines.Err())
}

// settled returns what a pattern matches when that has not changed for a second: the kernel
// looks for disks, and for what is on them, beside everything else, and does not say when it is done.
func settled(pattern string) []string {
	names := glob(pattern)
	for quiet := 0; quiet < 10; quiet++ {
		time.Sleep(100 * time.Millisecond)
		if now := glob(pattern); !slices.Equal(now, names) {
			names, quiet = now, 0
		}
	}
	return names
}

// count prints for some seconds.
func count() {
	for i := range 30 {
		say("count", fmt.Sprint(i+1))
		time.Sleep(100 * time.Millisecond)
	}
}

// announce tells the server that the node is booted, if the kernel's arguments say who and
// where they are.
func announce() {
	given := map[string]string{}
	for argument := range strings.FieldsSeq(read("/proc/cmdline")) {
		name, value, _ := strings.Cut(argument, "=")
		given[name] = value
	}
	if given["walt.ip"] == "" {
		return
	}
	cards := glob("/sys/class/net/*/device")
	link, err := netlink.LinkByName(filepath.Base(filepath.Dir(cards[0])))
	check(err)
	address, err := netlink.ParseAddr(given["walt.ip"] + "/24")
	check(err)
	check(netlink.AddrAdd(link, address))
	check(netlink.LinkSetUp(link))
	go func() {
		for {
			notify(given["walt.server"] + ":12347")
			time.Sleep(100 * time.Millisecond)
		}
	}()
}

// notify says that the node is booted, as long as there is a server to hear it: in these
// tests nobody keeps the connections of one that dies.
func notify(server string) {
	conn, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprint(conn, "REQ_NOTIFY_BOOTUP_STATUS\n")
	r := bufio.NewReader(conn)
	if answer, _ := r.ReadString('\n'); answer == "OK\n" {
		fmt.Fprint(conn, "\n")
		io.Copy(io.Discard, r)
	}
}

// loadModules loads those beside it, whatever their order: until no more can be loaded.
func loadModules() {
	left := glob("/modules/*.ko")
	for progress := true; progress; {
		progress = false
		left = slices.DeleteFunc(left, func(module string) bool {
			f, err := os.Open(module)
			check(err)
			defer f.Close()
			if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
				return false
			}
			progress = true
			return true
		})
	}
	say("modules left", fmt.Sprint(left))
}

func say(what, text string) { fmt.Printf("node: %s: %s\n", what, text) }

func read(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

func glob(pattern string) []string {
	found, err := filepath.Glob(pattern)
	check(err)
	return found
}

// check ends the virtual machine: the kernel panics without init.
func check(err error) {
	if err != nil {
		fmt.Println("init failed:", err)
		os.Exit(1)
	}
}
