package hcl

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// killMain is the manner of Stopper in which only the main process is killed.
const killMain = "main"

var (
	unitTypes       = []string{"service", "oneshot", "group"}
	restartPolicies = []string{"always", "on-failure", "never"}
	killModes       = []string{"group", killMain}
	stopSignals     = []string{"TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "ABRT", "KILL"}
	socketNetworks  = []string{"tcp", "udp", "unix"}
)

const (
	// maxDescriptor is the highest number that a readiness descriptor may have.
	maxDescriptor = 1023
	// shortestEvery keeps a periodic job from being a busy loop.
	shortestEvery = time.Second
)

// unitCheck judges one unit and records what it refuses.
type unitCheck struct {
	u *Unit
	d *document
}

func (u *Unit) check(d *document) {
	c := unitCheck{u, d}
	if !validName(u.Name) {
		c.refuse("A unit name is made of lower-case letters, digits and dashes, and starts with a letter.")
	}
	c.oneOf("type", u.Type, unitTypes)
	c.commands()
	c.contradictions()
	c.sockets()
	c.readiness()
	c.life()
	c.timer()
	c.ends()
	u.Limits.check(c.refuse)
	if u.Sandbox != nil {
		u.Sandbox.check(c.refuse)
	}
	for _, name := range u.Capabilities {
		if !capability.MatchString(name) {
			c.refuse("capabilities names %q; write a name of capabilities(7), as \"CAP_NET_RAW\".", name)
		}
	}
}

func (c unitCheck) refuse(format string, args ...any) {
	c.d.refuse(&c.u.Range, fmt.Sprintf("Invalid unit %q", c.u.Name), format, args...)
}

func (c unitCheck) oneOf(field, value string, allowed []string) {
	if slices.Contains(allowed, value) {
		return
	}
	c.refuse("%s is %q; it must be one of %s%s", field, value, strings.Join(allowed, ", "), didYouMean(value, allowed))
}

// duration refuses what is no duration, or shorter than that.
func (c unitCheck) duration(field, value string, least time.Duration) {
	switch v, err := time.ParseDuration(value); {
	case err != nil || v < 0:
		c.refuse("%s is %q; write a duration such as \"500ms\" or \"30s\".", field, value)
	case v < least:
		c.refuse("%s is %q; it must be %s at least.", field, value, least)
	}
}

func (c unitCheck) command(field string, command []string) {
	if len(command) == 0 || !filepath.IsAbs(command[0]) {
		c.refuse("%s must begin with the absolute path of a program.", field)
	}
}

func (c unitCheck) commands() {
	u := c.u
	switch {
	case u.Type == "group" && len(u.Exec) > 0:
		c.refuse("A group runs nothing; remove exec or the type.")
	case u.Type != "group" && len(u.Exec) == 0:
		c.refuse("exec is missing.")
	case len(u.Exec) > 0 && !filepath.IsAbs(u.Exec[0]):
		c.refuse("exec begins with %q; the program must be an absolute path.", u.Exec[0])
	}
	for _, command := range u.Pre {
		c.command("Each pre command", command)
	}
	if len(u.Stop) > 0 {
		c.command("stop", u.Stop)
	}
	for _, path := range slices.Concat(conditionPaths(u.Condition), []string{u.Directory}) {
		if !filepath.IsAbs(path) {
			c.refuse("The path %q is not absolute.", path)
		}
	}
	for _, path := range slices.Concat(u.RuntimeDirectories, u.StateDirectories) {
		if !filepath.IsLocal(path) {
			c.refuse("The folder %q must be below /run or /var/lib; write it relative to that.", path)
		}
	}
	for name := range u.Environment {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			c.refuse("%q cannot be the name of a variable.", name)
		}
	}
}

func conditionPaths(c *Condition) []string {
	if c == nil {
		return nil
	}
	return slices.Concat(c.Exists, c.Missing)
}

