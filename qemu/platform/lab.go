// Package platform is the lab: an appliance, a switch and nodes that boot from the
// appliance over the network, all virtual, all owned by the calling process, without a
// privilege. Tests use it directly; the command line runs it in a process of its own.
//
// What it refuses: addresses that are not of the loopback range, ports that are in
// use, a folder that another lab uses. It says so before it starts anything. A console
// that shows a failure (panic, Oops, verity error …) ends a wait at once.
package platform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/waltos/waltos/qemu/client"
	"github.com/waltos/waltos/qemu/ethernet"
	"github.com/waltos/waltos/qemu/machine"
)

// Lab is a running platform.
type Lab struct {
	Switch    *ethernet.Switch
	Appliance *Host

	options Options
	begin   time.Time
	lock    *os.File

	mu     sync.Mutex
	nodes  []*Host
	ready  time.Duration            // of the appliance, after its power on
	booted map[string]time.Duration // of nodes by name, after their power on
	stops  sync.Once
}

// Start starts a lab and returns when its appliance serves and its nodes are booted.
// The context bounds the start only; the lab runs until Stop. On error everything is
// taken down, and the error ends with what the consoles showed last, unless the context
// was at fault.
func Start(ctx context.Context, o Options) (*Lab, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("cannot start the lab: %w", err)
	}
	l := &Lab{options: o, begin: time.Now(), booted: map[string]time.Duration{}}
	if err := l.start(ctx); err != nil {
		evidence := ""
		if ctx.Err() == nil { // else nothing went wrong
			evidence = l.evidence()
		}
		err = fmt.Errorf("cannot start the lab: %w%s", err, evidence)
		l.Stop()
		return nil, err
	}
	return l, nil
}

func (l *Lab) start(ctx context.Context) error {
	if err := l.prepare(ctx); err != nil {
		return err
	}
	if err := l.PowerOn(ctx); err != nil {
		return err
	}
	for i := range l.options.Nodes + l.options.UEFINodes {
		if _, err := l.newNode(i >= l.options.Nodes); err != nil {
			return err
		}
	}
	nodes, ctx := errgroup.WithContext(ctx)
	for _, h := range l.Nodes() {
		nodes.Go(func() error { return l.bootNode(ctx, h) })
	}
	return nodes.Wait()
}

// prepare makes everything that is no process.
func (l *Lab) prepare(ctx context.Context) error {
	o := &l.options
	if err := os.MkdirAll(filepath.Join(o.Folder, "consoles"), 0o755); err != nil {
		return err
	}
	var err error
	if l.lock, err = lockFolder(o.Folder); err != nil {
		return err
	}
	l.Switch = ethernet.New()
	if o.Accelerator == "" {
		var reason string
		o.Accelerator, reason = machine.Choose(ctx, o.Tools.QEMU, o.Image.Kernel, filepath.Join(filepath.Dir(o.Folder), "accelerator.json"))
		if o.Accelerator == machine.TCG {
			l.say("no KVM, emulating: %s", reason)
		}
	}
	for _, file := range []*string{&o.Image.Disk, &o.Image.Kernel, &o.Image.Initrd} {
		if err := o.hold(file); err != nil {
			return err
		}
	}
	l.Appliance, err = l.newAppliance()
	return err
}

// PowerOn starts the appliance and waits until it serves.
func (l *Lab) PowerOn(ctx context.Context) error {
	return l.awaitAppliance(ctx, l.Appliance.PowerOn)
}

// PowerCut takes the power of the appliance away; see [machine.Machine.Kill] on what
// its disk keeps.
func (l *Lab) PowerCut() { l.Appliance.PowerCut() }

// AddNode starts one more node and waits until it is booted.
func (l *Lab) AddNode(ctx context.Context, uefi bool) (*Host, error) {
	h, err := l.newNode(uefi)
	if err != nil {
		return nil, err
	}
	return h, l.bootNode(ctx, h)
}

// Nodes returns all nodes, in the order they were added.
func (l *Lab) Nodes() []*Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Host(nil), l.nodes...)
}

// Hosts returns the appliance and all nodes.
func (l *Lab) Hosts() []*Host {
	if l.Appliance == nil {
		return nil
	}
	return append([]*Host{l.Appliance}, l.Nodes()...)
}

