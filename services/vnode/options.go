package vnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/waltos/waltos/qemu/machine"
	"github.com/waltos/waltos/services/internal/pattern"
	"github.com/waltos/waltos/services/internal/pidfile"
)

// Name is that of the command.
const Name = "walt-virtual-node"

// identity is who a node is on the platform.
type identity struct {
	MAC, IP, Hostname, Server, Model string
	Netmask                          string
}

// options are what the command is asked.
type options struct {
	identity
	settings

	known struct{ netmask, gateway bool } // given, perhaps as ""

	accelerator  machine.Accelerator
	dhcp         bool
	managed      bool
	attachUSB    bool
	usb          []string // what is attached
	onReboot     string
	pidPath      string
	screenPath   string
	disksPath    string
	networksPath string
	logFile      string
	logPrefix    string
}

// nodesFolder is where the server has a folder for each node.
const nodesFolder = "/var/lib/walt/nodes"

// Main runs the command and returns its exit status: 0, 1 after an error, 2 if its
// arguments are wrong. SIGTERM ends it.
func Main(ctx context.Context, args []string) int {
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	var o options
	wrong := true
	cmd := o.command(func() error {
		wrong = false
		return run(ctx, o, os.Stdin, os.Stdout)
	})
	cmd.SetArgs(args)
	err := cmd.Execute()
	switch {
	case err == nil:
		return 0
	case wrong:
		fmt.Fprintf(os.Stderr, "%s: %v\nTry %s --help.\n", Name, err, Name)
		return 2
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", Name, err)
	return 1
}

// command returns the command, which calls do with the options read.
func (o *options) command(do func() error) *cobra.Command {
	texts := map[string]*string{} // of settings
	accelerator := string(machine.KVM)
	cmd := &cobra.Command{
		Use: Name + " [OPTIONS]", Short: "Run a virtual node of a WalT platform",
		Args: cobra.NoArgs, SilenceErrors: true, SilenceUsage: true, DisableFlagsInUseLine: true,
	}
	f := cmd.Flags()
	f.StringVar(&o.MAC, "mac", "", "MAC address of the node")
	f.StringVar(&o.IP, "ip", "", "IPv4 address of the node")
	f.StringVar(&o.Hostname, "hostname", "", "name of the node")
	f.StringVar(&o.Server, "server-ip", "", "IPv4 address of the WalT server")
	f.StringVar(&o.Model, "model", "", "model of the node, as pc-x86-64")
	f.StringVar(&o.Netmask, "netmask", "", "mask of the platform's network (default: ask the server)")
	for _, s := range []struct{ option, attribute, text string }{
		{"gateway", "gateway", "address of the gateway, or \"\" (default: ask the server)"},
		{"cpu-cores", "cpu_cores", "number of processors"},
		{"ram", "ram", "memory, as 512M or 1G"},
		{"disks", "disks", "none, or a list as 8G,1T[template=ext4]"},
		{"networks", "networks", "a list as walt-net,home-net[lat=8ms,bw=100Mbps]"},
		{"boot-delay", "boot_delay", "seconds before each start, or random (1 to 10)"},
	} {
		texts[s.attribute] = f.String(s.option, defaults[s.attribute], s.text)
	}
	f.BoolVar(&o.dhcp, "net-conf-udhcpc", false, "ask the DHCP server of the platform for address, name and server")
	f.BoolVar(&o.managed, "managed", false, "read commands from standard input, as the server writes them")
	f.BoolVar(&o.attachUSB, "attach-usb", false, "give the node the USB ports of this machine (a Raspberry Pi 3B+ only)")
	f.StringVar(&o.onReboot, "on-vm-reboot", "", "shell `command` to run when the virtual machine stops")
	f.StringVar(&o.pidPath, "pid-path", "", "file for the process ID (default "+nodesFolder+"/MAC/pid)")
	f.StringVar(&o.screenPath, "screen-session-path", "", "file for the name of the screen session (default "+nodesFolder+"/MAC/screen_session)")
	f.StringVar(&o.disksPath, "disks-path", "", "folder of the disks (default "+nodesFolder+"/MAC/disks)")
	f.StringVar(&o.networksPath, "networks-path", "", "folder of the network cards' addresses (default "+nodesFolder+"/MAC/networks)")
	f.StringVar(&o.logFile, "log-file", "", "file for a copy of the output")
	f.StringVar(&o.logPrefix, "log-prefix", "", "text that begins the lines of that copy, in brackets")
	f.StringVar(&accelerator, "acceleration", accelerator, "kvm, or tcg where the processor does not help: that is slow")
	cmd.RunE = func(*cobra.Command, []string) error {
		o.known.netmask, o.known.gateway = f.Changed("netmask"), f.Changed("gateway")
		o.accelerator = machine.Accelerator(accelerator)
		for attribute, text := range texts {
			if err := o.settings.set(attribute, *text); err != nil {
				return err
			}
		}
		if err := o.check(); err != nil {
			return err
		}
		return do()
	}
	return cmd
}

// models are used in texts of a protocol, names in the options of QEMU.
var (
	modelForm    = pattern.Lazy(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	hostnameForm = pattern.Lazy(`^[A-Za-z0-9][A-Za-z0-9-]{0,62}$`)
)

// check refuses what makes no sense, and fills in the defaults that depend on the node.
func (o *options) check() error {
	mac, err := net.ParseMAC(o.MAC)
	if err != nil || len(mac) != 6 {
		return fmt.Errorf("--mac %q is no MAC address", o.MAC)
	}
	o.MAC = mac.String()
	if !modelForm().MatchString(o.Model) {
		return fmt.Errorf("--model %q is no model of a node", o.Model)
	}
	if o.dhcp {
		if o.IP != "" || o.Hostname != "" || o.Server != "" || o.known.netmask || o.known.gateway {
			return errors.New("--net-conf-udhcpc excludes --ip, --hostname, --server-ip, --netmask and --gateway: DHCP tells them")
		}
	} else {
		if err := o.rename(o.Hostname); err != nil {
			return err
		}
		for _, a := range []struct {
			option, value string
			optional      bool
		}{
			{"--ip", o.IP, false}, {"--server-ip", o.Server, false},
			{"--netmask", o.Netmask, true},
		} {
			if addr, err := netip.ParseAddr(a.value); (err != nil || !addr.Is4()) && !(a.optional && a.value == "") {
				return fmt.Errorf("%s %q is no IPv4 address", a.option, a.value)
			}
		}
	}
	if o.accelerator != machine.KVM && o.accelerator != machine.TCG {
		return fmt.Errorf("--acceleration %q is neither kvm nor tcg", o.accelerator)
	}
	folder := filepath.Join(nodesFolder, o.MAC)
	for name, path := range map[string]*string{
		"pid": &o.pidPath, "screen_session": &o.screenPath, "disks": &o.disksPath, "networks": &o.networksPath,
	} {
		if *path == "" {
			*path = filepath.Join(folder, name)
		}
	}
	return nil
}

// rename gives the node a name.
func (i *identity) rename(name string) error {
	if !hostnameForm().MatchString(name) {
		return fmt.Errorf("--hostname %q is no name of a node", name)
	}
	i.Hostname = name
	return nil
}

// leaveTraces writes the files by which others find this process. It owns the one with its
// number until that is closed: a node never runs twice.
func (o *options) leaveTraces() (*os.File, error) {
	pid, err := pidfile.Hold(o.pidPath)
	if err != nil {
		return nil, fmt.Errorf("cannot run node %s: %w", o.MAC, err)
	}
	// screen(1) tells what runs in it the name of its session.
	if session := os.Getenv("STY"); session != "" {
		err := os.MkdirAll(filepath.Dir(o.screenPath), 0o755)
		if err == nil {
			err = os.WriteFile(o.screenPath, []byte(session+"\n"), 0o644)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("cannot leave %s: %w", o.screenPath, err), pid.Close())
		}
	}
	return pid, nil
}
