// Package vnodes is the service that holds the processes of virtual nodes: one
// walt-virtual-node per node (node-protocols §6), each of which runs one virtual machine.
// It is apart from server-main so that restarts, crashes and upgrades of the daemon reboot
// no virtual node (design §6, two planes).
//
// It knows nothing of the platform but what server-main tells it, over a connector: the
// whole set of nodes that shall run (Reconcile), which may be told again at any time and
// changes only what differs; what is typed on consoles; machines to kill. What the consoles
// print is kept, up to a bound for each node, until server-main has taken it.
//
// The processes outlive the service: what they hold on to is in a folder of the machine that
// goes with its boot, and the next life of the service takes over there what runs, and runs
// again what has ended meanwhile, before anybody asks. What was read of a console and not
// taken by server-main yet, a moment's output, is lost with a service that is killed. The
// service started with -end ends all that an earlier life has left.
//
// A process that ends is started again, after a pause that grows; one that does not read
// its commands is ended. Values that could be taken for other commands are refused.
package vnodes

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"maps"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/internal/selfcheck"
	"github.com/waltos/waltos/services/metrics"
	"github.com/waltos/waltos/services/notify"
)

// Socket is where the service listens on an appliance.
const Socket = "/run/walt/daemon/vnodes.sock"

// Main runs the service until ctx ends. The machines run on.
func Main(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("vnodes", flag.ContinueOnError)
	sockets := flags.String("socket-dir", "/run/walt/daemon", "`folder` of the sockets of the daemon, when the supervisor passes none")
	runtime := flags.String("runtime-dir", "/run/walt/vnodes", "`folder` of what the next life of the service must know; goes with the boot of the machine")
	program := flags.String("program", "", "`command` that runs a virtual node, separated by blanks (default: this program)")
	end := flags.Bool("end", false, "end the machines that the service has left")
	if err := flags.Parse(args); err != nil {
		return err
	}
	command := strings.Fields(*program)
	if len(command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("cannot find the program of virtual nodes: %w", err)
		}
		command = []string{self, "walt-virtual-node"}
	}
	s := NewService(Config{Program: command, Runtime: *runtime, Warn: log.Printf})
	if *end {
		return errors.Join(s.Resume(), s.Reconcile(nil))
	}
	ln, err := notify.UnixListener("vnodes", *sockets)
	if err != nil {
		return err
	}
	set := metrics.New("server-vnodes")
	s.measure(set)
	if err := s.Resume(); err != nil {
		return err
	}
	if err := notify.Ready(); err != nil {
		return err
	}
	own := selfcheck.New(ln)
	go notify.KeepAlive(ctx, own.Answers)
	return connector.Listen(ctx, own, metrics.Handler(set, s.Handle))
}

// Config is what a Service works with.
type Config struct {
	// Program is the command that runs a virtual node: walt-virtual-node.
	Program []string
	Runtime string // folder with a place for each node
	Warn    func(format string, args ...any)
	// Pauses and limits; those that are 0 have a default.
	Times Times
}

// Service holds the processes of virtual nodes.
type Service struct {
	Config
	consoles *consoles
	running  *metrics.Counter // processes ever started

	changing sync.Mutex // held while the set of guests changes

	mu     sync.Mutex
	guests map[string]*guest // by MAC
}

// NewService returns a service without nodes.
func NewService(config Config) *Service {
	config.Times = config.Times.complete()
	return &Service{Config: config, consoles: newConsoles(), running: &metrics.Counter{}, guests: map[string]*guest{}}
}

func (s *Service) measure(set *metrics.Set) {
	s.running = set.Counter("walt_virtual_node_starts_total", "Processes of virtual nodes ever started.")
	set.Func(func() []metrics.Family {
		return []metrics.Family{
			metrics.Gauge("walt_virtual_nodes", "Virtual nodes that shall run.", metrics.Value(float64(len(s.present())))),
			metrics.Total("walt_console_lost_bytes_total", "Output of consoles that nobody has taken in time.", metrics.Value(float64(s.consoles.lostEver()))),
		}
	})
}

