package core

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/daemon/core/workflow"
	"github.com/waltos/waltos/services/wire/pickle"
)

// mountTimeout bounds how long a reboot waits for the image that nodes shall boot.
const mountTimeout = time.Minute

// poeOffTime is how long a node that is rebooted by its power has none.
const poeOffTime = 2 * time.Second

// softReboots is how many nodes are asked to reboot at the same time.
const softReboots = 1024

// bootChanged is called when the notification of a node begins or ends. Before the
// registry is loaded no node is known; load looks at all of them.
func (d *Daemon) bootChanged(ip string, isBooted, resumed bool) {
	if resumed {
		d.resumed.Store(ip, true)
	}
	node := d.registry.View().ByIP(ip)
	if node == nil || node.Type != registry.Node {
		return
	}
	if isBooted {
		d.booted(node)
		if !resumed && node.Powersave { // a port that is off boots no node
			d.moving.Store(node.MAC, true)
			d.moves.poke()
		}
		return
	}
	why := "(cause: unknown, note: server-detected disconnection)"
	if asked, rebooting := d.rebooting.Load(node.MAC); rebooting {
		why = asked.(string) // it goes faster than its answer
	}
	d.down(node, why)
}

// booted records that a node is booted. What an earlier life of the daemon has announced
// is not announced again.
func (d *Daemon) booted(node *registry.Device) {
	d.monitor.Booted(node.MAC)
	_, announced := d.resumed.LoadAndDelete(node.IP)
	line := ""
	if !announced {
		line = fmt.Sprintf("node %s is booted", node.Name)
	}
	if d.status(node, true, line) {
		d.news.poke()
	}
}

// status records whether a node is booted, and tells whether that is a change. The line, if
// any, is logged before anyone can see the change: who has seen it finds the line.
func (d *Daemon) status(node *registry.Device, booted bool, line string) bool {
	d.statuses.Lock()
	defer d.statuses.Unlock()
	if now := d.registry.View().ByMAC(node.MAC); now == nil || now.Booted == booted {
		return false
	}
	if line != "" {
		d.logf(nodesStream, "%s", line)
	}
	return d.registry.SetBooted(node.MAC, booted)
}

// down records that a node is not booted any more, and tells whether it was.
func (d *Daemon) down(node *registry.Device, why string) bool {
	if !d.status(node, false, fmt.Sprintf("node %s is down %s", node.Name, why)) {
		return false
	}
	d.monitor.Down(node.MAC, false)
	d.news.poke()
	return true
}

// bootExpired reboots a node that has not booted in time.
func (d *Daemon) bootExpired(ctx context.Context, mac string, left int) {
	node := d.registry.View().ByMAC(mac)
	if node == nil {
		return
	}
	retries := fmt.Sprintf("%d retries left", left)
	if left == 0 {
		retries = "last try"
	}
	d.logf(nodesStream, "%s: boot timeout reached, trying hard-reboot (%s).", node.Name, retries)
	r := &reboot{Daemon: d, nodes: []*registry.Device{node}, cause: "bootup timeout"}
	if err := r.run(ctx, true); err != nil && ctx.Err() == nil {
		d.Print("%v", err)
	}
}

// reboot is the environment of the workflow that reboots nodes (client-api §2.7.2,
// server-state §2.12).
type reboot struct {
	*Daemon
	call  *call // nil if no client asked for it
	nodes []*registry.Device
	cause string

	mu     sync.Mutex
	done   map[*registry.Device]bool
	soft   map[*registry.Device]string // errors
	hard   map[*registry.Device]string
	method string // of the hard reboot
}

// rebootStep is one step; each goes on to the next.
func rebootStep(name string, do func(ctx context.Context, r *reboot) error) workflow.Step[*reboot] {
	return workflow.Step[*reboot]{Name: name, Do: func(ctx context.Context, f *workflow.Flow[*reboot]) (workflow.Outcome, error) {
		return workflow.Next, do(ctx, f.Env)
	}}
}

