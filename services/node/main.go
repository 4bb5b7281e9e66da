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
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
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
}

func main() {
	role := filepath.Base(os.Args[0])
	run := roles[role]
	if run == nil {
		fmt.Fprintf(os.Stderr, "walt-node: %q is not a role of this program\n", role)
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	err := run(ctx, os.Args[1:])
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
	if ctx.Err() != nil {
		os.Exit(3) // walt-rpc's status on TERM, which scripts test
	}
	os.Exit(1)
}
