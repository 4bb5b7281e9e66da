package machine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
)

const maxMessage = 1 << 20 // one message of QEMU

var errMonitorClosed = errors.New("the machine has ended")

// Monitor speaks QMP, the control protocol of QEMU (docs/interop/qmp-spec): JSON
// objects, one a line. Commands are answered in any order; events are handed out.
type Monitor struct {
	conn   net.Conn
	events func(event string)

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan message
	err     error
	done    chan struct{}
}

// message is anything QEMU sends.
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	ID       uint64          `json:"id"`
	Return   json.RawMessage `json:"return"`
	Event    string          `json:"event"`
	Error    *struct {
		Description string `json:"desc"`
	} `json:"error"`
}

type request struct {
	Execute   string `json:"execute"`
	Arguments any    `json:"arguments,omitempty"`
	ID        uint64 `json:"id"`
}

// NewMonitor takes over a connection to a QMP server and negotiates. The events
// function is called with the name of each event, in order, and must not block.
func NewMonitor(ctx context.Context, conn net.Conn, events func(event string)) (*Monitor, error) {
	m := &Monitor{conn: conn, events: events, waiting: map[uint64]chan message{}, done: make(chan struct{})}
	go m.run()
	if err := m.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		conn.Close()
		return nil, err
	}
	return m, nil
}

// Execute runs a command and decodes its result, unless that is nil.
func (m *Monitor) Execute(ctx context.Context, command string, arguments, result any) error {
	fail := func(err error) error { return fmt.Errorf("cannot execute QMP command %s: %w", command, err) }
	answer := make(chan message, 1)
	m.mu.Lock()
	if m.err != nil {
		m.mu.Unlock()
		return fail(m.err)
	}
	m.last++
	id := m.last
	line, err := json.Marshal(request{Execute: command, Arguments: arguments, ID: id})
	if err == nil {
		m.waiting[id] = answer
		// QEMU reads its monitor at all times but during a command, and those
		// that wait here are few and short: a write fits the socket's buffer.
		_, err = m.conn.Write(append(line, '\n'))
	}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.waiting, id)
		m.mu.Unlock()
	}()
	if err != nil {
		return fail(err)
	}
	select {
	case <-ctx.Done():
		return fail(context.Cause(ctx))
	case <-m.done:
		select { // the answer may have come just before the end
		case got := <-answer:
			return decode(got, result, fail)
		default:
			return fail(m.err)
		}
	case got := <-answer:
		return decode(got, result, fail)
	}
}

func decode(got message, result any, fail func(error) error) error {
	if got.Error != nil {
		return fail(errors.New(got.Error.Description))
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(got.Return, result); err != nil {
		return fail(err)
	}
	return nil
}

// Human runs a command of the human monitor, those that QMP has no equal for.
func (m *Monitor) Human(ctx context.Context, command string) (string, error) {
	var text string
	if err := m.Execute(ctx, "human-monitor-command", map[string]string{"command-line": command}, &text); err != nil {
		return "", err
	}
	if strings.HasPrefix(text, "Error") {
		return text, fmt.Errorf("cannot execute monitor command %q: %s", command, strings.TrimSpace(text))
	}
	return text, nil
}

func (m *Monitor) run() {
	defer close(m.done)
	defer m.conn.Close()
	lines := bufio.NewScanner(m.conn)
	lines.Buffer(make([]byte, 0, 4096), maxMessage)
	for lines.Scan() {
		var got message
		if err := json.Unmarshal(lines.Bytes(), &got); err != nil {
			m.end(fmt.Errorf("cannot read the QMP monitor: %w", err))
			return
		}
		switch {
		case got.Event != "":
			m.events(got.Event)
		case got.Return != nil || got.Error != nil:
			m.mu.Lock()
			if answer := m.waiting[got.ID]; answer != nil {
				delete(m.waiting, got.ID)
				answer <- got
			}
			m.mu.Unlock()
		}
	}
	err := lines.Err()
	if err == nil {
		err = errMonitorClosed
	}
	m.end(err)
}

func (m *Monitor) end(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}
