package system

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/atomicfile"
	"github.com/waltos/waltos/supervisor/boot"
	"github.com/waltos/waltos/supervisor/cgroup"
	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/supervisor/report"
	"github.com/waltos/waltos/supervisor/security"
	"github.com/waltos/waltos/supervisor/unit"
	"golang.org/x/sys/unix"
)

// Status implements control.Machine.
func (s *system) Status() control.Status {
	all := s.manager.Snapshot()
	s.mu.Lock()
	state, _ := s.state(all, !s.everSaid)
	site, secureBoot := s.site, s.secureBoot
	s.mu.Unlock()
	host, err := os.Hostname()
	if err != nil {
		host = "?"
	}
	slot, _ := boot.Parameter("walt.root")
	status := control.Status{
		Name: host, Version: cmp.Or(identity().Version, "?"), Slot: slot, SecureBoot: secureBoot, Configuration: site.Source, Refused: site.Refused,
		State: state, Uptime: report.Uptime(), Clock: synchronised(), Data: dataSpace(), Watchdog: s.watchdog.Status(),
	}
	for _, u := range all {
		status.Units = append(status.Units, s.describe(u))
	}
	return status
}

func (s *system) describe(u unit.Snapshot) control.Unit {
	return control.Unit{
		Name: u.Name, Description: u.Description, Type: u.Type, State: u.State, Wanted: u.Wanted, Since: u.Since,
		PID: u.PID, Restarts: u.Restarts, Memory: s.launcher.Memory(u.Name), Stored: s.launcher.Stored(u.Name),
		Reason: u.Reason, Status: u.Status, Next: u.Next,
	}
}

// synchronised asks the kernel; the state of adjtimex(2) is what chrony told it.
func synchronised() control.Clock {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return control.Clock{Now: time.Now(), Synchronised: err == nil && state != unix.TIME_ERROR}
}

// appliance is what the builder wrote of the image.
type appliance struct {
	Version string `json:"version"`
	Time    string `json:"time"` // RFC 3339
}

// identity of the image; empty if it cannot be read.
func identity() (a appliance) {
	text, err := os.ReadFile(identityFile)
	if err != nil || json.Unmarshal(text, &a) != nil {
		return appliance{}
	}
	return a
}

// Unit implements control.Machine.
func (s *system) Unit(name string) (control.Detail, error) {
	u, ok := s.find(name)
	if !ok {
		return control.Detail{}, unit.ErrUnknown{Name: name}
	}
	graph := s.Graph()
	node := graph[slices.IndexFunc(graph, func(n control.Node) bool { return n.Name == name })]
	return control.Detail{Unit: s.describe(u), Dependencies: node, Usage: cgroup.Look(s.cgroups, name)}, nil
}

// Graph implements control.Machine.
func (s *system) Graph() []control.Node {
	var nodes []control.Node
	for _, u := range s.manager.Snapshot() {
		nodes = append(nodes, control.Node{Name: u.Name, Type: u.Type, Needs: u.Needs, Wants: u.Wants, After: u.After, Binds: u.Binds})
	}
	return nodes
}

// Security implements control.Machine.
func (s *system) Security() []security.Report {
	look := security.Config{Proc: "/proc", Cgroups: s.cgroups, RunDir: runFolderOfUnits, StateDir: stateFolderOfUnits}
	var list []security.Report
	for _, u := range s.manager.Snapshot() {
		if u.Type == "group" {
			continue
		}
		r := look.Look(u.Definition, u.PID)
		r.Refused = s.refusals.Of(u.Name)
		list = append(list, r)
	}
	return list
}

// Boot implements control.Machine.
func (s *system) Boot() control.Boot {
	s.mu.Lock()
	b := control.Boot{Firmware: report.FirmwareTime(), Phases: s.report.Phases(), Ready: s.ready}
	s.mu.Unlock()
	booted := time.Now().Add(-report.Uptime())
	for _, u := range s.manager.Snapshot() {
		if u.Began.IsZero() {
			continue
		}
		ub := report.UnitBoot{Name: u.Name, Began: u.Began.Sub(booted), After: slices.Concat(u.Needs, u.Binds, u.Wants, u.After)}
		if !u.Ready.IsZero() {
			ub.Ready = u.Ready.Sub(booted)
		}
		b.Units = append(b.Units, ub)
	}
	b.Critical = b.CriticalPath()
	return b
}

// Change implements control.Machine.
func (s *system) Change(what, name string) (<-chan struct{}, error) {
	order := map[string]func(string) error{
		"start": s.manager.Start, "stop": s.manager.Stop, "restart": s.manager.Restart, "reload": s.manager.Reload,
	}[what]
	if order == nil {
		return nil, fmt.Errorf("no order is named %q", what)
	}
	if err := order(name); err != nil {
		return nil, err
	}
	return s.manager.When(func(all []unit.Snapshot) bool {
		for _, u := range all {
			if u.Name == name {
				return u.Settled && u.Wanted && u.State != unit.Reloading || !u.Active && !u.Wanted
			}
		}
		return true
	}), nil
}

// followers are the units that read the site file.
var followers = []string{"walt-server-netconfig", "chrony", "walt-server"}

// Configure implements control.Machine. What the supervisor applies itself is in effect at
// once; units that read the site file are restarted, which no node notices.
func (s *system) Configure(ctx context.Context, text []byte) (string, error) {
	if _, err := hcl.ParseSite(text, hcl.SitePath); err != nil {
		return "", err
	}
	s.configuring.Lock()
	defer s.configuring.Unlock()
	if err := atomicfile.Write(hcl.SitePath, text, 0o600); err != nil {
		return "", fmt.Errorf("cannot write the configuration: %w", err)
	}
	if err := s.configure(); err != nil {
		return "", err
	}
	for _, name := range followers {
		done, err := s.Change("restart", name)
		if err != nil {
			return "", err
		}
		select {
		case <-done:
		case <-ctx.Done():
			return "", fmt.Errorf("cannot wait for the restart of %s: %w", name, ctx.Err())
		}
	}
	return "In effect: " + hcl.SitePath + "\nRestarted: " + strings.Join(followers, ", "), nil
}

// Shutdown implements control.Machine. The first order counts.
func (s *system) Shutdown(what string) {
	select {
	case s.shutdown <- what:
	default:
	}
}
