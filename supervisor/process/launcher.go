// Package process runs the processes of units: users, capabilities and limits,
// directories, sockets and stored descriptors that outlive a restart, readiness, output
// line by line, and the end of everything a unit has started.
//
// Protocols: sd_notify (READY, STATUS, STOPPING, RELOADING, EXTEND_TIMEOUT_USEC, WATCHDOG,
// FDSTORE, FDNAME, FDSTOREREMOVE) on one datagram socket per run, so that the sender needs no
// identification; sd_listen_fds for what is passed; a newline on a descriptor, as s6 has it.
// Every process goes through a shim, this program under the name [ShimName], which does what
// can only be done in the child (LISTEN_PID, limits, user, sandbox) and tells what it could
// not do.
//
// Refused: descriptors beyond hcl.Unit.FileDescriptors, notifications over 4 KiB.
package process

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/supervisor/cgroup"
	"github.com/waltos/waltos/supervisor/reap"
	"github.com/waltos/waltos/supervisor/sandbox"
	"github.com/waltos/waltos/supervisor/unit"
)

// Config is what a Launcher is made of.
type Config struct {
	Reaper *reap.Reaper
	// CgroupRoot is the folder of the units' control groups. Empty: no control groups;
	// then the process group stands for all that a unit started (tests).
	CgroupRoot string
	RunDir     string // "/run": runtime directories, notification sockets
	StateDir   string // "/var/lib"
	// Shim is the program that becomes [Shim] when its argument 0 is [ShimName].
	Shim string
	// Log receives each line that a unit writes, from any goroutine.
	Log func(unit, line string)
}

// Launcher implements unit.Launcher.
type Launcher struct {
	config Config

	mu    sync.Mutex
	kept  map[string]*kept
	limit map[string]*cgroup.Group
}

// New returns a Launcher.
func New(config Config) *Launcher {
	return &Launcher{config: config, kept: map[string]*kept{}, limit: map[string]*cgroup.Group{}}
}

// kept is what the supervisor holds for a unit across its restarts.
type kept struct {
	mu      sync.Mutex
	sockets []keptSocket
	store   []namedFile
}

type namedFile struct {
	name string
	file *os.File
}

func (l *Launcher) keeper(name string) *kept {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kept[name] == nil {
		l.kept[name] = &kept{}
	}
	return l.kept[name]
}

// group returns the control group of a unit once it has one, or nil.
func (l *Launcher) group(name string) *cgroup.Group {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limit[name]
}

// Memory returns the bytes that a unit uses, or 0 if that is not known.
func (l *Launcher) Memory(name string) int64 {
	if g := l.group(name); g != nil {
		return g.Memory()
	}
	return 0
}

// Stored returns how many descriptors a unit has left.
func (l *Launcher) Stored(name string) int {
	k := l.keeper(name)
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.store)
}

// Launch implements unit.Launcher.
func (l *Launcher) Launch(u *hcl.Unit, task unit.Task, report func(unit.Event)) unit.Run {
	if task == unit.Listen {
		return l.listen(u, report)
	}
	r := &run{launcher: l, unit: u, undo: task == unit.Undo, report: report, ended: make(chan struct{})}
	go r.supervise()
	return r
}

// run is one life of a unit's processes.
type run struct {
	launcher *Launcher
	unit     *hcl.Unit
	undo     bool
	report   func(unit.Event)
	ended    chan struct{} // closed when the main process has ended

	mu       sync.Mutex
	prepared *preparation
	child    *reap.Child // being waited for
	group    *cgroup.Group
	stopping bool // nothing more may be started
	started  bool // Started is reported
	early    bool // it said that it is ready before that
	readied  atomic.Bool
}

// drainTime bounds the wait for last lines that a survivor may keep from ending.
const drainTime = 500 * time.Millisecond

// vanishTime bounds the wait for killed processes.
const vanishTime = 30 * time.Second

func (r *run) supervise() {
	if !r.undo {
		if why := unmet(r.unit.Condition); why != "" {
			r.report(unit.Event{Kind: unit.Exited, OK: true, Skipped: true, Text: why})
			return
		}
		if err := r.launcher.noteRun(r.unit); err != nil {
			r.launcher.config.Log(r.unit.Name, err.Error())
		}
	}
	ok, text := r.life()
	r.report(unit.Event{Kind: unit.Exited, OK: ok, Text: text})
}

