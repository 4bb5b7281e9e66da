package hcl

import (
	"fmt"
	"slices"
	"time"

	hcl2 "github.com/hashicorp/hcl/v2"
)

// The schema of unit files. The comments are the text of the reference page (UNITS.md). The
// tag plan:"live" marks what can change without a restart of the unit.

// Unit is one thing that the supervisor runs.
type Unit struct {
	// Name is made of lower-case letters, digits and dashes, and starts with a letter.
	Name string `hcl:"name,label"`

	// Description says what the unit is for, in a few words.
	Description string `hcl:"description,optional" plan:"live"`

	// Type is "service" (default: a process that stays), "oneshot" (a command that ends;
	// the unit then counts as running until it is stopped) or "group" (no process: a name
	// for what it needs and wants).
	Type string `hcl:"type,optional"`

	// Exec is the argument vector; it begins with the absolute path of the program.
	Exec []string `hcl:"exec,optional"`
	// Pre are commands that are run before exec, in order, as the unit's user. One that
	// fails ends the start.
	Pre [][]string `hcl:"pre,optional"`
	// Stop is the command that undoes exec of a oneshot when the unit is stopped, or ends in
	// order what a service has left that is killed in the manner "main".
	Stop []string `hcl:"stop,optional"`

	// Environment is added to PATH, HOME, USER, LOGNAME, SHELL and LANG.
	Environment map[string]string `hcl:"environment,optional"`
	// Directory is the working directory; default "/".
	Directory string `hcl:"directory,optional"`
	// User runs the unit; default "root".
	User string `hcl:"user,optional"`
	// Groups are supplementary groups, beside those of the user.
	Groups []string `hcl:"groups,optional"`
	// Capabilities are what the unit has of root's rights, as "CAP_NET_RAW". A unit of root
	// without the block sandbox has them all.
	Capabilities []string `hcl:"capabilities,optional"`

	// Needs are started too and must run before this unit starts. When one of them fails for
	// good, this unit is ended and blocked; a crash that ends in a restart does not touch it.
	// Stopping one of them stops this unit first.
	Needs []string `hcl:"needs,optional" plan:"live"`
	// Wants are started too; this unit waits for their first result, whatever it is.
	Wants []string `hcl:"wants,optional" plan:"live"`
	// After is order only: this unit waits for those of them that are started at all, and is
	// stopped before them.
	After []string `hcl:"after,optional" plan:"live"`
	// Binds is needs, and more: whenever one of them ends, by a crash, a restart or a stop,
	// this unit is ended, and it is started again with it.
	Binds []string `hcl:"binds,optional" plan:"live"`

	// OnDemand lets the unit start at the first connection to one of its sockets instead of
	// at once. A service that ends with status 0 waits for the next connection.
	OnDemand bool `hcl:"on_demand,optional" plan:"live"`

	// RuntimeDirectories are made below /run, owned by the unit's user, mode 0755.
	RuntimeDirectories []string `hcl:"runtime_directories,optional"`
	// StateDirectories are made below /var/lib, owned by the unit's user, mode 0755.
	StateDirectories []string `hcl:"state_directories,optional"`

	// FileDescriptors bounds what the unit may leave with the supervisor by sd_notify
	// FDSTORE=1; they come back, by name, at its next start, until FDSTOREREMOVE=1 or until
	// they are connections that have ended. Default 0: none.
	FileDescriptors int `hcl:"file_descriptors,optional" plan:"live"`

	Sockets   []Socket   `hcl:"socket,block"`
	Condition *Condition `hcl:"condition,block" plan:"live"`
	Ready     *Ready     `hcl:"ready,block"`
	Alive     *Alive     `hcl:"alive,block"`
	Timer     *Timer     `hcl:"timer,block" plan:"live"`
	Restart   *Restart   `hcl:"restart,block" plan:"live"`
	Reload    *Reload    `hcl:"reload,block" plan:"live"`
	Shutdown  *Stopper   `hcl:"shutdown,block" plan:"live"`
	Limits    *Limits    `hcl:"limits,block"`
	Sandbox   *Sandbox   `hcl:"sandbox,block"`

	Range hcl2.Range `hcl:",def_range"`

	// places of the dependencies in the file, by kind and name.
	places map[dependency]hcl2.Range
}