// Host returns the machine of that name, or nil.
func (l *Lab) Host(name string) *Host {
	for _, h := range l.Hosts() {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// Client returns the walt client of a user of this lab.
func (l *Lab) Client(user string) client.Client { return l.options.User(user) }

// User returns the walt client of a user.
func (o *Options) User(user string) client.Client {
	return client.Client{Program: o.Client, Home: filepath.Join(o.Folder, "home", user), Server: o.Address.String(), User: user}
}

// DefaultUser is the name of the user of a lab.
const DefaultUser = "lab"

// Walt runs the real walt client.
func (l *Lab) Walt(ctx context.Context, args ...string) (stdout, stderr string, code int, err error) {
	return l.Client(DefaultUser).Output(ctx, args...)
}

// Shell runs commands on the appliance.
func (o *Options) Shell() Shell { return Shell{Folder: o.Folder, Endpoint: o.endpoint(sshPort)} }

// SSH runs a command as root on the appliance and returns what it printed.
func (l *Lab) SSH(ctx context.Context, command string) (string, error) {
	return l.options.Shell().Output(ctx, command)
}

// Endpoint returns the address of a port of the appliance, by its number there.
func (l *Lab) Endpoint(guest uint16) string {
	for _, p := range ports {
		if p.Guest == guest {
			return l.options.endpoint(p.Host)
		}
	}
	return ""
}

// Snapshot stores the state of all machines, at one moment of theirs.
func (l *Lab) Snapshot(ctx context.Context, name string) error {
	return l.atRest(ctx, func(m *machine.Machine) error { return m.Save(ctx, name) })
}

// Restore brings all machines back to a snapshot of this lab.
func (l *Lab) Restore(ctx context.Context, name string) error {
	return l.atRest(ctx, func(m *machine.Machine) error { return m.Load(ctx, name) })
}

// atRest does something with all running machines while none of them runs.
func (l *Lab) atRest(ctx context.Context, do func(*machine.Machine) error) (err error) {
	var paused []*machine.Machine
	defer func() {
		for _, m := range paused {
			err = errors.Join(err, m.Resume(ctx))
		}
	}()
	for _, h := range l.Hosts() {
		if !h.Running() {
			continue
		}
		m := h.Machine()
		if err := m.Pause(ctx); err != nil {
			return err
		}
		paused = append(paused, m)
	}
	for _, m := range paused {
		if err := do(m); err != nil {
			return fmt.Errorf("machine %s: %w", m.Name, err)
		}
	}
	return nil
}

// stopLimit is how long the appliance may take to power off.
const stopLimit = 30 * time.Second

// Stop ends all machines, the nodes at once, the appliance in order, and what served
// them. It may be called several times.
func (l *Lab) Stop() {
	l.stops.Do(func() {
		for _, h := range l.Nodes() {
			h.PowerCut()
		}
		if l.Appliance != nil && l.Appliance.Running() && l.Ready() {
			l.say("appliance: powering off")
			ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
			defer cancel()
			if !l.Appliance.Machine().Stop(ctx) {
				l.say("appliance: it did not power off within %v, ended it", stopLimit)
			}
		}
		for _, h := range l.Hosts() {
			h.close()
		}
		if l.Switch != nil {
			l.Switch.Close()
		}
		if l.lock != nil {
			l.lock.Close()
		}
	})
}

// Ready tells whether the appliance has been ready.
func (l *Lab) Ready() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready > 0
}

// Report writes the end of each console: what to add to a failed test.
func (l *Lab) Report(w io.Writer) { io.WriteString(w, l.evidence()) }

const evidenceLines = 30

func (l *Lab) evidence() string {
	var text strings.Builder
	for _, h := range l.Hosts() {
		if h.Machine() == nil {
			continue
		}
		fmt.Fprintf(&text, "\n\n--- console of %s (all of it: %s)", h.Name, h.ConsoleFile())
		if f := h.Console().Failure(); f != nil {
			fmt.Fprintf(&text, "\n--- %v", f)
		}
		for _, line := range h.Console().Lines(evidenceLines) {
			text.WriteString("\n" + line)
		}
	}
	return text.String()
}

func (l *Lab) say(format string, args ...any) {
	l.options.Progress(fmt.Sprintf("[%6.1f s] ", time.Since(l.begin).Seconds()) + fmt.Sprintf(format, args...))
}

// ownWords are the lines of the supervisor among those of the kernel, without those
// that it passes on from a unit ("walt: UNIT | text").
var ownWords = regexp.MustCompile(`(?:^|\] )(walt: [^|]*)$`)

// watch passes on what the supervisor of a machine says and how the machine ends.
func (l *Lab) watch(h *Host, m *machine.Machine) {
	go func() {
		var at machine.Position
		for {
			line, next, err := m.Console.WaitLine(context.Background(), at, ownWords)
			if err != nil {
				break
			}
			if at = next; h == l.Appliance {
				l.say("%s: %s", h.Name, ownWords.FindStringSubmatch(line)[1])
			}
		}
		<-m.Done()
		if err := m.Err(); err != nil {
			l.say("%v", err)
		}
	}()
}