// Resume takes over the nodes of an earlier life of the service: those that ran then run now.
// What cannot be taken over is ended and forgotten: a node that is wanted is told of again.
func (s *Service) Resume() error {
	s.changing.Lock()
	defer s.changing.Unlock()
	entries, err := os.ReadDir(s.Runtime)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot take virtual nodes over: %w", err)
	}
	for _, entry := range entries {
		place := s.place(entry.Name())
		n, err := place.load()
		if err == nil {
			s.add(n)
			continue
		}
		s.Warn("virtual node %s is not taken over: %v", entry.Name(), err)
		left, err := place.find()
		if left != nil {
			left.signal(unix.SIGKILL)
			<-left.exited
			left.close()
		}
		if err := errors.Join(err, place.remove()); err != nil {
			s.Warn("virtual node %s: cannot forget it: %v", entry.Name(), err)
		}
	}
	return nil
}

// Handle serves calls of Client: a connector.Handler.
func (s *Service) Handle(ctx context.Context, _ *connector.Peer, method string, body []byte) (any, error) {
	switch method {
	case "reconcile":
		return with(body, func(wanted []Node) (any, error) { return nil, s.Reconcile(wanted) })
	case "kill":
		return with(body, func(mac string) (any, error) { return nil, s.Kill(mac) })
	case "input":
		return with(body, func(i input) (any, error) { return nil, s.Input(i.MAC, i.Data) })
	case "console":
		return with(body, func(taken uint64) (any, error) { return s.consoles.take(ctx, taken) })
	}
	return nil, fmt.Errorf("virtual nodes have no method %q", method)
}

// with decodes the argument of a call.
func with[T any](body []byte, f func(T) (any, error)) (any, error) {
	var arg T
	if err := connector.Decode(body, &arg); err != nil {
		return nil, fmt.Errorf("cannot read a call: %w", err)
	}
	return f(arg)
}

// Reconcile makes these nodes run, and no other. It returns when the processes of the
// others have ended. A node that runs already goes on: what has changed of its settings has
// an effect at the next start of its machine. A node that is refused changes nothing for
// the others.
func (s *Service) Reconcile(wanted []Node) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	var refused []error
	accepted := map[string]Node{}
	for _, n := range wanted {
		if err := n.check(); err != nil {
			refused = append(refused, err)
			continue
		}
		accepted[n.MAC] = n
	}
	s.end(func(g *guest) bool {
		n, wanted := accepted[g.mac]
		return !wanted || n.identity() != g.node().identity()
	})
	s.consoles.keep(func(mac string) bool { _, wanted := accepted[mac]; return wanted })
	for mac, n := range accepted {
		if g := s.guest(mac); g != nil {
			refused = append(refused, g.update(n))
			continue
		}
		if err := s.place(mac).save(n); err != nil {
			refused = append(refused, err)
			continue
		}
		s.add(n)
	}
	return errors.Join(refused...)
}

func (s *Service) add(n Node) {
	g := s.begin(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.guests[n.MAC] = g
}

// end ends the guests that are selected, all at once, and forgets them.
func (s *Service) end(selected func(*guest) bool) {
	var ending sync.WaitGroup
	for _, g := range s.present() {
		if !selected(g) {
			continue
		}
		ending.Go(func() {
			g.end()
			s.mu.Lock()
			delete(s.guests, g.mac)
			s.mu.Unlock()
		})
	}
	ending.Wait()
}

func (s *Service) present() []*guest {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*guest, 0, len(s.guests))
	for g := range maps.Values(s.guests) {
		all = append(all, g)
	}
	return all
}

func (s *Service) guest(mac string) *guest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.guests[mac]
}

// errAbsent is the error of a command to a node that does not run here.
var errAbsent = errors.New("this virtual node does not run")

// Kill ends the machine of a node; the next one starts by itself.
func (s *Service) Kill(mac string) error {
	g := s.guest(mac)
	if g == nil {
		return errAbsent
	}
	return g.kill()
}

// Input types on the console of a node, at most some kilobytes.
func (s *Service) Input(mac string, data []byte) error {
	g := s.guest(mac)
	if g == nil {
		return errAbsent
	}
	return g.send(inputLine(data))
}
