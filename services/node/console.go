package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// say prints one line on the console.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "walt-node: "+format+"\n", args...)
}

// rebooting is present while a reboot is under way, so that nothing that ends
// because of it starts another one.
const rebooting = "/run/.rebooting"

// rebootNow restarts the machine without asking the operating system, which may hang
// on a root that is gone.
func rebootNow() {
	if f, err := os.Create(rebooting); err == nil {
		f.Close()
	}
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
		say("cannot reboot: %v", err)
	}
}

// giveUp ends a boot that cannot go on: the reason stays readable for five seconds
// on every console, then the machine restarts.
func giveUp(err error) {
	announce("boot failed: %v", err)
	announce("rebooting in 5 seconds")
	time.Sleep(5 * time.Second)
	rebootNow()
	select {} // PID 1 must not return while the kernel restarts
}

// announce says a line on every console of the kernel, not only on the last one that
// its command line names.
func announce(format string, args ...any) {
	say(format, args...)
	active, err := os.ReadFile("/sys/class/tty/console/active")
	if err != nil {
		return
	}
	consoles := strings.Fields(string(active))
	for i, name := range consoles {
		if i == len(consoles)-1 {
			return // that is where say wrote
		}
		f, err := os.OpenFile("/dev/"+name, os.O_WRONLY|unix.O_NOCTTY, 0)
		if err != nil {
			continue
		}
		fmt.Fprintf(f, "walt-node: "+format+"\r\n", args...)
		f.Close()
	}
}
