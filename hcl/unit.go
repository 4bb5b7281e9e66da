package hcl

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	hcl2 "github.com/hashicorp/hcl/v2"
)

// Unit is one thing that the supervisor runs.
type Unit struct {
	Name        string `hcl:"name,label"`
	Description string `hcl:"description,optional"`

	// Type is "service" (default: a process that stays), "oneshot" (a command
	// that ends; the unit then counts as running until stopped) or "group" (no
	// process: a name for its Needs and Wants).
	Type string `hcl:"type,optional"`

	Exec []string   `hcl:"exec,optional"` // argument vector; absolute program path
	Pre  [][]string `hcl:"pre,optional"`  // commands run before Exec, in order, as the unit's user
	Stop []string   `hcl:"stop,optional"` // oneshot: command that undoes Exec when the unit is stopped

	Environment map[string]string `hcl:"environment,optional"`
	Directory   string            `hcl:"directory,optional"` // working directory, default /
	User        string            `hcl:"user,optional"`      // default root
	Groups      []string          `hcl:"groups,optional"`    // supplementary groups

	// Capabilities a non-root user keeps, as "CAP_NET_RAW".
	Capabilities []string `hcl:"capabilities,optional"`

	Needs []string `hcl:"needs,optional"` // start after these, and fail when they fail
	Wants []string `hcl:"wants,optional"` // start these too and wait for their first result, whatever it is
	After []string `hcl:"after,optional"` // order only, if they are started at all

	// RuntimeDirectories are made below /run, StateDirectories below /var/lib,
	// owned by the unit's user, mode 0755.
	RuntimeDirectories []string `hcl:"runtime_directories,optional"`
	StateDirectories   []string `hcl:"state_directories,optional"`

	// FileDescriptors bounds what the unit may leave with the supervisor by
	// sd_notify FDSTORE=1; they come back at its next start. Default 0: none.
	FileDescriptors int `hcl:"file_descriptors,optional"`

	Sockets  []Socket `hcl:"socket,block"`
	Ready    *Ready   `hcl:"ready,block"`
	Restart  *Restart `hcl:"restart,block"`
	Shutdown *Stopper `hcl:"shutdown,block"`
	Limits   *Limits  `hcl:"limits,block"`

	Range hcl2.Range `hcl:",def_range"`
}

// Socket is opened by the supervisor before the first start of the unit and kept
// across its restarts, so that peers queue instead of being refused. It is passed
// by the sd_listen_fds protocol with its label as LISTEN_FDNAMES entry.
type Socket struct {
	Name   string `hcl:"name,label"`
	Listen string `hcl:"listen"`        // "tcp:ADDR:PORT", "udp:ADDR:PORT" or "unix:/PATH"
	Mode   string `hcl:"mode,optional"` // unix: octal permission, default "0600"
	User   string `hcl:"user,optional"` // unix: owner, default the unit's user
	Group  string `hcl:"group,optional"`
	// Backlog is the listen queue length, default 256.
	Backlog int `hcl:"backlog,optional"`
}

// Ready tells how the supervisor learns that a started service is ready; exactly
// one kind is given. Without a ready block a service is ready once executed, and a
// oneshot once it has ended with status 0.
type Ready struct {
	Notify  bool     `hcl:"notify,optional"`  // sd_notify READY=1
	TCP     string   `hcl:"tcp,optional"`     // "ADDR:PORT" accepts a connection
	Unix    string   `hcl:"unix,optional"`    // path accepts a connection
	Exec    []string `hcl:"exec,optional"`    // command ends with status 0
	Timeout string   `hcl:"timeout,optional"` // default "90s"
}

// Restart is what happens when a service ends by itself.
type Restart struct {
	Policy string `hcl:"policy,optional"` // "always" (default), "on-failure", "never"
	Delay  string `hcl:"delay,optional"`  // first delay, default "100ms"; doubles at each failure
	Max    string `hcl:"max,optional"`    // cap of the delay, default "10s"
	// GiveUp ends the attempts: "N in DURATION", default "20 in 5m"; "never" never does.
	GiveUp string `hcl:"give_up,optional"`
}

// Stopper is how a unit is stopped.
type Stopper struct {
	Signal  string `hcl:"signal,optional"`  // "TERM" (default), "INT", "QUIT", "HUP", "USR1", "USR2", "KILL"
	Timeout string `hcl:"timeout,optional"` // then its whole control group is killed; default "10s"
}

