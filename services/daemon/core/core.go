// Package core is the process server-main: the logic of the platform (design §6). It
// serves the methods of the API (client-api §2, the calls coming through server-hub) and
// the streams of TCP 12347 (§3), registers devices, follows the boots of nodes, and tells
// the network services and the image manager what the platform is.
//
// Everything the daemon knows is in memory (package registry), loaded once from server-db
// and written through: a change is committed before it is answered. While the database is
// away, reading calls go on and others wait for a bounded time, then fail.
//
// Methods and streams that this server does not provide are refused with words, never
// with silence. Nothing a client sends is evaluated, and none can end more than its own
// call or stream.
package core

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/daemon/core/nodes"
	"github.com/waltos/waltos/services/daemon/core/psql"
	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/remote"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/session"
	"github.com/waltos/waltos/services/daemon/trackexec"
	"github.com/waltos/waltos/services/images"
	"github.com/waltos/waltos/services/internal/quota"
	"github.com/waltos/waltos/services/state"
	"github.com/waltos/waltos/services/vnodes"
	"github.com/waltos/waltos/services/wire/pickle"
)

const (
	// databaseTimeout bounds the wait for the database within a call.
	databaseTimeout = 10 * time.Second
	// endTimeout bounds the wait for what must not be left halfway when the daemon ends.
	endTimeout = 10 * time.Second
)

// errDatabase is what clients are told when the database does not answer in time.
var errDatabase = errors.New("the database is not available, try again later")

// Store is the database: *db.Client.
type Store interface {
	FixServer(ctx context.Context, mac, ip string) error
	LoadAll(ctx context.Context) (db.Everything, error)
	SaveDevice(ctx context.Context, d db.Device) error
	DeleteDevice(ctx context.Context, mac string) error
	SaveImage(ctx context.Context, fullName string) error
	DeleteImage(ctx context.Context, fullName string) error
	SaveSwitchPort(ctx context.Context, p db.SwitchPort) error
	SetTopology(ctx context.Context, links []db.Topology) error
	SavePoEOff(ctx context.Context, p db.PoEOff) error
	DeletePoEOff(ctx context.Context, mac string, port int) error
	Checkpoints(ctx context.Context, user string) ([]db.Checkpoint, error)
	SaveCheckpoint(ctx context.Context, cp db.Checkpoint) (bool, error)
	DeleteCheckpoint(ctx context.Context, user, name string) (bool, error)
	SQLAccess(ctx context.Context) (db.SQLAccess, error)
	QueryCountedLogs(ctx context.Context, f db.LogFilter, counted func(int64) error, block func([]db.Record) error) error
}

// Logs is where log lines go and come from: *logs.Hub.
type Logs interface {
	Emit(stream, line string)
	Count(ctx context.Context, f db.LogFilter) (int, error)
	EmitChunk(ctx context.Context, mac, stream string, at time.Time, data []byte) error
	Flush(ctx context.Context) error
	Forget(ctx context.Context, mac string) error
	ServeIncoming(ctx context.Context, conn net.Conn, r *bufio.Reader)
	ServeDump(ctx context.Context, conn net.Conn, r *bufio.Reader)
}

// Images is the manager of images and of their mounts: *images.Manager.
type Images interface {
	Refresh(ctx context.Context) error
	List() []images.Image
	ByName(fullName string) (images.Image, bool)
	Tag(ctx context.Context, id, fullName string) error
	Untag(ctx context.Context, fullName string) error
	Add(ctx context.Context, fullName string, source images.Source) error
	Reconcile(ctx context.Context, devices []images.Device) error
	Root(id string) string
	BootDir(id, model string) string
	Forget(ctx context.Context, mac string) error
}

// Config is what a Daemon works with.
type Config struct {
	Site      *hcl.Site
	ServerMAC string
	Registry  *registry.Registry // empty; the daemon fills it
	Store     Store
	Logs      Logs
	Images    Images
	Publish   func(state.Snapshot) error
	Keeper    nodes.Keeper
	Control   nodes.Control
	Wheels    string              // folder of those that clients of another version are given
	PoE       PoE                 // nil: ports of switches cannot be switched
	Trace     *trackexec.Recorder // nil: none
	// PortLabels tells what the ports of a switch call themselves in LLDP, with their
	// numbers. nil: it cannot be known.
	PortLabels func(ctx context.Context, sw db.Device) (map[string]int, error)
	Explorer   Explorer        // nil: switches cannot be asked what is around them
	Interfaces func() []string // MACs of the server; nil: none but that of walt-net
	SSH        remote.SSH
	SQL        psql.Prompt
	Peers      Peers
	// Print is the daemon's own log.
	Print      func(format string, args ...any)
	Registries Registries // nil: none is spoken with
	// Machines run virtual nodes, with what Acceleration tells: "kvm" or "tcg", or "" if
	// they cannot run. nil: there are none.
	Machines     Machines
	Acceleration func() string
}