// run reboots the nodes: softly first, unless hardOnly.
func (r *reboot) run(ctx context.Context, hardOnly bool) error {
	r.done, r.soft, r.hard = map[*registry.Device]bool{}, map[*registry.Device]string{}, map[*registry.Device]string{}
	r.method = "PoE-reboot"
	r.notIdle(r.nodes)
	steps := []workflow.Step[*reboot]{rebootStep("wait for mounts", waitMounts)}
	if !hardOnly {
		steps = append(steps, rebootStep("soft reboot", softReboot))
	}
	steps = append(steps,
		rebootStep("restart of virtual machines", virtualReboot),
		rebootStep("reboot by the client", clientReboot),
		rebootStep("PoE reboot", poeReboot),
		rebootStep("report", report))
	return workflow.Run(ctx, "a reboot of nodes", r, steps...)
}

// left returns the nodes that are neither rebooted nor given up.
func (r *reboot) left() []*registry.Device {
	return slices.DeleteFunc(slices.Clone(r.nodes), func(node *registry.Device) bool {
		return r.done[node] || r.hard[node] != ""
	})
}

// succeeded records that a node reboots now.
func (r *reboot) succeeded(node *registry.Device, method string) {
	r.mu.Lock()
	r.done[node] = true
	r.mu.Unlock()
	r.down(node, r.why(method))
	r.monitor.Starting(node.MAC, r.call != nil)
}

// why tells why a node is down, once it is.
func (r *reboot) why(method string) string {
	return fmt.Sprintf("(cause: %s, method: %s)", r.cause, method)
}

// waitMounts lets the images that the nodes shall boot be mounted and exported first: a
// faster node would boot its previous image once more. Mounts that take too long stop
// nothing.
func waitMounts(ctx context.Context, r *reboot) error {
	r.bootable(ctx)
	return ctx.Err()
}

// bootable waits, for a bounded time, until what nodes boot is where they look for it.
func (d *Daemon) bootable(ctx context.Context) {
	within, cancel := context.WithTimeout(ctx, mountTimeout)
	defer cancel()
	if err := d.mounts.settle(within); err != nil && ctx.Err() == nil {
		d.Print("nodes boot although images are not ready: %v", err)
	}
	within, cancel = context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	_ = d.news.settle(within) // the network services may be slow, nodes try again
}

func softReboot(ctx context.Context, r *reboot) error {
	var all sync.WaitGroup
	slots := make(chan bool, softReboots)
	places := r.tables.places()
	for _, node := range r.nodes {
		if r.tables.isOff(places[node.MAC]) {
			continue
		}
		slots <- true
		all.Go(func() {
			defer func() { <-slots }()
			r.rebooting.Store(node.MAC, r.why("soft-reboot"))
			defer r.rebooting.Delete(node.MAC)
			err := r.Control.Request(ctx, node.IP, "REBOOT")
			if err == nil {
				r.succeeded(node, "soft-reboot")
				return
			}
			r.mu.Lock()
			r.soft[node] = err.Error()
			r.mu.Unlock()
		})
	}
	all.Wait()
	return ctx.Err()
}

// clientReboot lets the client reboot nodes in its own way, if it has one.
func clientReboot(ctx context.Context, r *reboot) error {
	left := r.left()
	if len(left) == 0 || r.call == nil {
		return nil
	}
	client := r.call.client
	if has, err := client.Callback(ctx, "has_hook", "client_hard_reboot"); err != nil || has != true {
		return ctx.Err()
	}
	name, err := client.Callback(ctx, "get_hard_reboot_method_name")
	if err != nil {
		return err
	}
	if method, ok := name.(string); ok && method != "" {
		r.method = method
	}
	macs := make(pickle.Tuple, len(left))
	for i, node := range left {
		macs[i] = node.MAC
	}
	answer, err := client.Callback(ctx, "hard_reboot_nodes", macs)
	if err != nil {
		return err
	}
	pair, _ := answer.(pickle.Tuple)
	if len(pair) != 2 {
		return errors.New("the client does not say which nodes it has rebooted")
	}
	rebooted, _ := sequence(pair[0])
	failures, _ := pair[1].(*pickle.Dict)
	for _, node := range left {
		if slices.Contains(rebooted, node.MAC) {
			r.succeeded(node, r.method)
			continue
		}
		r.hard[node] = "no answer of the client"
		if failure, _ := failures.Get(node.MAC); failure != nil {
			r.hard[node] = fmt.Sprint(failure)
		}
	}
	return nil
}