// Limits bound the control group of a unit.
type Limits struct {
	Memory string `hcl:"memory,optional"` // memory.max as "256M"
	Tasks  int    `hcl:"tasks,optional"`  // pids.max
	CPU    int    `hcl:"cpu,optional"`    // cpu.weight, 1-10000
	Files  int    `hcl:"files,optional"`  // RLIMIT_NOFILE, default 16384
}

type unitFile struct {
	Units []*Unit `hcl:"unit,block"`
}

var (
	unitTypes       = []string{"service", "oneshot", "group"}
	restartPolicies = []string{"always", "on-failure", "never"}
	stopSignals     = []string{"TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "KILL"}
)

// ParseUnits decodes the units of one file. Defaults are filled in and each unit is
// checked alone; the graph they form is checked by [CheckGraph].
func ParseUnits(src []byte, name string) ([]*Unit, error) {
	d, err := parse(src, name)
	if err != nil {
		return nil, err
	}
	var file unitFile
	if err := d.decode(&file, nil); err != nil {
		return nil, err
	}
	for _, u := range file.Units {
		u.complete()
		u.check(d)
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return file.Units, nil
}

// LoadUnits decodes every *.hcl file of a folder, in name order, and checks the
// graph of all their units.
func LoadUnits(dir string) ([]*Unit, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.hcl"))
	if err != nil {
		return nil, fmt.Errorf("cannot list units: %w", err)
	}
	sort.Strings(paths)
	var all []*Unit
	for _, path := range paths {
		src, err := readFile(path)
		if err != nil {
			return nil, err
		}
		units, err := ParseUnits(src, path)
		if err != nil {
			return nil, err
		}
		all = append(all, units...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("cannot load units: no unit in %s: %w", dir, os.ErrNotExist)
	}
	return all, CheckGraph(all)
}

// complete fills in the defaults, so that users of a Unit never test for absence.
func (u *Unit) complete() {
	setDefault(&u.Type, "service")
	setDefault(&u.Directory, "/")
	setDefault(&u.User, "root")
	if u.Ready == nil {
		u.Ready = &Ready{}
	}
	setDefault(&u.Ready.Timeout, "90s")
	if u.Restart == nil {
		u.Restart = &Restart{}
	}
	if u.Type == "oneshot" {
		setDefault(&u.Restart.Policy, "never")
	}
	setDefault(&u.Restart.Policy, "always")
	setDefault(&u.Restart.Delay, "100ms")
	setDefault(&u.Restart.Max, "10s")
	setDefault(&u.Restart.GiveUp, "20 in 5m")
	if u.Shutdown == nil {
		u.Shutdown = &Stopper{}
	}
	setDefault(&u.Shutdown.Signal, "TERM")
	setDefault(&u.Shutdown.Timeout, "10s")
	if u.Limits == nil {
		u.Limits = &Limits{}
	}
	if u.Limits.Files == 0 {
		u.Limits.Files = 16384
	}
	for i := range u.Sockets {
		setDefault(&u.Sockets[i].Mode, "0600")
		setDefault(&u.Sockets[i].User, u.User)
		if u.Sockets[i].Backlog == 0 {
			u.Sockets[i].Backlog = 256
		}
	}
}

func setDefault(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

func (u *Unit) check(d *document) {
	refuse := func(format string, args ...any) {
		d.refuse(&u.Range, fmt.Sprintf("Invalid unit %q", u.Name), format, args...)
	}
	oneOf := func(field, value string, allowed []string) {
		if !slices.Contains(allowed, value) {
			refuse("%s is %q; it must be one of %s.", field, value, strings.Join(allowed, ", "))
		}
	}
	duration := func(field, value string) {
		if v, err := time.ParseDuration(value); err != nil || v < 0 {
			refuse("%s is %q; write a duration such as \"500ms\" or \"30s\".", field, value)
		}
	}
	if !validName(u.Name) {
		refuse("A unit name is made of lower-case letters, digits and dashes, and starts with a letter.")
	}
	oneOf("type", u.Type, unitTypes)
	switch {
	case u.Type == "group" && len(u.Exec) > 0:
		refuse("A group runs nothing; remove exec or the type.")
	case u.Type != "group" && len(u.Exec) == 0:
		refuse("exec is missing.")
	case len(u.Exec) > 0 && !filepath.IsAbs(u.Exec[0]):
		refuse("exec begins with %q; the program must be an absolute path.", u.Exec[0])
	}
	for _, command := range u.Pre {
		if len(command) == 0 || !filepath.IsAbs(command[0]) {
			refuse("Each pre command must begin with the absolute path of a program.")
		}
	}
	kinds := 0
	for _, given := range []bool{u.Ready.Notify, u.Ready.TCP != "", u.Ready.Unix != "", len(u.Ready.Exec) > 0} {
		if given {
			kinds++
		}
	}
	if kinds > 1 {
		refuse("The ready block holds %d kinds of readiness; give one.", kinds)
	}
	oneOf("restart policy", u.Restart.Policy, restartPolicies)
	oneOf("shutdown signal", u.Shutdown.Signal, stopSignals)
	duration("ready timeout", u.Ready.Timeout)
	duration("restart delay", u.Restart.Delay)
	duration("restart max", u.Restart.Max)
	duration("shutdown timeout", u.Shutdown.Timeout)
	if _, _, err := u.Restart.Tries(); err != nil {
		refuse("%v", err)
	}
	if _, err := ParseSize(u.Limits.Memory); u.Limits.Memory != "" && err != nil {
		refuse("memory limit: %v.", err)
	}
	if u.Limits.CPU < 0 || u.Limits.CPU > 10000 {
		refuse("cpu is %d; a weight is 1 to 10000.", u.Limits.CPU)
	}
	for _, s := range u.Sockets {
		if network, _, ok := strings.Cut(s.Listen, ":"); !ok || !slices.Contains([]string{"tcp", "udp", "unix"}, network) {
			refuse("socket %q listens on %q; write \"tcp:ADDR:PORT\", \"udp:ADDR:PORT\" or \"unix:/PATH\".", s.Name, s.Listen)
		}
	}
}

// Tries returns how many starts within which time end the attempts; 0 means never.
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

// ParseSize reads a size in bytes with an optional binary suffix K, M, G or T.
func ParseSize(text string) (int64, error) {
	number, shift := text, 0
	if n := len(text); n > 0 {
		if i := strings.IndexByte("KMGT", text[n-1]); i >= 0 {
			number, shift = text[:n-1], 10*(i+1)
		}
	}
	v, err := strconv.ParseInt(number, 10, 64)
	if err != nil || v < 0 || v > 1<<(62-shift) {
		return 0, fmt.Errorf("%q is not a size such as 512M or 2G", text)
	}
	return v << shift, nil
}

func validName(name string) bool {
	for i, c := range name {
		switch {
		case c >= 'a' && c <= 'z':
		case i > 0 && (c >= '0' && c <= '9' || c == '-'):
		default:
			return false
		}
	}
	return name != ""
}

// CheckGraph refuses duplicate names, dependencies on unknown units, and cycles.
func CheckGraph(units []*Unit) error {
	byName := map[string]*Unit{}
	for _, u := range units {
		if other := byName[u.Name]; other != nil {
			return fmt.Errorf("%s: unit %q is already defined at %s", u.Range, u.Name, other.Range)
		}
		byName[u.Name] = u
	}
	names := make([]string, 0, len(byName))
	for name := range byName {
		names = append(names, name)
	}
	sort.Strings(names)
	const (
		entered = 1
		left    = 2
	)
	state := map[string]int{}
	var visit func(u *Unit, path []string) error
	visit = func(u *Unit, path []string) error {
		path = append(path, u.Name)
		state[u.Name] = entered
		for _, name := range u.Dependencies() {
			next := byName[name]
			if next == nil {
				hint := ""
				if near := nearest(name, names); near != "" {
					hint = fmt.Sprintf("; did you mean %q?", near)
				}
				return fmt.Errorf("%s: unit %q depends on %q, which no unit file defines%s", u.Range, u.Name, name, hint)
			}
			switch state[name] {
			case entered:
				at := slices.Index(path, name)
				return fmt.Errorf("%s: the units depend on each other in a cycle: %s -> %s", u.Range, strings.Join(path[at:], " -> "), name)
			case left:
				continue
			}
			if err := visit(next, path); err != nil {
				return err
			}
		}
		state[u.Name] = left
		return nil
	}
	for _, name := range names {
		if state[name] == 0 {
			if err := visit(byName[name], nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// Dependencies lists every unit that must come before this one.
func (u *Unit) Dependencies() []string {
	return slices.Concat(u.Needs, u.Wants, u.After)
}
