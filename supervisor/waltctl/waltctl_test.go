package waltctl

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/supervisor/journal"
	"github.com/waltos/waltos/supervisor/report"
	"github.com/waltos/waltos/supervisor/unit"
)

// machine is what the server of these tests stands for.
type machine struct {
	status control.Status
	did    chan string
}

func (m *machine) Status() control.Status { return m.status }

func (m *machine) Boot() control.Boot {
	return control.Boot{
		Phases: []report.Phase{{Name: "load drivers", Begin: 3 * time.Second, End: 4500 * time.Millisecond}},
		Units:  []control.UnitBoot{{Name: "sshd", Began: 5 * time.Second, Ready: 6 * time.Second}, {Name: "bad", Began: 5 * time.Second}},
		Ready:  7 * time.Second,
	}
}

func (m *machine) Change(what, name string, _ <-chan struct{}) (control.Unit, error) {
	m.did <- what + " " + name
	if name == "nobody" {
		return control.Unit{}, unit.ErrUnknown{Name: name}
	}
	for _, u := range m.status.Units {
		if u.Name == name {
			return u, nil
		}
	}
	return control.Unit{}, errors.New("not in this test")
}

func (m *machine) Shutdown(what string) { m.did <- what }

type desk struct {
	machine *machine
	journal *journal.Journal
	socket  string
	logs    string
}

func newDesk(t *testing.T) *desk {
	dir := t.TempDir()
	d := &desk{
		machine: &machine{did: make(chan string, 10), status: control.Status{
			Name: "walt-server", Version: "10.0", State: "degraded", Configuration: "the last good configuration",
			Refused: "Error: bad\n\n  on line 1", Uptime: 90 * time.Second,
			Data: control.Space{Size: 4 << 30, Free: 12 << 20},
			Units: []control.Unit{
				{Name: "bad", State: unit.Failed, Since: time.Now(), Reason: "exited with status 3", Restarts: 4},
				{Name: "sshd", State: unit.Running, Since: time.Now().Add(-time.Hour), PID: 77, Memory: 3 << 20, Status: "listening"},
			},
		}},
		journal: journal.New(journal.DefaultLimit), socket: filepath.Join(dir, "control.sock"), logs: filepath.Join(dir, "journal"),
	}
	if err := d.journal.Attach(d.logs); err != nil {
		t.Fatal(err)
	}
	ln, err := control.Listen(d.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &control.Server{Machine: d.machine, Journal: d.journal}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	t.Cleanup(func() {
		ln.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		d.journal.Close()
	})
	return d
}

func (d *desk) run(args ...string) (status int, out, err string) {
	var o, e bytes.Buffer
	status = Main(d.socket, d.logs, args, &o, &e)
	return status, o.String(), e.String()
}

func TestStatus(t *testing.T) {
	d := newDesk(t)
	status, out, _ := d.run("status")
	want := `walt-server: WalT 10.0, degraded, up 1m30s
configuration: the last good configuration
REFUSED configuration:
  Error: bad
  
    on line 1
data partition: 12M free of 4096M: FULL, nothing new is stored

UNIT  STATE    SINCE  PID  RESTARTS  MEMORY  REASON
bad   failed   0s     -    4         -       exited with status 3
sshd  running  1h00m  77   0         3.0M    listening
`
	if status != 0 || out != want {
		t.Errorf("status %d:\n%s", status, out)
	}
	if status, out, _ := d.run("status", "sshd", "--json"); status != 0 || !strings.Contains(out, `"state": "running"`) || strings.Contains(out, `"bad"`) {
		t.Errorf("status %d:\n%s", status, out)
	}
}

func TestBoot(t *testing.T) {
	d := newDesk(t)
	_, out, _ := d.run("boot")
	want := "    AT  TOOK  WHAT\n  0.00  3.00  kernel\n  3.00  1.50  load drivers\n  5.00  1.00  unit sshd\n  5.00     -  unit bad\n  7.00        all units had a result\n"
	if out != want {
		t.Errorf("%s", out)
	}
}

func TestChanges(t *testing.T) {
	d := newDesk(t)
	for _, c := range []struct {
		args     string
		status   int
		did, err string
	}{
		{"restart sshd", 0, "restart sshd", ""},
		{"start bad", 1, "start bad", "waltctl: bad is failed: exited with status 3\n"},
		{"stop sshd", 1, "stop sshd", "waltctl: sshd is running: \n"},
		{"restart nobody", 1, "restart nobody", "waltctl: no unit is named \"nobody\"\n"},
		{"poweroff", 0, "poweroff", ""},
		{"restart", 2, "", "waltctl: accepts 1 arg(s), received 0\n"},
		{"explode", 2, "", "waltctl: unknown command \"explode\" for \"waltctl\"\n"},
		{"status nobody", 1, "", "waltctl: no unit is named \"nobody\"\n"},
	} {
		status, _, err := d.run(strings.Fields(c.args)...)
		if status != c.status || err != c.err {
			t.Errorf("%s: status %d, %q", c.args, status, err)
		}
		if c.did != "" {
			if got := <-d.machine.did; got != c.did {
				t.Errorf("%s: did %s", c.args, got)
			}
		}
	}
}

func TestNoSupervisor(t *testing.T) {
	var out, errs bytes.Buffer
	if status := Main(filepath.Join(t.TempDir(), "none"), t.TempDir(), []string{"status"}, &out, &errs); status != 1 {
		t.Errorf("status %d, %s", status, errs.String())
	}
}

func TestLogs(t *testing.T) {
	d := newDesk(t)
	for _, text := range []string{"one", "two", "three"} {
		d.journal.Append("a", text)
		d.journal.Append("b", "other")
	}
	_, out, _ := d.run("logs", "a", "-n", "2")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 2 || !strings.HasSuffix(lines[0], " a: two") || !strings.HasSuffix(lines[1], " a: three") {
		t.Errorf("%s", out)
	}
	if _, out, _ := d.run("logs", "-n", "0", "--json"); strings.Count(out, "\n") != 6 {
		t.Errorf("%s", out)
	}
}

// TestFollowMissesNothing: records before and after the subscription come once each, in
// order, while they are being written.
func TestFollowMissesNothing(t *testing.T) {
	d := newDesk(t)
	const count = 500
	writing, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		for range count {
			if writing.Err() != nil {
				return
			}
			d.journal.Append("a", "line")
		}
	}()
	enough := errors.New("enough")
	next := uint64(1)
	check := func(r journal.Record) error {
		if r.Number != next {
			t.Errorf("record %d, want %d", r.Number, next)
			return enough
		}
		if next++; next > count {
			return enough
		}
		return nil
	}
	err := control.Follow(d.socket, func(first uint64) error { return last(d.logs, "", first, 0, check) }, check)
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}