// poeReboot cuts the power of the nodes that are left for a moment. Ports that are off
// already only get it back.
func poeReboot(ctx context.Context, r *reboot) error {
	v, places := r.registry.View(), r.tables.places()
	var on, off []PoEPort
	fed := map[place][]*registry.Device{}
	for _, node := range r.left() {
		at := places[node.MAC]
		port, err := feed(v, at)
		if err != nil {
			r.hard[node] = err.Error()
			continue
		}
		if fed[at] = append(fed[at], node); len(fed[at]) > 1 {
			continue
		}
		if r.tables.isOff(at) {
			off = append(off, port)
		} else {
			on = append(on, port)
		}
	}
	r.cycles.begin() // the daemon does not end before the ports are on again
	defer r.cycles.end()
	pause := false
	for i, err := range r.cut(ctx, on, offForReboot) {
		for _, node := range fed[place{on[i].Switch.MAC, on[i].Port}] {
			if err != nil {
				r.hard[node] = err.Error()
			} else {
				r.down(node, r.why("PoE hard-reboot"))
			}
		}
		if err == nil {
			off, pause = append(off, on[i]), true
		}
	}
	if len(off) == 0 {
		return nil
	}
	if pause {
		time.Sleep(poeOffTime) // whoever leaves meanwhile: the ports must be on again
	}
	for i, err := range r.restore(ctx, off) {
		for _, node := range fed[place{off[i].Switch.MAC, off[i].Port}] {
			if err != nil {
				r.hard[node] = err.Error()
			} else {
				r.succeeded(node, "PoE hard-reboot")
			}
		}
	}
	return nil
}

// failure is why a node is not rebooted: the errors of both ways, and what the second is.
type failure struct{ soft, hard, method string }

// report tells the client, or else the log, how the reboots went.
func report(_ context.Context, r *reboot) error {
	if len(r.done) > 0 {
		line := text.Sentence("%s: rebooted OK.", registry.Names(slices.Collect(maps.Keys(r.done))))
		if r.call != nil {
			r.call.out(line + "\n")
		} else {
			r.logf(nodesStream, "%s", line)
		}
	}
	groups := map[failure][]string{}
	for node, hard := range r.hard {
		f := failure{r.soft[node], hard, r.method}
		if node.Virtual {
			f.method = virtualMethod
		}
		groups[f] = append(groups[f], node.Name)
	}
	order := slices.SortedFunc(maps.Keys(groups), func(a, b failure) int {
		return cmp.Or(cmp.Compare(a.soft, b.soft), cmp.Compare(a.hard, b.hard), cmp.Compare(a.method, b.method))
	})
	for _, f := range order {
		template := fmt.Sprintf("%%s: failed %s (%s)", f.method, f.hard)
		if f.soft != "" {
			template = fmt.Sprintf("%%s: failed soft-reboot (%s) and %s (%s)", f.soft, f.method, f.hard)
		}
		line := text.Sentence(template, groups[f])
		if r.call != nil {
			r.call.err(line + "\n")
		} else {
			r.logf(nodesStream, "%s", line)
		}
	}
	return nil
}

func (c *call) rebootNodes() (any, error) {
	devices, err := c.Daemon.registry.View().ResolveNodes(c.text("node_set"), c.user)
	if err != nil {
		return c.fail(err, nil)
	}
	r := &reboot{Daemon: c.Daemon, call: c, nodes: devices, cause: printable(c.text("cause"))}
	if err := r.run(c, c.flag("hard_only")); err != nil {
		return nil, err
	}
	if len(r.hard) > 0 {
		return "FAILED", nil
	}
	return "OK", nil
}