// contradictions refuses what has no meaning for the type of the unit, rather than ignore it.
func (c unitCheck) contradictions() {
	u := c.u
	for _, rule := range []struct {
		given bool
		what  string
		types []string
	}{
		{len(u.Pre) > 0, "pre", []string{"service", "oneshot"}},
		{len(u.Stop) > 0 && !u.Outlived(), "stop", []string{"oneshot"}},
		{len(u.Sockets) > 0, "A socket", []string{"service", "oneshot"}},
		{u.OnDemand, "on_demand", []string{"service"}},
		{u.FileDescriptors != 0, "file_descriptors", []string{"service", "oneshot"}},
		{u.Ready.FD != 0 || u.Ready.Notify || !u.Ready.Probe().Empty(), "Readiness", []string{"service"}},
		{u.Alive != nil, "The block alive", []string{"service"}},
		{u.Reload != nil, "The block reload", []string{"service"}},
		{u.Timer != nil, "The block timer", []string{"oneshot"}},
	} {
		if rule.given && slices.Contains(unitTypes, u.Type) && !slices.Contains(rule.types, u.Type) {
			c.refuse("%s has no meaning for a %s, only for a %s.", rule.what, u.Type, strings.Join(rule.types, " or "))
		}
	}
	if u.OnDemand && len(u.Sockets) == 0 {
		c.refuse("on_demand needs a socket: its first connection is the demand.")
	}
	if u.Timer != nil && len(u.Stop) > 0 {
		c.refuse("A periodic job has nothing to undo; remove stop or the timer.")
	}
	if u.Timer != nil && u.Restart.Policy == "always" {
		c.refuse("A periodic job with the restart policy always would never wait for its time.")
	}
	if u.FileDescriptors < 0 {
		c.refuse("file_descriptors is negative.")
	}
	seen := map[string]string{}
	for _, kind := range dependencyKinds {
		for _, name := range u.byKind(kind) {
			switch other := seen[name]; {
			case name == u.Name:
				c.refuse("It names itself in %s.", kind)
			case other != "":
				c.refuse("%q is in %s and in %s; give it once.", name, other, kind)
			}
			seen[name] = kind
		}
	}
}

func (c unitCheck) sockets() {
	names := map[string]bool{}
	for i := range c.u.Sockets {
		s := &c.u.Sockets[i]
		if names[s.Name] {
			c.refuse("Two sockets are named %q.", s.Name)
		}
		names[s.Name] = true
		network, address, ok := strings.Cut(s.Listen, ":")
		if !ok || !slices.Contains(socketNetworks, network) {
			c.refuse("socket %q listens on %q; write \"tcp:ADDR:PORT\", \"udp:ADDR:PORT\" or \"unix:/PATH\".", s.Name, s.Listen)
			continue
		}
		if network == "unix" {
			if !filepath.IsAbs(address) || len(address) > 107 {
				c.refuse("socket %q: %q is not an absolute path of at most 107 bytes.", s.Name, address)
			}
		} else if _, err := netip.ParseAddrPort(address); err != nil {
			c.refuse("socket %q: %q is not an address with a port: %v.", s.Name, address, err)
		}
		if _, err := strconv.ParseUint(s.Mode, 8, 12); err != nil {
			c.refuse("socket %q: mode %q is not octal.", s.Name, s.Mode)
		}
		if s.Backlog < 0 {
			c.refuse("socket %q: the backlog is negative.", s.Name)
		}
	}
}

func (c unitCheck) readiness() {
	r := c.u.Ready
	kinds := r.Probe().kinds()
	for _, given := range []bool{r.Notify, r.FD != 0} {
		if given {
			kinds++
		}
	}
	if kinds > 1 {
		c.refuse("The ready block holds %d kinds of readiness; give one.", kinds)
	}
	if first := 3 + len(c.u.Sockets) + c.u.FileDescriptors; r.FD != 0 && (r.FD < first || r.FD > maxDescriptor) {
		c.refuse("ready fd is %d; with these sockets and stored descriptors it must be %d to %d.", r.FD, first, maxDescriptor)
	}
	c.duration("ready timeout", r.Timeout, 0)
	c.probe("ready", r.Probe())
}