// Socket is opened by the supervisor before the first start of the unit and kept across its
// restarts, so that peers queue instead of being refused. It is passed by the sd_listen_fds
// protocol with its label as LISTEN_FDNAMES entry.
type Socket struct {
	// Name is the label that the service knows the socket by.
	Name string `hcl:"name,label"`
	// Listen is "tcp:ADDR:PORT", "udp:ADDR:PORT" or "unix:/PATH"; an IPv6 address is in
	// brackets.
	Listen string `hcl:"listen"`
	// Mode of a unix socket, octal; default "0600".
	Mode string `hcl:"mode,optional"`
	// User that owns a unix socket; default the unit's user.
	User string `hcl:"user,optional"`
	// Group of a unix socket; default the first group of its user.
	Group string `hcl:"group,optional"`
	// Backlog is the length of the listen queue; default 256.
	Backlog int `hcl:"backlog,optional"`

	Range hcl2.Range `hcl:",def_range"`
}

// Condition must hold when the unit is about to start. If it does not, the unit is skipped: it
// counts as done, and says why.
type Condition struct {
	// Exists lists paths that must all exist.
	Exists []string `hcl:"exists,optional"`
	// Missing lists paths of which none may exist.
	Missing []string `hcl:"missing,optional"`
}

// Ready tells how the supervisor learns that a started service is ready; exactly one kind is
// given. Without this block a service is ready once executed. A oneshot is ready once it has
// ended with status 0.
type Ready struct {
	// Notify: the service says READY=1 by sd_notify.
	Notify bool `hcl:"notify,optional" plan:"live"`
	// FD: the service writes a newline to this descriptor, as s6 has it; 3 or more, beyond
	// those of the sockets and of the descriptor store.
	FD int `hcl:"fd,optional"`
	// TCP: a connection to "ADDR:PORT" is accepted.
	TCP string `hcl:"tcp,optional" plan:"live"`
	// Unix: a connection to this socket path is accepted.
	Unix string `hcl:"unix,optional" plan:"live"`
	// HTTP: a GET of this address, "http://ADDR:PORT/PATH", is answered with status 2xx or 3xx.
	HTTP string `hcl:"http,optional" plan:"live"`
	// Exec: this command, run as the unit's user, ends with status 0.
	Exec []string `hcl:"exec,optional" plan:"live"`
	// Timeout is how long it may take, after which the unit is killed and has failed; default
	// "90s". The service may have more by sd_notify EXTEND_TIMEOUT_USEC.
	Timeout string `hcl:"timeout,optional" plan:"live"`
}

// Alive is the proof of life of a running service; exactly one kind is given. A service that
// does not give it is ended and restarted as if it had failed.
type Alive struct {
	// Notify: the service says WATCHDOG=1 by sd_notify at least once in each period, which it
	// finds in WATCHDOG_USEC; WATCHDOG=trigger asks for the restart.
	Notify bool `hcl:"notify,optional"`
	// TCP: a connection to "ADDR:PORT" is accepted.
	TCP string `hcl:"tcp,optional" plan:"live"`
	// Unix: a connection to this socket path is accepted. A socket that the supervisor holds
	// proves nothing: it takes connections for a dead service too.
	Unix string `hcl:"unix,optional" plan:"live"`
	// HTTP: a GET of this address, "http://ADDR:PORT/PATH", is answered with status 2xx or 3xx.
	HTTP string `hcl:"http,optional" plan:"live"`
	// Exec: this command, run as the unit's user, ends with status 0.
	Exec []string `hcl:"exec,optional" plan:"live"`
	// Period is the time between two probes; default "30s".
	Period string `hcl:"period,optional" plan:"live"`
	// Timeout bounds one probe; default "5s", or the period if that is shorter.
	Timeout string `hcl:"timeout,optional" plan:"live"`
	// Threshold is how many probes in a row must fail; default 3, with notify always 1.
	Threshold int `hcl:"threshold,optional" plan:"live"`
	// Signal is what the service gets then; default the signal of its shutdown. "ABRT" or
	// "QUIT" makes a Go program say what it was doing.
	Signal string `hcl:"signal,optional" plan:"live"`
}

// Timer makes a oneshot a periodic job: where others start, it waits for its time; started by
// hand it runs at once. There is one run at a time: occasions that pass during a run are
// dropped. A run that fails is told, and the next one comes all the same.
type Timer struct {
	// Every is the time between the starts of two runs, at least "1s".
	Every string `hcl:"every,optional"`
	// Daily is the time of day, "HH:MM", in the time zone of the machine.
	Daily string `hcl:"daily,optional"`
	// AfterBoot is when the first run comes, after the supervisor has started; default: every.
	AfterBoot string `hcl:"after_boot,optional"`
	// Jitter delays each run by a random time up to this; default "0s".
	Jitter string `hcl:"jitter,optional"`
	// Persistent remembers the last run across boots: a run that was missed while the machine
	// was off is made up for after_boot (default at once), and one that is not due waits.
	Persistent bool `hcl:"persistent,optional"`
}

