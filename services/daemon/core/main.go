package core

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/daemon/blocking"
	"github.com/waltos/waltos/services/daemon/core/nodes"
	"github.com/waltos/waltos/services/daemon/core/psql"
	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/remote"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/logs"
	"github.com/waltos/waltos/services/daemon/session"
	"github.com/waltos/waltos/services/daemon/trackexec"
	"github.com/waltos/waltos/services/images"
	"github.com/waltos/waltos/services/internal/processors"
	"github.com/waltos/waltos/services/metrics"
	"github.com/waltos/waltos/services/notify"
	"github.com/waltos/waltos/services/state"
	"github.com/waltos/waltos/services/vnodes"
)

// options are the flags of server-main.
type options struct {
	site         string
	sockets      string
	streams      string
	netconsole   string
	serverMAC    string
	wheels       string
	images       bool
	trackexec    string
	trace        *trackexec.Recorder
	psql         string
	sqlAccount   string
	vnodeAccount string
}

// prompt says how users are given a SQL prompt.
func (o *options) prompt() psql.Prompt {
	p := psql.Default()
	p.Account = o.sqlAccount
	if o.psql != "" {
		p.Program = strings.Fields(o.psql)
	}
	return p
}

// Main is the process server-main.
func Main(ctx context.Context, args []string) error {
	var o options
	flags := flag.NewFlagSet("server-main", flag.ContinueOnError)
	flags.StringVar(&o.site, "site", "/run/walt/site.hcl", "site `file`")
	flags.StringVar(&o.sockets, "socket-dir", filepath.Dir(state.Socket), "`folder` of the sockets of the daemon")
	flags.StringVar(&o.streams, "listen-streams", "0.0.0.0:12347", "`address` of streams, when the supervisor passes no socket \"streams\"")
	flags.StringVar(&o.netconsole, "listen-netconsole", "0.0.0.0:12342", "UDP `address` of netconsole, when the supervisor passes no socket \"netconsole\"")
	flags.StringVar(&o.serverMAC, "server-mac", "", "`MAC` of the server (default: that of interface walt-net)")
	flags.StringVar(&o.wheels, "wheels", "/usr/lib/walt/wheels", "`folder` of the wheels for clients of another version")
	flags.BoolVar(&o.images, "images", true, "keep images and their mounts, which needs root")
	flags.StringVar(&o.trackexec, "trackexec", trackexec.Root, trackexec.Usage)
	flags.StringVar(&o.psql, "psql", "", "`command` of the SQL prompt: psql, or a loader with its arguments and psql, separated by blanks")
	flags.StringVar(&o.sqlAccount, "sql-account", psql.Account, "`account` that the SQL prompt runs as, when this is root; empty: root without privileges")
	flags.StringVar(&o.vnodeAccount, "vnode-account", vnodes.Account, "`account` that virtual nodes run as; empty: that of this process")
	if err := flags.Parse(args); err != nil {
		return err
	}
	processors.Share()
	o.trace = trackexec.OpenFlag(o.trackexec, trackexec.Beginner)
	defer o.trace.Close()
	p, err := open(ctx, o)
	if err != nil {
		return err
	}
	return p.run(o.trace.Context(ctx))
}

// process is server-main with all that it holds.
type process struct {
	daemon     *Daemon
	client     *db.Client
	blocking   *blocking.Client
	vnodes     *vnodes.Client
	logs       *logs.Hub
	images     *images.Manager // nil: none
	state      *state.Server
	streams    net.Listener
	calls      net.Listener
	watchers   net.Listener
	netconsole net.PacketConn
}