// Daemon is the server of one platform.
type Daemon struct {
	Config
	registry *registry.Registry
	boots    *nodes.BootStatus
	monitor  *nodes.Monitor
	idle     *nodes.Idle
	mounts   *worker // keeps mounts and exports as the registry wants them
	news     *worker // publishes the state
	reloads  *worker // loads the registry again
	exposes  *worker // keeps redirects as the registry wants them
	links    *worker // stores the topology
	moves    *worker // forgets where nodes were connected that were found elsewhere
	machines *worker // keeps the machines of virtual nodes as the registry wants them
	fetches  *worker // gets default images that new nodes lack
	exposed  exposer
	commands *quota.Quota  // that run for clients of streams
	starting chan struct{} // held for startPause by each command that starts
	labels   labels
	loaded   chan struct{}
	// resumed holds addresses whose boot an earlier life of the daemon has announced, and
	// rebooting why nodes that are asked to reboot will be down, by MAC.
	resumed, rebooting sync.Map
	moving             sync.Map // MACs of nodes for moves
	lacking            sync.Map // sightings of nodes for fetches, by MAC

	reconciled []images.Device // what the images were last prepared for; used by mounts only
	replaced   atomic.Bool     // another image has got the name of one; mounts must look

	// Used by machines only: what was last asked of Machines, whether it was said that none
	// can run, and the next look.
	machinesAsked   []vnodes.Node
	machinesRefused bool
	machinesRetry   *time.Timer
	machinesUnknown atomic.Bool // it is not known whether machines are as asked

	measures *measures
	giving   chan struct{}                  // holds a value for each client that is being given wheels
	hub      atomic.Pointer[connector.Peer] // server-hub, nil before it has connected

	statuses sync.Mutex // held to change whether a node is booted
	writing  sync.Mutex // held to change devices or images: the database, then the registry
	tables   tables
	cycles   cycles
}

// tables are those of the database that no other place holds. They are guarded by mu.
type tables struct {
	mu       sync.Mutex
	ports    []db.SwitchPort
	topology []db.Topology
	found    *positions // made of topology when it is asked for
	poeOff   []db.PoEOff
	vpn      []string  // MAC addresses
	scanned  time.Time // last scan of the network since the start; zero: none
}

// New returns a daemon; Run must be started.
func New(config Config) *Daemon {
	if config.PoE == nil {
		config.PoE = noPoE{}
	}
	if config.Registries == nil {
		config.Registries = NoRegistries{}
	}
	if config.Machines == nil {
		config.Machines, config.Acceleration = noMachines{}, func() string { return "" }
	}
	d := &Daemon{Config: config, registry: config.Registry, loaded: make(chan struct{}), commands: quota.New(maxCommands, maxCommandsEach)}
	d.boots = &nodes.BootStatus{Changed: d.bootChanged, Keeper: config.Keeper, Warn: config.Print}
	d.measures = d.newMeasures()
	d.giving = make(chan struct{}, maxGiving)
	d.starting = make(chan struct{}, 1)
	d.monitor = nodes.NewMonitor(d.bootExpired)
	d.idle = nodes.NewIdle(powersaveAfter, d.sleep)
	d.mounts = newWorker("prepare mounts", d.reconcile, 0)
	d.news = newWorker("publish state", d.publish, publishPause)
	d.reloads = newWorker("load registry", d.reload, 0)
	d.exposes = newWorker("update redirects", d.expose, 0)
	d.links = newWorker("store topology", d.storeLinks, 0)
	d.fetches = newWorker("download default images", d.fetchDefaults, 0)
	d.moves = newWorker("forget moved devices", d.forgetMoved, 0)
	d.machines = newWorker("run virtual nodes", d.runMachines, 0)
	d.exposed.open, d.exposed.refused = map[uint16]*redirect{}, map[uint16]string{}
	return d
}