// Restart is what happens when a service ends by itself.
type Restart struct {
	// Policy is "always" (default), "on-failure" or "never" (default of a oneshot).
	Policy string `hcl:"policy,optional"`
	// Delay is the first delay, default "100ms"; it doubles at each failure, and is shortened
	// by up to a quarter at random.
	Delay string `hcl:"delay,optional"`
	// Max is the cap of the delay, default "10s". A run that lasts longer than this makes the
	// delays begin anew.
	Max string `hcl:"max,optional"`
	// GiveUp ends the attempts: "N in DURATION", default "20 in 5m"; "never" never does. The
	// unit has then failed; a start by hand forgets it.
	GiveUp string `hcl:"give_up,optional"`
}

// Reload makes the service read its configuration again, at "waltctl reload UNIT"; exactly one
// kind is given. A service that answers by sd_notify RELOADING=1 counts as reloading until
// READY=1.
type Reload struct {
	// Signal is sent to the main process.
	Signal string `hcl:"signal,optional"`
	// Exec is run as the unit's user, in its control group.
	Exec []string `hcl:"exec,optional"`
	// Timeout bounds the reload, default "30s"; the service goes on in any case.
	Timeout string `hcl:"timeout,optional"`
}

// Stopper is how a unit is stopped.
type Stopper struct {
	// Signal is sent to the main process first: "TERM" (default), "INT", "QUIT", "HUP", "USR1",
	// "USR2", "ABRT" or "KILL".
	Signal string `hcl:"signal,optional"`
	// Timeout is how long it may take to end, default "10s"; then it is killed. The service may
	// have more by sd_notify EXTEND_TIMEOUT_USEC.
	Timeout string `hcl:"timeout,optional"`
	// Kill is what is killed when the main process has ended or must: "group" (default), all
	// that the unit has started; or "main", the main process alone, so that the rest outlives
	// a crash or restart of it. A stop of the unit ends all in both cases.
	Kill string `hcl:"kill,optional"`
}

// Outlived tells whether what the unit has started outlives its main process.
func (u *Unit) Outlived() bool { return u.Shutdown.Kill == killMain }

// Probe is a question that is answered by trying; at most one kind is given.
type Probe struct {
	TCP, Unix, HTTP string
	Exec            []string
}

// Probe returns the probe of readiness; it is empty for what the service says itself.
func (r *Ready) Probe() Probe { return Probe{r.TCP, r.Unix, r.HTTP, r.Exec} }

// Probe returns the probe of life; it is empty for what the service says itself.
func (a *Alive) Probe() Probe { return Probe{a.TCP, a.Unix, a.HTTP, a.Exec} }

// kinds counts what is asked for.
func (p Probe) kinds() int {
	n := 0
	for _, given := range []bool{p.TCP != "", p.Unix != "", p.HTTP != "", len(p.Exec) > 0} {
		if given {
			n++
		}
	}
	return n
}

// Empty tells whether nothing is asked.
func (p Probe) Empty() bool { return p.kinds() == 0 }

// Dependencies lists every unit that must come before this one.
func (u *Unit) Dependencies() []string {
	return slices.Concat(u.Needs, u.Binds, u.Wants, u.After)
}

// Required lists the units without which this one cannot run.
func (u *Unit) Required() []string { return slices.Concat(u.Needs, u.Binds) }

// Pulled lists the units that are started with this one.
func (u *Unit) Pulled() []string { return slices.Concat(u.Needs, u.Binds, u.Wants) }

// Tries returns how many ends within which time end the attempts; 0 means never.
func (r *Restart) Tries() (count int, within time.Duration, err error) {
	if r.GiveUp == "never" {
		return 0, 0, nil
	}
	var text string
	if _, err := fmt.Sscanf(r.GiveUp, "%d in %s", &count, &text); err == nil && count > 0 {
		if within, err = time.ParseDuration(text); err == nil && within > 0 {
			return count, within, nil
		}
	}
	return 0, 0, fmt.Errorf("give_up is %q; write \"N in DURATION\" such as \"20 in 5m\", or \"never\"", r.GiveUp)
}

// At returns the time of day of a daily timer, in minutes.
func (t *Timer) At() (minutes int, err error) {
	at, err := time.Parse("15:04", t.Daily)
	if err != nil {
		return 0, fmt.Errorf("daily is %q; write a time of day such as \"03:30\"", t.Daily)
	}
	return at.Hour()*60 + at.Minute(), nil
}