func open(ctx context.Context, o options) (*process, error) {
	site, err := hcl.LoadSite(o.site)
	if err != nil {
		return nil, err
	}
	if o.serverMAC == "" {
		if o.serverMAC, err = interfaceMAC(hcl.WaltNet); err != nil {
			return nil, err
		}
	}
	p := &process{}
	if err := p.listen(o); err != nil {
		return nil, err
	}
	devices := registry.New(site.Server())
	p.client = db.Dial(filepath.Join(o.sockets, filepath.Base(db.Socket)))
	p.blocking = blocking.Dial(filepath.Join(o.sockets, filepath.Base(blocking.Socket)))
	p.vnodes = vnodes.Dial(filepath.Join(o.sockets, filepath.Base(vnodes.Socket)))
	p.logs = logs.New(logs.Config{
		DB:     p.client,
		ByIP:   func(ip netip.Addr) (db.Device, bool) { return row(devices.View().ByIP(ip.Unmap().String())) },
		ByMAC:  func(mac string) (db.Device, bool) { return row(devices.View().ByMAC(mac)) },
		Server: func() (db.Device, bool) { return row(devices.View().Server()) },
		Warn:   warn,
		Keep:   notify.StoreFD,
		Drop:   notify.RemoveFD,
	})
	config := Config{
		Site: site, ServerMAC: strings.ToLower(o.serverMAC), Registry: devices, Store: p.client, Logs: p.logs, Images: NoImages{},
		Publish: func(s state.Snapshot) error { return p.state.Publish(s) },
		Keeper:  nodes.Keeper{Store: notify.StoreFD, Remove: notify.RemoveFD},
		Wheels:  o.wheels,
		Trace:   o.trace,
		PoE:     Switches{p.blocking}, PortLabels: Switches{p.blocking}.PortLabels, Explorer: p.blocking, Registries: p.blocking,
		Interfaces: interfaceMACs,
		Machines:   vnodes.Furnisher{Client: p.vnodes, Nodes: vnodes.Folders, Account: o.vnodeAccount}, Acceleration: acceleration(site),
		SSH: remote.Default(),
		SQL: o.prompt(),
		Peers: Peers{
			Database: p.client.Ping,
			Measures: map[string]func(context.Context) ([]metrics.Family, error){
				"server-db": p.client.Measures, "server-blocking": p.blocking.Measures, "vnodes": p.vnodes.Measures,
			},
			Services: func(ctx context.Context) []metrics.Family { return p.state.Measures(ctx) },
		},
		Print: func(format string, args ...any) { printTo(p.logs, format, args...) },
	}
	if o.images {
		if p.images, err = openImages(site, config.ServerMAC); err != nil {
			return nil, err
		}
		config.Images = p.images
	}
	p.daemon = New(config)
	p.measure(p.daemon.measures.set)
	p.vnodes.OnConnect(p.daemon.machinesConnected)
	p.state = state.NewServer(p.daemon, p.daemon.webMethods(), p.daemon.webStreams())
	return p, nil
}

// measure counts what the daemon itself does not know of.
func (p *process) measure(set *metrics.Set) {
	connected := set.CountersBy("walt_connections_total", "Connections to processes of the daemon, made again when lost.", "from", "to")
	p.blocking.OnConnect(func() { connected.With("server-main", "server-blocking").Add(1) })
	p.vnodes.OnConnect(func() { connected.With("server-main", "vnodes").Add(1) })
	p.client.OnConnect(func() { connected.With("server-main", "server-db").Add(1) })
	set.Func(func() []metrics.Family {
		s := p.logs.Stats()
		return []metrics.Family{
			metrics.Total("walt_log_lines_stored_total", "Log lines that the database has committed.", metrics.Value(float64(s.Stored))),
			metrics.Total("walt_log_lines_lost_total", "Log lines that could not be stored.", metrics.Value(float64(s.Lost))),
			metrics.Gauge("walt_log_lines_queued", "Log lines that wait for the database.", metrics.Value(float64(s.Queued))),
			metrics.Gauge("walt_log_queue_bytes", "Size of the log lines that wait for the database.", metrics.Value(float64(s.QueuedBytes))),
			metrics.Gauge("walt_log_watchers", "Clients that follow log lines as they come.", metrics.Value(float64(s.Watchers))),
		}
	})
}

func openImages(site *hcl.Site, serverMAC string) (*images.Manager, error) {
	c := images.DefaultConfig()
	c.ServerMAC, c.Network, c.Warn = serverMAC, site.Server(), warn
	return images.New(c)
}

// acceleration tells how machines of virtual nodes are run on a site.
func acceleration(site *hcl.Site) func() string {
	return func() string {
		switch {
		case site.VirtualNodes.Emulation:
			return "tcg"
		case vnodes.KVM() == nil:
			return "kvm"
		}
		return ""
	}
}

