// Command supervisor is PID 1 of the appliance, and what PID 1 needs beside it, in one
// program; the name that it is called by says which:
//
//	/init         PID 1 in the initramfs: finds and verifies the root (package boot)
//	/sbin/init    PID 1 in the root: runs the units (package system)
//	modprobe      what the kernel calls to have a module loaded
//	walt-crash    reports a crash of PID 1 (package crash)
//	walt-launch   becomes the command of a unit (package process)
//	walt-drivers  loads the drivers of devices (package system)
//	walt-console  the screen of the consoles (package screen)
//	walt-rescue   the shell that needs no disk (package rescue)
//	waltctl       command line for administrators; the default
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/waltos/waltos/services/kmod"
	"github.com/waltos/waltos/supervisor/boot"
	"github.com/waltos/waltos/supervisor/crash"
	"github.com/waltos/waltos/supervisor/process"
	"github.com/waltos/waltos/supervisor/rescue"
	"github.com/waltos/waltos/supervisor/screen"
	"github.com/waltos/waltos/supervisor/system"
	"github.com/waltos/waltos/supervisor/waltctl"
)

func main() { os.Exit(run(os.Args)) }

func run(args []string) int {
	name := "waltctl"
	if len(args) > 0 {
		name = filepath.Base(args[0])
	}
	switch {
	case name == process.ShimName:
		return process.Shim(args)
	case name == crash.Name:
		return crash.Main()
	case name == "init" && os.Getpid() == 1 && args[0] == "/init":
		boot.Run()
	case name == "init" && os.Getpid() == 1:
		system.Run()
	case name == "init":
		return fail(fmt.Errorf("only the kernel may call it"))
	case name == "modprobe":
		return fail(kmod.Modprobe(args[1:]))
	case name == screen.Name:
		return screen.Main(args)
	case name == rescue.Name:
		return rescue.Main(args)
	case name == system.DriversName:
		return fail(system.LoadDrivers(args[1:]))
	}
	return waltctl.Run(args[1:])
}

// fail prints an error and returns the exit status.
func fail(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
	return 1
}
