package process

import (
	"net"
	"time"

	"github.com/waltos/waltos/supervisor/unit"
)

const (
	probeTimeout = 2 * time.Second
	firstProbe   = 20 * time.Millisecond
	slowestProbe = 500 * time.Millisecond
)

func (r *run) ready() {
	r.readied.Do(func() { r.report(unit.Event{Kind: unit.Ready}) })
}

// awaitReadiness reports readiness once what the unit's ready block says holds, or never
// when the main process ends first. The time limit is the manager's.
func (r *run) awaitReadiness(p *preparation) {
	want := r.unit.Ready
	var holds func() bool
	switch {
	case want.Notify: // said by the process itself
		return
	case want.TCP != "":
		holds = func() bool { return accepts("tcp", want.TCP) }
	case want.Unix != "":
		holds = func() bool { return accepts("unix", want.Unix) }
	case len(want.Exec) > 0:
		holds = func() bool { return r.succeeds(p, want.Exec) }
	default:
		if r.unit.Type == "service" {
			r.ready()
		}
		return
	}
	for pause := firstProbe; ; pause = min(2*pause, slowestProbe) {
		select {
		case <-r.ended:
			return
		case <-time.After(pause):
		}
		if holds() {
			r.ready()
			return
		}
	}
}

func accepts(network, address string) bool {
	conn, err := net.DialTimeout(network, address, probeTimeout)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// succeeds runs a readiness command beside the unit, as its user and in its group.
func (r *run) succeeds(p *preparation, command []string) bool {
	child, launched, err := r.start(p, command, probe)
	if err != nil || child == nil {
		return false
	}
	_ = launched.outcome() // its status says it too
	status := child.Wait()
	return status.Exited() && status.ExitStatus() == 0
}