// life runs the commands of a unit and returns how they ended.
func (r *run) life() (ok bool, how string) {
	p, err := r.prepare()
	if err != nil {
		return false, err.Error()
	}
	defer p.close()
	r.mu.Lock()
	r.prepared = p
	r.mu.Unlock()
	for _, step := range r.commands() {
		child, launched, err := r.start(p, step.command, step.as)
		if err != nil {
			r.clean(p)
			return false, err.Error()
		}
		if child == nil { // stopped meanwhile
			r.clean(p)
			return false, "stopped before it was started"
		}
		failure := launched.outcome()
		if step.as == main && failure == nil {
			r.hasStarted(child.PID)
			go r.awaitReadiness(p)
		}
		status := child.Wait()
		r.mu.Lock()
		r.child = nil
		r.mu.Unlock()
		ok, how = status.Exited() && status.ExitStatus() == 0, reap.Describe(status)
		if failure != nil {
			ok, how = false, failure.Error()
			break
		}
		if step.as == before && !ok {
			how = fmt.Sprintf("pre command %s %s", step.command[0], how)
			break
		}
	}
	r.mu.Lock()
	r.stopping = true
	r.mu.Unlock()
	close(r.ended)
	if r.group != nil && r.group.OOMKills() > p.oomKills {
		how = outOfMemory(r.unit) + ": " + how
	}
	// A oneshot may leave processes behind on purpose, until it is stopped; not so a job.
	if r.unit.Type == "oneshot" && r.unit.Timer == nil && ok && !r.undo {
		p.drain()
		return ok, how
	}
	if !r.clean(p) {
		how += "; some of its processes cannot be killed"
	}
	return ok, how
}

// outOfMemory names the limit that a unit ran into.
func outOfMemory(u *hcl.Unit) string {
	if u.Limits.Memory == "" {
		return "out of memory (of the machine)"
	}
	return "out of memory (limit " + u.Limits.Memory + ")"
}

// step is one command of a run.
type step struct {
	command []string
	as      role
}

func (r *run) commands() []step {
	if r.undo {
		return []step{{r.unit.Stop, undo}}
	}
	var steps []step
	for _, command := range r.unit.Pre {
		steps = append(steps, step{command, before})
	}
	return append(steps, step{r.unit.Exec, main})
}

// clean ends what the main process has left, and reads the last of its output.
func (r *run) clean(p *preparation) bool {
	if r.unit.Outlived() {
		p.output.Close() // what is left goes on writing to it
		p.notify.drain()
		return true
	}
	gone := true
	if r.group != nil {
		if err := r.group.Kill(); err != nil {
			r.launcher.config.Log(r.unit.Name, err.Error())
		}
		gone = r.group.WaitEmpty(vanishTime)
	} else {
		r.killSession(p.session)
	}
	p.drain()
	return gone
}

// killSession stands for the control group where there is none.
func (r *run) killSession(pid int) {
	if pid > 1 {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
}

// Signal implements unit.Run.
func (r *run) Signal(signal syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopping = true
	if r.child == nil {
		return
	}
	if err := r.child.Signal(signal); err != nil {
		r.launcher.config.Log(r.unit.Name, err.Error())
	}
}

// Kill implements unit.Run.
func (r *run) Kill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopping = true
	if r.unit.Outlived() {
		if r.child != nil {
			_ = r.child.Signal(syscall.SIGKILL) // it cannot be refused by one's own child
		}
		return
	}
	if r.group != nil {
		if err := r.group.Kill(); err != nil {
			r.launcher.config.Log(r.unit.Name, err.Error())
		}
		return
	}
	if r.child != nil {
		r.killSession(r.child.PID)
	}
}

// preparation is what the processes of one run share.
type preparation struct {
	identity *identity
	plan     *sandbox.Plan
	output   *os.File // writing end
	drained  chan struct{}
	notify   *notifySocket
	cgroupFD *os.File
	oomKills int
	session  int
	null     *os.File
	pass     []namedFile
}

func (p *preparation) close() {
	p.output.Close()
	p.null.Close()
	p.notify.close()
	if p.cgroupFD != nil {
		p.cgroupFD.Close()
	}
}

// drain waits until the output is read to its end, if nobody holds it open.
func (p *preparation) drain() {
	p.output.Close()
	select {
	case <-p.drained:
	case <-time.After(drainTime):
	}
	p.notify.drain()
}