// Run loads the registry, then does all that no client asks for, until ctx ends. ready is
// called once the registry is loaded.
func (d *Daemon) Run(ctx context.Context, ready func()) {
	var all sync.WaitGroup
	all.Go(func() { d.news.run(ctx) })
	all.Go(func() { d.reloads.run(ctx) })
	all.Go(func() {
		off, loaded := d.load(ctx)
		if !loaded {
			return
		}
		ready()
		all.Go(func() { d.mounts.run(ctx) })
		all.Go(func() { d.exposes.run(ctx) })
		all.Go(func() { d.links.run(ctx) })
		all.Go(func() { d.moves.run(ctx) })
		all.Go(func() { d.fetches.run(ctx) })
		all.Go(func() { d.machines.run(ctx) })
		all.Go(func() { d.followConsoles(ctx) })
		all.Go(func() { d.restoreAll(ctx, off) })
		all.Go(func() { d.idle.Run(ctx) })
		d.monitor.Run(ctx)
	})
	all.Wait()
	d.cycles.wait(endTimeout)
}

// Call serves one call of a session: session.Backend.
func (d *Daemon) Call(ctx context.Context, s *session.Session, name string, args pickle.Tuple, kwargs *pickle.Dict) (any, error) {
	began := time.Now()
	span := d.Trace.Request(began, s.API, name, s.ID)
	c := &call{Scope: span.Scope(ctx), client: s, api: s.API, peer: s.Peer}
	result, err := d.serve(ctx, c, name, args, kwargs)
	took := time.Since(began)
	d.measures.served(c.method, took, err)
	span.EndAfter(took, err)
	return result, err
}

// Quick is that of session.Quick.
func (d *Daemon) Quick(api, name string) bool {
	if api != "CSAPI" || !quick[name] {
		return false
	}
	if early[name] {
		return true
	}
	select {
	case <-d.loaded:
		return len(d.registry.View().Nodes()) <= maxQuick
	default:
		return false
	}
}

func (d *Daemon) serve(ctx context.Context, c *call, name string, args pickle.Tuple, kwargs *pickle.Dict) (result any, err error) {
	defer func() {
		if p := recover(); p != nil {
			d.Print("internal error in %s: %v\n%s", name, p, debug.Stack())
			err = fmt.Errorf("internal error in %s", name)
		}
	}()
	c.method = apis[c.api][name]
	if c.method == nil {
		return nil, unavailable(c.api, name)
	}
	if c.values, err = c.method.bind(name, args, kwargs); err != nil {
		return nil, err
	}
	if !early[name] {
		if err := d.waitLoaded(ctx); err != nil {
			return nil, err
		}
	}
	c.Context, c.Daemon = ctx, d
	return c.method.serve(c)
}

func (d *Daemon) waitLoaded(ctx context.Context) error {
	select {
	case <-d.loaded:
		return nil
	default:
	}
	select {
	case <-d.loaded:
		return nil
	case <-time.After(databaseTimeout):
		return errDatabase
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stored runs a change of the database to its end, whatever the client that asked for it
// does. If it is not known whether the change was done, the registry is loaded again.
func (d *Daemon) stored(ctx context.Context, change func(ctx context.Context) error) error {
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), databaseTimeout)
	defer cancel()
	err := change(within)
	var answered *connector.Error
	switch {
	case err == nil || errors.As(err, &answered):
		return err
	}
	d.reloads.poke()
	return databaseError(err)
}

// asked runs a query of the database.
func asked[T any](ctx context.Context, query func(ctx context.Context) (T, error)) (T, error) {
	within, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	answer, err := query(within)
	return answer, databaseError(err)
}

// databaseError says in simple words that the database did not answer.
func databaseError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, connector.ErrPeerLost) {
		return errDatabase
	}
	return err
}

// locked runs a change of devices or images with all others kept out. It must not call a
// client back: one that does not answer would stop them all.
func (d *Daemon) locked(change func() error) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	return change()
}

// saveDevices records devices in the database and in the registry, and makes the rest of
// the platform follow. writing must be held.
func (d *Daemon) saveDevices(ctx context.Context, devices ...db.Device) error {
	for _, device := range devices {
		if err := d.stored(ctx, func(ctx context.Context) error { return d.Store.SaveDevice(ctx, device) }); err != nil {
			return err
		}
		d.registry.Put(device)
		d.followIdle(device)
	}
	d.changed()
	return nil
}

// changed makes what depends on the registry follow it.
func (d *Daemon) changed() {
	d.news.poke()
	d.mounts.poke()
	d.exposes.poke()
	d.machines.poke()
}

// logf adds a line to a log stream of the server, and prints it.
func (d *Daemon) logf(stream, format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	d.Print("%s", line)
	d.Logs.Emit(stream, line)
}

// Log streams of the server.
const (
	devicesStream = "platform.devices"
	nodesStream   = "platform.nodes"
)
