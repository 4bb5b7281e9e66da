// Command services holds every service of a WalT server in one program: its first
// argument names the one to run. The supervisor's units are its usual caller.
package main

import (
	"context"
	"fmt"
	"log"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/waltos/waltos/services/chrony"
	"github.com/waltos/waltos/services/confine"
	"github.com/waltos/waltos/services/daemon/blocking"
	"github.com/waltos/waltos/services/daemon/core"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/hub"
	"github.com/waltos/waltos/services/daemon/trackexec/analyse"
	"github.com/waltos/waltos/services/daemon/trackexec/replay"
	"github.com/waltos/waltos/services/dhcp"
	"github.com/waltos/waltos/services/http"
	"github.com/waltos/waltos/services/named"
	"github.com/waltos/waltos/services/netconfig"
	"github.com/waltos/waltos/services/nfs"
	"github.com/waltos/waltos/services/postgresql"
	"github.com/waltos/waltos/services/sshd"
	"github.com/waltos/waltos/services/tftp"
	"github.com/waltos/waltos/services/vnode"
	"github.com/waltos/waltos/services/vnodes"
)

// services maps the name of each service to its program. It returns nil when ctx
// ends (SIGTERM or SIGINT), and an error when the service cannot go on.
var services = map[string]func(ctx context.Context, args []string) error{
	"chrony":          chrony.Main,
	confine.Role:      confine.Main,
	"dhcpd":           dhcp.Main,
	"httpd":           http.Main,
	"named":           named.Main,
	"netconfig":       netconfig.Main,
	"nfs":             nfs.Main,
	"postgresql":      postgresql.Main,
	"server-blocking": blocking.Main,
	"server-db":       db.Main,
	"server-hub":      hub.Main,
	"server-main":     core.Main,
	"sshd":            sshd.Main,
	"tftpd":           tftp.Main,
	"time-sync":       chrony.MainWait,
	"vnodes":          vnodes.Main,
	"walt-dhcp-event": dhcp.EventMain,
}

// commands maps the name of each command of an administrator to its program, which returns
// its exit status. Signals end it.
var commands = map[string]func(ctx context.Context, args []string) int{
	analyse.Name: analyse.Main,
	replay.Name:  replay.Main,
	vnode.Name:   vnode.Main,
}

func main() {
	// A link to the program, with the name of one, runs it.
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	if !known(name) {
		if len(args) == 0 || !known(args[0]) {
			names := slices.Sorted(maps.Keys(services))
			names = append(names, slices.Sorted(maps.Keys(commands))...)
			fmt.Fprintf(os.Stderr, "usage: services NAME [ARGUMENT...]\nNAME is one of: %s\n", strings.Join(names, ", "))
			os.Exit(2)
		}
		name, args = args[0], args[1:]
	}
	if command := commands[name]; command != nil {
		os.Exit(command(context.Background(), args))
	}
	log.SetFlags(0) // the journal stamps lines
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := services[name](ctx, args)
	cancel()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

func known(name string) bool { return services[name] != nil || commands[name] != nil }
