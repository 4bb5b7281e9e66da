package main

import (
	"fmt"
	"os"
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

// giveUp ends a boot that cannot go on: the reason stays readable for five seconds,
// then the machine restarts.
func giveUp(err error) {
	say("boot failed: %v", err)
	say("rebooting in 5 seconds")
	time.Sleep(5 * time.Second)
	rebootNow()
	select {} // PID 1 must not return while the kernel restarts
}
