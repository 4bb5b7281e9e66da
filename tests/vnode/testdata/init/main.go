// Command init is all of a virtual node's root in a test: it prints what the virtual machine
// is made of on the serial line, then echoes lines until one of them says "reboot".
package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

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
	for _, disk := range glob("/sys/class/block/sd*") {
		say("disk", filepath.Base(disk)+" "+read(filepath.Join(disk, "size")))
	}
	os.Mkdir("/image", 0o755)
	say("image", fmt.Sprint(unix.Mount("walt_image", "/image", "9p", unix.MS_RDONLY, "trans=virtio"), " ", read("/image/etc/marker")))
	say("ready", "")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); line == "reboot" {
			check(unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
		} else {
			say("echo", line)
		}
	}
	check(lines.Err())
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
