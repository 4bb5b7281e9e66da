package tests

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waltos/waltos/services/wire/client"
)

// daemonProcesses are the units of the daemon.
var daemonProcesses = []string{"walt-server-blocking", "walt-server-db", "walt-server-hub", "walt-server-main"}

// load is what the first node and users do while the daemon is mistreated.
type load struct {
	*lab
	logger string // process on the node that sends its log stream
	end    func() // of the calls
	served atomic.Int64
	failed atomic.Int64
	hung   atomic.Pointer[error]
}

// perSecond is how many lines the node logs.
const perSecond = 50

// startLoad lets the node log without end, on one connection, and users call the API.
func (l *lab) startLoad() *load {
	l.t.Helper()
	l.walt("log", "add-checkpoint", "before-load")
	l.onNode(fmt.Sprintf(`trap "" HUP; ( i=0; while :; do n=0; while [ $n -lt %d ]; do echo "line $i"; i=$((i+1)); n=$((n+1)); done; sleep 1; done | walt-log-cat load.test ) </dev/null >/dev/null 2>&1 &`, perSecond))
	d := &load{lab: l}
	l.eventually("a log stream", func(ctx context.Context) error {
		pid, err := l.SSH(ctx, nodeShell(l.node().IP)+"pidof walt-log-cat")
		d.logger = strings.TrimSpace(pid)
		return err
	})
	ctx, cancel := context.WithCancel(l.t.Context())
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() { d.calls(ctx) })
	}
	d.end = func() { cancel(); users.Wait() }
	return d
}

// callLimit is what a call may take: longer, it hangs.
const callLimit = time.Minute

// calls makes calls until ctx ends. They may fail while a process is being restarted,
// but never hang.
func (d *load) calls(ctx context.Context) {
	for ctx.Err() == nil {
		within, cancel := context.WithTimeout(ctx, callLimit)
		err := d.session(within)
		if err != nil && ctx.Err() == nil {
			d.failed.Add(1)
			if within.Err() != nil {
				d.hung.CompareAndSwap(nil, &err)
			}
		}
		cancel()
		select { // the emulated processor has more to do than this
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (d *load) session(ctx context.Context) error {
	s, err := client.Dial(ctx, d.Endpoint(12345), client.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	for range 20 {
		if _, err := s.Call(ctx, "show_nodes", "user", true); err != nil {
			return err
		}
		d.served.Add(1)
	}
	return nil
}

// daemonIsHealthy checks that waltctl status shows all processes of the daemon running.
func (l *lab) daemonIsHealthy() {
	l.t.Helper()
	text := l.root("waltctl status")
	for _, name := range daemonProcesses {
		if !regexp.MustCompile(`(?m)^\s*` + name + `\s+running\s`).MatchString(text) {
			l.t.Errorf("waltctl status does not show %s running:\n%s", name, text)
		}
	}
}

// check ends the load: calls were served and none hung, and the log stream was not cut.
// lost bounds the lines that the kills may have cost.
func (d *load) check(lost int) {
	d.t.Helper()
	d.end()
	if hung := d.hung.Load(); hung != nil {
		d.t.Errorf("a call hung: %v", *hung)
	}
	if d.served.Load() == 0 {
		d.t.Error("no call was served under load")
	}
	if pid, err := d.SSH(d.t.Context(), nodeShell(d.node().IP)+"pidof walt-log-cat"); err != nil || strings.TrimSpace(pid) != d.logger {
		d.t.Errorf("the log stream of the node was cut: its process is %q, no more %q (%v)", pid, d.logger, err)
	}
	var text string
	d.eventually("the log of the load", func(ctx context.Context) error {
		var stderr string
		var err error
		text, stderr, _, err = d.Walt(ctx, "log", "show", "--history", "before-load:", "--nodes", d.node().Name, "--streams", "^load.test$", "--format", "{line}")
		if err != nil || stderr != "" || text == "" {
			return errors.Join(err, errors.New(stderr+" no line"))
		}
		return nil
	})
	d.onNode("kill " + d.logger)
	last, missing, repeated, count := -1, 0, 0, 0
	for line := range strings.Lines(text) {
		var number int
		if _, err := fmt.Sscanf(line, "line %d\n", &number); err != nil || number < last {
			d.t.Fatalf("after line %d of the load comes %q", last, line)
		}
		if number == last {
			repeated++ // stored before a kill, and again because nobody had said so
		} else {
			missing += number - last - 1
		}
		last = number
		count++
	}
	if missing > lost || repeated > lost {
		d.t.Errorf("of %d lines of the load %d are missing, %d repeated", last+1, missing, repeated)
	}
	d.t.Logf("under load: %d calls served, %d failed while processes were restarted; %d lines stored, %d lost, %d repeated",
		d.served.Load(), d.failed.Load(), count, missing, repeated)
	d.walt("log", "remove-checkpoint", "before-load")
}
