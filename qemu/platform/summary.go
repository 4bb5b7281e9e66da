package platform

import (
	"context"
	"os"
	"time"
)

// Summary tells what a lab is made of and how it does.
type Summary struct {
	PID         int            `json:"pid"` // of the process that runs it
	Folder      string         `json:"folder"`
	Address     string         `json:"address"`
	Accelerator string         `json:"accelerator"`
	Since       time.Time      `json:"since"`
	Machines    []MachineState `json:"machines"`
}

// MachineState is a line of a Summary.
type MachineState struct {
	Name    string  `json:"name"`
	Kind    string  `json:"kind"`
	MAC     string  `json:"mac"`
	PID     int     `json:"pid"`
	State   string  `json:"state"`
	Took    float64 `json:"took"`            // seconds from power on to ready or booted; 0: not yet
	Known   string  `json:"known,omitempty"` // a node: its name on the platform
	IP      string  `json:"ip,omitempty"`
	Console string  `json:"console"` // file
}

// States of machines.
const (
	stateOff     = "off"
	stateFailed  = "failed"
	stateBooting = "booting"
	stateReady   = "ready"
	stateBooted  = "booted"
)

// Summary asks the server too, for a moment: without its answer, nodes count as
// booting.
func (l *Lab) Summary() Summary {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	known, _ := l.Inventory(ctx) // the nodes' state tells
	s := Summary{
		PID: os.Getpid(), Folder: l.options.Folder, Address: l.options.Address.String(),
		Accelerator: string(l.options.Accelerator), Since: l.begin,
	}
	for _, h := range l.Hosts() {
		s.Machines = append(s.Machines, l.state(h, known[h.MAC]))
	}
	return s
}

func (l *Lab) state(h *Host, known *Known) MachineState {
	l.mu.Lock()
	took := l.booted[h.Name]
	if h == l.Appliance {
		took = l.ready
	}
	l.mu.Unlock()
	state := MachineState{Name: h.Name, Kind: h.Kind, MAC: h.MAC, Took: took.Seconds(), Console: h.ConsoleFile(), State: stateBooting}
	if known != nil {
		state.Known, state.IP = known.Name, known.IP
	}
	switch {
	case !h.Running():
		state.State = stateOff
		return state
	case h.Console().Failure() != nil:
		state.State = stateFailed
	case h == l.Appliance && took > 0:
		state.State = stateReady
	case known != nil && known.Booted:
		state.State = stateBooted
	}
	state.PID = h.Machine().PID()
	return state
}