func (r *run) prepare() (*preparation, error) {
	c := r.launcher.config
	id, err := lookUp(r.unit)
	if err != nil {
		return nil, err
	}
	own := sandbox.Own(r.unit, c.RunDir, c.StateDir)
	p := &preparation{identity: id, plan: id.plan(r.unit, own), drained: make(chan struct{})}
	for _, path := range own {
		if err := ownFolder(path, id); err != nil {
			return nil, err
		}
	}
	if c.CgroupRoot != "" {
		if err := r.openGroup(p); err != nil {
			return nil, err
		}
	}
	fail := func(err error) (*preparation, error) {
		if p.cgroupFD != nil {
			p.cgroupFD.Close()
		}
		return nil, err
	}
	k := r.launcher.keeper(r.unit.Name)
	if p.pass, err = k.open(r.unit); err != nil {
		return fail(err)
	}
	if p.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return fail(fmt.Errorf("cannot prepare standard input: %w", err))
	}
	reading, writing, err := os.Pipe()
	if err != nil {
		p.null.Close()
		return fail(fmt.Errorf("cannot prepare standard output: %w", err))
	}
	p.output = writing
	go func() {
		defer close(p.drained)
		defer reading.Close()
		readLines(reading, func(line string) { c.Log(r.unit.Name, line) })
	}()
	if p.notify, err = r.openNotify(k, id); err != nil {
		p.null.Close()
		p.output.Close()
		return fail(err)
	}
	return p, nil
}

func (r *run) openGroup(p *preparation) error {
	cgroup.Forget(r.launcher.config.CgroupRoot, r.unit.Name)
	group, err := r.launcher.openGroup(r.unit)
	if err != nil {
		return err
	}
	if p.cgroupFD, err = group.File(); err != nil {
		return fmt.Errorf("cannot open control group: %w", err)
	}
	p.oomKills = group.OOMKills()
	r.mu.Lock()
	r.group = group
	r.mu.Unlock()
	return nil
}

// openGroup makes the control group of a unit if need be, and sets its limits.
func (l *Launcher) openGroup(u *hcl.Unit) (*cgroup.Group, error) {
	group, err := cgroup.Open(l.config.CgroupRoot, u.Name, u.Limits, l.config.StateDir)
	if group == nil {
		return nil, err
	}
	if err != nil {
		l.config.Log(u.Name, err.Error())
	}
	l.mu.Lock()
	l.limit[u.Name] = group
	l.mu.Unlock()
	return group, nil
}

// role of a command within a run.
type role int

const (
	before role = iota // a pre command
	main               // what the unit is; alone gets sockets and descriptors
	undo               // the stop command
	probe              // a readiness command, beside the main one
)

// start starts one command of the unit, unless it is being stopped. What comes of it, the
// channel tells.
func (r *run) start(p *preparation, command []string, as role) (*reap.Child, *channel, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return nil, nil, nil
	}
	files := []*os.File{p.null, p.output, p.output}
	environment := p.identity.environment()
	if as == main {
		environment = append(environment, "NOTIFY_SOCKET="+p.notify.path)
		environment = append(environment, passEnvironment(p.pass)...)
		environment = append(environment, watchdogEnvironment(r.unit)...)
		for _, f := range p.pass {
			files = append(files, f.file)
		}
		if fd := r.unit.Ready.FD; fd != 0 {
			said, err := r.hearReadiness()
			if err != nil {
				return nil, nil, err
			}
			defer said.Close()
			if files, err = putAt(files, fd, said); err != nil {
				return nil, nil, err
			}
		}
	}
	for name, value := range r.unit.Environment {
		environment = append(environment, name+"="+value)
	}
	attributes := &syscall.SysProcAttr{Setsid: true}
	if p.cgroupFD != nil {
		attributes.UseCgroupFD, attributes.CgroupFD = true, int(p.cgroupFD.Fd())
	}
	launched, err := openChannel(p.plan)
	if err != nil {
		return nil, nil, err
	}
	arguments := append([]string{ShimName, strconv.Itoa(len(files))}, command...)
	child, err := r.launcher.config.Reaper.Start(r.launcher.config.Shim, arguments, &os.ProcAttr{
		Env: environment, Files: append(files, launched.far), Sys: attributes,
	})
	if err != nil {
		_ = launched.outcome()
		return nil, nil, fmt.Errorf("cannot run %s: %w", command[0], err)
	}
	if as != probe {
		r.child, p.session = child, child.PID
	}
	return child, launched, nil
}
