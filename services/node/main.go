// Command walt-node is what runs on nodes: one static program that the server puts
// in each mounted image (services/node/layout says where) and that is also the
// /init of the initramfs of our own images. The name it is called by is its role.
//
// Specification: node-protocols.md sections 2 to 4. It refuses nothing that an
// image may lack: every optional file, module or service that is missing is said on
// the console and skipped; what a node cannot live without ends in a message and a
// reboot.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/waltos/waltos/services/kmod"
)

// roles maps the base name of argument 0 to what it runs.
var roles = map[string]func(ctx context.Context, args []string) error{
	"init":                      bootInitramfs,
	"walt-init":                 bootImage,
	backgroundRole:              runBackground,
	"walt-log-echo":             logEcho,
	"walt-log-cat":              logCat,
	"walt-log-tee":              logTee,
	"walt-echo":                 deprecated("walt-echo", logEcho),
	"walt-cat":                  deprecated("walt-cat", logCat),
	"walt-tee":                  deprecated("walt-tee", logTee),
	"walt-rpc":                  callServer,
	"walt-clock-sync":           syncClock,
	"walt-report-lldp-neighbor": reportNeighbor,
	"walt-tar-send":             sendTar,
	"walt-dump-diff-tar":        dumpDiff,
	"walt-timeout":              runTimed,
	"modprobe":                  func(_ context.Context, args []string) error { return kmod.Modprobe(args) },
}

const (
	exitGrace      = 300 * time.Millisecond
	exitTerminated = 3 // walt-rpc's status on TERM, which scripts test
)

func main() {
	role := filepath.Base(os.Args[0])
	run := roles[role]
	if run == nil {
		fmt.Fprintf(os.Stderr, "walt-node: %q is not a role of this program\n", role)
		os.Exit(2)
	}
	ctx := context.Background()
	if os.Getpid() != 1 {
		var cancel context.CancelFunc
		ctx, cancel = signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
		defer cancel()
		context.AfterFunc(ctx, func() {
			time.Sleep(exitGrace) // for what cannot be interrupted, as a read of a terminal
			os.Exit(exitTerminated)
		})
	}
	err := run(ctx, os.Args[1:])
	if err == nil {
		return
	}
	var status *exec.ExitError
	if errors.As(err, &status) && status.Exited() { // walt-timeout: the command has said why
		os.Exit(status.ExitCode())
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
	if ctx.Err() != nil {
		os.Exit(exitTerminated)
	}
	os.Exit(1)
}