// probe refuses names of hosts: the supervisor waits for no name server.
func (c unitCheck) probe(block string, p Probe) {
	if p.TCP != "" {
		if _, err := netip.ParseAddrPort(p.TCP); err != nil {
			c.refuse("%s tcp is %q; write \"ADDR:PORT\" in numbers.", block, p.TCP)
		}
	}
	if p.Unix != "" && !filepath.IsAbs(p.Unix) {
		c.refuse("%s unix is %q; write an absolute path.", block, p.Unix)
	}
	if p.HTTP != "" {
		address, err := url.Parse(p.HTTP)
		if err == nil && address.Scheme == "http" {
			_, err = netip.ParseAddrPort(address.Host)
		}
		if err != nil || address.Scheme != "http" || strings.ContainsAny(p.HTTP, " \r\n") {
			c.refuse("%s http is %q; write \"http://ADDR:PORT/PATH\" with the address in numbers.", block, p.HTTP)
		}
	}
	if len(p.Exec) > 0 {
		c.command(block+" exec", p.Exec)
	}
}

func (c unitCheck) life() {
	a := c.u.Alive
	if a == nil {
		return
	}
	kinds := a.Probe().kinds()
	if a.Notify {
		kinds++
	}
	if kinds != 1 {
		c.refuse("The alive block holds %d kinds of proof; give one.", kinds)
	}
	c.probe("alive", a.Probe())
	c.duration("alive period", a.Period, 100*time.Millisecond)
	c.duration("alive timeout", a.Timeout, time.Millisecond)
	c.oneOf("alive signal", a.Signal, stopSignals)
	if shorter(a.Timeout, a.Period) != a.Timeout {
		c.refuse("alive timeout is %q, longer than the period %q.", a.Timeout, a.Period)
	}
	if a.Threshold < 1 || a.Notify && a.Threshold != 1 {
		c.refuse("alive threshold is %d; it must be 1 or more, and with notify it is 1.", a.Threshold)
	}
}

func (c unitCheck) timer() {
	t := c.u.Timer
	if t == nil {
		return
	}
	if (t.Every == "") == (t.Daily == "") {
		c.refuse("The timer block must hold either every or daily.")
	}
	if t.Every != "" {
		c.duration("timer every", t.Every, shortestEvery)
	}
	if t.Daily != "" {
		if _, err := t.At(); err != nil {
			c.refuse("timer %v.", err)
		}
	}
	if t.AfterBoot != "" {
		c.duration("timer after_boot", t.AfterBoot, 0)
		if t.Daily != "" && !t.Persistent {
			c.refuse("timer after_boot has no meaning for a daily job that is not persistent.")
		}
	}
	c.duration("timer jitter", t.Jitter, 0)
}

// ends checks how the unit is restarted, reloaded and stopped.
func (c unitCheck) ends() {
	u := c.u
	c.oneOf("restart policy", u.Restart.Policy, restartPolicies)
	c.duration("restart delay", u.Restart.Delay, 0)
	c.duration("restart max", u.Restart.Max, 0)
	if shorter(u.Restart.Delay, u.Restart.Max) != u.Restart.Delay {
		c.refuse("restart delay is %q, longer than its max %q.", u.Restart.Delay, u.Restart.Max)
	}
	if _, _, err := u.Restart.Tries(); err != nil {
		c.refuse("%v.", err)
	}
	c.oneOf("shutdown signal", u.Shutdown.Signal, stopSignals)
	c.oneOf("shutdown kill", u.Shutdown.Kill, killModes)
	c.duration("shutdown timeout", u.Shutdown.Timeout, 0)
	if r := u.Reload; r != nil {
		if (r.Signal == "") == (len(r.Exec) == 0) {
			c.refuse("The reload block must hold either signal or exec.")
		}
		if r.Signal != "" {
			c.oneOf("reload signal", r.Signal, stopSignals)
		}
		if len(r.Exec) > 0 {
			c.command("reload exec", r.Exec)
		}
		c.duration("reload timeout", r.Timeout, time.Millisecond)
	}
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