// row is the row of a device, which may be nil.
func row(d *registry.Device) (db.Device, bool) {
	if d == nil {
		return db.Device{}, false
	}
	return d.Device, true
}

// warn writes to the journal only.
func warn(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// printTo writes to the journal and to the log stream of the server's own output.
func printTo(hub *logs.Hub, format string, args ...any) {
	warn(format, args...)
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		hub.Emit("daemon.stdout", line)
	}
}

// interfaceMACs returns the addresses of all network interfaces.
func interfaceMACs() (macs []string) {
	interfaces, err := net.Interfaces()
	if err != nil {
		warn("cannot list network interfaces: %v", err)
	}
	for _, i := range interfaces {
		if len(i.HardwareAddr) == 6 && !slices.Equal(i.HardwareAddr, make([]byte, 6)) {
			macs = append(macs, i.HardwareAddr.String())
		}
	}
	return macs
}

// interfaceMAC returns the address of a network interface.
func interfaceMAC(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join("/sys/class/net", name, "address"))
	if err != nil {
		return "", fmt.Errorf("cannot find the address of the server: %w", err)
	}
	return registry.ParseMAC(strings.TrimSpace(string(text)))
}

// listen opens the sockets that the supervisor did not pass.
func (p *process) listen(o options) (err error) {
	if p.streams, err = notify.ListenerOr("streams", func() (net.Listener, error) { return net.Listen("tcp4", o.streams) }); err != nil {
		return err
	}
	if p.calls, err = notify.UnixListener("main", o.sockets); err != nil {
		return err
	}
	if p.watchers, err = notify.UnixListener("state", o.sockets); err != nil {
		return err
	}
	p.netconsole, err = notify.PacketConn("netconsole")
	if errors.Is(err, notify.ErrNoSocket) {
		p.netconsole, err = net.ListenPacket("udp4", o.netconsole)
	}
	if err != nil {
		return fmt.Errorf("cannot receive netconsole lines: %w", err)
	}
	return nil
}

// run serves until ctx ends. Logs are the last to stop, and the database after them.
func (p *process) run(ctx context.Context) error {
	defer p.client.Close()
	defer p.blocking.Close()
	defer p.vnodes.Close()
	logsCtx, endLogs := context.WithCancel(context.WithoutCancel(ctx))
	var logsEnded sync.WaitGroup
	logsEnded.Go(func() {
		if err := p.logs.Run(logsCtx); err != nil {
			warn("%v", err)
		}
	})
	defer logsEnded.Wait()
	defer endLogs()

	all, ctx := errgroup.WithContext(ctx)
	// First, so that no newer connection of a node is taken for an older one.
	boots := p.daemon.boots.Resume(ctx, notify.Files())
	all.Go(func() error { boots.Wait(); return nil })
	all.Go(func() error { return session.Serve(ctx, p.calls, p.daemon) })
	all.Go(func() error { return p.state.Serve(ctx, p.watchers) })
	all.Go(func() error { return p.daemon.ServeStreams(ctx, p.streams) })
	all.Go(func() error { return p.logs.ServeNetconsole(ctx, p.netconsole) })
	all.Go(func() error { p.daemon.reloadOnHangup(ctx); return nil })
	all.Go(func() error { notify.KeepAlive(ctx, p.daemon.responds); return nil })
	if p.images != nil {
		all.Go(func() error { return p.images.Run(ctx) })
	}
	var kept sync.WaitGroup
	all.Go(func() error {
		p.daemon.Run(ctx, func() {
			p.resumeLogs(ctx, &kept)
			if err := notify.Ready(); err != nil {
				warn("%v", err)
			}
		})
		kept.Wait()
		return nil
	})
	return all.Wait()
}

// resumeLogs goes on with the log streams that the supervisor kept; the registry must be
// loaded.
func (p *process) resumeLogs(ctx context.Context, all *sync.WaitGroup) {
	for name, files := range notify.Files() {
		if !logs.IsKept(name) {
			continue
		}
		for _, f := range files {
			all.Go(func() {
				if err := p.logs.Resume(ctx, name, f); err != nil && ctx.Err() == nil {
					warn("%v", err)
				}
			})
		}
	}
}
