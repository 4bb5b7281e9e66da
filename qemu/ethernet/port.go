package ethernet

import (
	"bufio"
	"net"
)

// queueLength is how many frames wait for a machine that does not read: some 1.5 MB
// of full frames, more than the bursts of a TCP transfer between two machines.
const queueLength = 1024

// Port is one connection to the switch.
type Port struct {
	name  string
	owner *Switch
	conn  net.Conn
	queue chan []byte   // frames to the machine
	done  chan struct{} // closed when the port is gone

	// Below: guarded by owner.mu.
	plugged  bool
	gone     bool
	counters Counters
}

// Counters tell what passed through a port.
type Counters struct {
	Name     string `json:"name"`
	Plugged  bool   `json:"plugged"`
	Received uint64 `json:"received"` // frames from the machine
	Sent     uint64 `json:"sent"`     // frames to the machine
	Dropped  uint64 `json:"dropped"`  // frames from an unplugged machine, or for one that does not read
}

// Name returns the name given to Attach.
func (p *Port) Name() string { return p.name }

// Plug plugs the cable of the port in or out. Frames are lost while it is out; the
// machine sees no change of its carrier.
func (p *Port) Plug(in bool) {
	p.owner.mu.Lock()
	defer p.owner.mu.Unlock()
	p.plugged = in
	if !in {
		p.owner.forget(p)
	}
}

// Counters returns what passed so far.
func (p *Port) Counters() Counters {
	p.owner.mu.Lock()
	defer p.owner.mu.Unlock()
	return p.snapshot()
}

// Done is closed once the port is gone: its connection ended or it was closed.
func (p *Port) Done() <-chan struct{} { return p.done }

// Close removes the port from the switch.
func (p *Port) Close() {
	p.owner.mu.Lock()
	defer p.owner.mu.Unlock()
	p.cut()
}

func (p *Port) snapshot() Counters {
	c := p.counters
	c.Name, c.Plugged = p.name, p.plugged
	return c
}

// cut removes the port; the caller holds owner.mu.
func (p *Port) cut() {
	if p.gone {
		return
	}
	p.gone, p.plugged = true, false
	p.owner.forget(p)
	delete(p.owner.ports, p.name)
	close(p.done)
	p.conn.Close()
}

func (p *Port) receive() {
	defer p.owner.running.Done()
	defer p.Close()
	r := bufio.NewReaderSize(p.conn, 64<<10)
	for {
		frame, err := ReadFrame(r)
		if err != nil {
			return // the machine ended, or it broke the framing: either way the port is of no more use
		}
		p.owner.forward(p, frame)
	}
}

func (p *Port) transmit() {
	defer p.owner.running.Done()
	defer p.Close()
	w := bufio.NewWriterSize(p.conn, 64<<10)
	for {
		select {
		case <-p.done:
			return
		case frame := <-p.queue:
			if err := WriteFrame(w, frame); err != nil {
				return
			}
		}
		if len(p.queue) == 0 {
			if err := w.Flush(); err != nil {
				return
			}
		}
	}
}
