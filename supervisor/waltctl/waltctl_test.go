package waltctl

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/supervisor/cgroup"
	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/supervisor/journal"
	"github.com/waltos/waltos/supervisor/report"
	"github.com/waltos/waltos/supervisor/secureboot"
	"github.com/waltos/waltos/supervisor/unit"
	"github.com/waltos/waltos/supervisor/watchdog"
	"golang.org/x/crypto/bcrypt"
)

// machine is what the server of these tests stands for.
type machine struct {
	status  control.Status
	history *control.History
	did     chan string
}

func (m *machine) Status() control.Status { return m.status }

func (m *machine) Boot() control.Boot {
	b := control.Boot{
		Firmware: 2 * time.Second,
		Phases:   []report.Phase{{Name: "load drivers", Begin: 3 * time.Second, End: 4500 * time.Millisecond}},
		Units: []report.UnitBoot{
			{Name: "bad", Began: 6 * time.Second},
			{Name: "sshd", Began: 5500 * time.Millisecond, Ready: 6 * time.Second, After: []string{"net"}},
			{Name: "net", Began: 5 * time.Second, Ready: 5500 * time.Millisecond},
		},
		Ready: 7 * time.Second,
	}
	b.Critical = b.CriticalPath()
	return b
}

func (m *machine) Graph() []control.Node {
	return []control.Node{
		{Name: "bad", Type: "service", Needs: []string{"sshd"}},
		{Name: "sshd", Type: "service", Wants: []string{"net"}, After: []string{"net"}},
		{Name: "net", Type: "oneshot"},
		{Name: "web", Type: "service", Needs: []string{"sshd"}},
	}
}

func (m *machine) Unit(name string) (control.Detail, error) {
	for _, u := range m.status.Units {
		if u.Name == name {
			return control.Detail{
				Unit: u, Dependencies: control.Node{Name: name, Needs: []string{"net"}},
				Usage: cgroup.Usage{Memory: 3 << 20, MemoryPeak: 4 << 20, Tasks: 2, CPU: 1500 * time.Millisecond, Processes: []cgroup.Process{
					{PID: 77, Memory: 2 << 20, Command: "/usr/sbin/sshd -D"}, {PID: 80, Depth: 1, Memory: 1 << 20, Command: "sshd: \x1b[2Jroot"},
				}},
			}, nil
		}
	}
	return control.Detail{}, unit.ErrUnknown{Name: name}
}

func (m *machine) Change(what, name string) (<-chan struct{}, error) {
	m.did <- what + " " + name
	if _, err := m.Unit(name); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	if name == "slow" {
		return done, nil
	}
	m.history.Add(unit.Change{Unit: name, Old: unit.Running, New: unit.Stopping, Reason: "stopped by request", Time: time.Unix(1e9, 0), Took: time.Second})
	close(done)
	return done, nil
}

func (m *machine) Configure(_ context.Context, text []byte) (string, error) {
	if string(text) == "bad" {
		return "", errors.New("the site file is bad")
	}
	m.did <- "configure " + string(text)
	return "restarted all", nil
}

func (m *machine) Shutdown(what string) { m.did <- what }

func (m *machine) Watchdog(order string) (watchdog.Status, error) {
	m.did <- "watchdog " + order
	return watchdog.Status{State: watchdog.Armed, Device: "dog", Timeout: time.Minute}, nil
}

type desk struct {
	machine *machine
	journal *journal.Journal
	socket  string
	logs    string
}

func newDesk(t *testing.T) *desk {
	dir := t.TempDir()
	d := &desk{
		machine: &machine{did: make(chan string, 10), history: control.NewHistory(), status: control.Status{
			Slot: "root-a", SecureBoot: secureboot.Enabled, Clock: control.Clock{Now: time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)},
			Name: "walt-server", Version: "10.0", State: "degraded", Configuration: "the last good configuration",
			Refused: "Error: bad\n\n  on line 1", Uptime: 90 * time.Second,
			Data: control.Space{Size: 4 << 30, Free: 12 << 20},
			Units: []control.Unit{
				{Name: "bad", State: unit.Failed, Since: time.Now(), Reason: "exited with status 3", Restarts: 4},
				{Name: "sshd", State: unit.Running, Since: time.Now().Add(-time.Hour), PID: 77, Memory: 3 << 20, Status: "listening"},
				{Name: "slow", State: unit.Starting, Since: time.Now()},
				{Name: "job", State: unit.Scheduled, Since: time.Now(), Next: time.Date(2026, 11, 24, 3, 30, 0, 0, time.UTC), Reason: "the last run failed: exited with status 1"},
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
	server := &control.Server{Machine: d.machine, Planner: d.machine, Journal: d.journal, History: d.machine.history}
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
	status = d.tool(&o, &e).Main(context.Background(), args)
	return status, o.String(), e.String()
}

func (d *desk) tool(out, errs io.Writer) *Tool {
	return &Tool{Client: control.Client{Path: d.socket}, Journal: d.logs, In: strings.NewReader(""), Out: out, Errors: errs}
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
clock: 2026-11-23 01:02:03 UTC, not synchronised
slot: root-a; Secure Boot: enabled

UNIT  STATE      SINCE  PID  RESTARTS  MEMORY  REASON
bad   failed     0s     -    4         -       exited with status 3
sshd  running    1h00m  77   0         3.0M    listening
slow  starting   0s     -    0         -
job   scheduled  0s     -    0         -       next run at 2026-11-24 03:30; the last run failed: exited with status 1
`
	if status != 0 || out != want {
		t.Errorf("status %d:\n%s", status, out)
	}
	if status, out, _ := d.run("status", "sshd", "--json"); status != 0 || !strings.Contains(out, `"state": "running"`) || !strings.Contains(out, `"memory_peak": 4194304`) || strings.Contains(out, `"bad"`) {
		t.Errorf("status %d:\n%s", status, out)
	}
}

func TestStatusOfOne(t *testing.T) {
	d := newDesk(t)
	d.journal.Append("sshd", "hello\x1b]0;evil\a")
	status, out, _ := d.run("status", "sshd")
	for _, part := range []string{
		"running since", "says    listening", "needs   net", "memory  3.0M, at most 4.0M so far, no limit", "cpu     1.50 s",
		"  77  2.0M  /usr/sbin/sshd -D\n", "  80  1.0M    sshd: ?[2Jroot\n", " sshd: hello?]0;evil?\n",
	} {
		if status != 0 || !strings.Contains(out, part) {
			t.Errorf("status %d, it lacks %q:\n%s", status, part, out)
		}
	}
}

func TestBoot(t *testing.T) {
	d := newDesk(t)
	_, out, _ := d.run("boot")
	want := `   AT  TOOK  WHAT
-2.00  2.00  firmware and boot loader
 0.00  3.00  kernel
 3.00  1.50  load drivers
 5.00  0.50  unit net *
 5.50  0.50  unit sshd *
 6.00     -  unit bad
 7.00        all units had a result

* the critical path: net -> sshd
`
	if out != want {
		t.Errorf("%s", out)
	}
}

func TestGraph(t *testing.T) {
	d := newDesk(t)
	_, out, _ := d.run("graph")
	want := `bad (failed)
└─ needs sshd (running)
   └─ wants net ()
web ()
└─ needs sshd (running) …
`
	if out != want {
		t.Errorf("%s", out)
	}
	if _, out, _ := d.run("graph", "sshd"); out != "sshd (running)\n└─ wants net ()\n" {
		t.Errorf("%s", out)
	}
	if status, _, err := d.run("graph", "nobody"); status != exitFailed || !strings.Contains(err, "no unit is named") {
		t.Errorf("%d, %s", status, err)
	}
	if _, out, _ := d.run("graph", "--dot"); !strings.Contains(out, `"bad" -> "sshd" [style=solid];`) {
		t.Errorf("%s", out)
	}
}

// TestDrawings: both are XML that needs nothing else.
func TestDrawings(t *testing.T) {
	d := newDesk(t)
	for _, command := range []string{"boot", "graph"} {
		_, out, errs := d.run(command, "--svg")
		decoder, shapes := xml.NewDecoder(strings.NewReader(out)), 0
		for {
			token, err := decoder.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v: %s\n%s", command, err, errs, out)
			}
			if e, ok := token.(xml.StartElement); ok {
				if e.Name.Space != "http://www.w3.org/2000/svg" {
					t.Errorf("%s: element %v", command, e.Name)
				}
				if e.Name.Local == "rect" {
					shapes++
				}
				for _, a := range e.Attr {
					if strings.Contains(a.Name.Local, "href") || strings.Contains(a.Value, "NaN") {
						t.Errorf("%s: %v", command, a)
					}
				}
			}
		}
		if shapes < 5 {
			t.Errorf("%s: only %d shapes", command, shapes)
		}
	}
}

// TestJSON: what every command prints with --json is JSON.
func TestJSON(t *testing.T) {
	d := newDesk(t)
	d.journal.Append("sshd", "line")
	for _, command := range []string{"status", "status sshd", "boot", "graph", "restart sshd", "events", "logs", "logs --boots", "api"} {
		status, out, errs := d.run(append(strings.Fields(command), "--json")...)
		decoder, count := json.NewDecoder(strings.NewReader(out)), 0
		for ; ; count++ {
			var v any
			err := decoder.Decode(&v)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", command, err, out)
			}
		}
		if status != 0 || count == 0 {
			t.Errorf("%s: status %d, %s", command, status, errs)
		}
	}
}

func TestColors(t *testing.T) {
	d := newDesk(t)
	var out bytes.Buffer
	tool := d.tool(&out, io.Discard)
	tool.Color = true
	tool.Main(t.Context(), []string{"status"})
	if !strings.Contains(out.String(), "bad   \x1b[31mfailed\x1b[0m     0s") {
		t.Errorf("%q", out.String())
	}
}

func TestChanges(t *testing.T) {
	const hint = "\"waltctl help\" tells what there is, \"waltctl help COMMAND\" all of a command.\n"
	d := newDesk(t)
	for _, c := range []struct {
		args     string
		status   int
		did, err string
	}{
		{"restart sshd", 0, "restart sshd", ""},
		{"start bad", 1, "start bad", "waltctl: bad is failed: exited with status 3\n"},
		{"stop sshd", 1, "stop sshd", "waltctl: sshd is running\n"},
		{"restart slow --timeout 50ms", exitTimeout, "restart slow", "waltctl: cannot wait longer for slow to restart: context deadline exceeded\n"},
		{"restart slow --no-wait", 0, "restart slow", ""},
		{"restart nobody", 1, "restart nobody", "waltctl: no unit is named \"nobody\"\n"},
		{"poweroff", 0, "poweroff", ""},
		{"restart", 2, "", "waltctl: requires at least 1 arg(s), only received 0\n" + hint},
		{"explode", 2, "", "waltctl: unknown command \"explode\" for \"waltctl\"\n" + hint},
		{"logs nobody", 1, "", "waltctl: no unit is named \"nobody\"\n"},
		{"logs slow kernel supervisor", 0, "", ""}, // which have said nothing
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

func TestProgress(t *testing.T) {
	d := newDesk(t)
	status, out, _ := d.run("restart", "sshd")
	if status != 0 || !strings.HasSuffix(out, " sshd: running for 1.00 s -> stopping: stopped by request\nsshd is running\n") {
		t.Errorf("%d\n%s", status, out)
	}
	if _, out, _ := d.run("events", "sshd"); strings.Count(out, "\n") != 1 {
		t.Errorf("%s", out)
	}
}

func TestNoSupervisor(t *testing.T) {
	dir := t.TempDir()
	d := &desk{socket: filepath.Join(dir, "none"), logs: dir}
	for command, want := range map[string]int{"status": exitUnreachable, "restart x": exitUnreachable, "logs": 0, "status --bad": exitUsage} {
		if status, _, errs := d.run(strings.Fields(command)...); status != want {
			t.Errorf("%s: status %d, %s", command, status, errs)
		}
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
	err := d.tool(io.Discard, io.Discard).Client.Follow(t.Context(), func(first uint64) error {
		return d.tool(nil, nil).last(&selection{below: first, urgency: len(journal.Priorities)}, 0, check)
	}, check)
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}

// TestLogsSelect writes two boots and looks at parts of them.
func TestLogsSelect(t *testing.T) {
	d := newDesk(t)
	d.journal.AppendAt(time.Now().Add(-48*time.Hour), "a", "", "old a")
	d.journal.AppendAt(time.Now().Add(-47*time.Hour), "b", "err", "old bad b")
	d.journal.Close()
	d.journal = journal.New(journal.DefaultLimit)
	if err := d.journal.Attach(d.logs); err != nil {
		t.Fatal(err)
	}
	d.journal.Append("a", "<4>new a")
	d.journal.Append("b", "new b")
	if err := d.journal.Flush(); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"":               "old a|old bad b|new a|new b",
		"a":              "old a|new a",
		"a b -n 1":       "new b",
		"--since 1h":     "new a|new b",
		"--until 1d":     "old a|old bad b",
		"--boot":         "new a|new b",
		"--boot=-1":      "old a|old bad b",
		"--boot=1 b":     "old bad b",
		"-p err":         "old bad b",
		"-p warning":     "old bad b|new a",
		"--grep bad|new": "old bad b|new a|new b",
	} {
		status, out, errs := d.run(append([]string{"logs"}, strings.Fields(args)...)...)
		var texts []string
		for line := range strings.Lines(out) {
			_, text, _ := strings.Cut(strings.TrimSpace(line), ": ")
			texts = append(texts, text)
		}
		if got := strings.Join(texts, "|"); status != 0 || got != want {
			t.Errorf("logs %s: %d, %s, want %s; %s", args, status, got, want, errs)
		}
	}
	for args, want := range map[string]string{
		"--boot=7": "does not go back to boot 7", "--boot=-2": "does not go back", "--since noon": "is no time",
		"-p loud": "no priority is named", "--grep (": "cannot search",
	} {
		if status, _, errs := d.run(append([]string{"logs"}, strings.Fields(args)...)...); status != exitFailed || !strings.Contains(errs, want) {
			t.Errorf("logs %s: %d, %s", args, status, errs)
		}
	}
	if _, out, _ := d.run("logs", "--boots"); strings.Count(out, "\n") != 3 {
		t.Errorf("%s", out)
	}
}

func TestMoment(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"10m": "2026-11-23 11:50:00", "3d": "2026-11-20 12:00:00", "09:30": "2026-11-23 09:30:00", "2026-11-01": "2026-11-01 00:00:00",
		"2026-11-01 08:00:05": "2026-11-01 08:00:05", "2026-11-01T08:00:05Z": "2026-11-01 08:00:05",
	} {
		if got, err := moment(text, now); err != nil || got.Format(time.DateTime) != want {
			t.Errorf("%s is %v, %v", text, got, err)
		}
	}
}

func TestConfigure(t *testing.T) {
	d := newDesk(t)
	file := filepath.Join(t.TempDir(), "walt.hcl")
	const good = "network \"walt-net\" {\n  ip = \"192.168.152.1/24\"\n}\n"
	if err := os.WriteFile(file, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, out, errs := d.run("configure", file); status != exitFailed || !strings.Contains(out, "+network \"walt-net\" {") || !strings.Contains(errs, "nothing is changed") {
		t.Errorf("%d\n%s%s", status, out, errs)
	}
	status, out, errs := d.run("configure", file, "--yes")
	if status != 0 || !strings.HasSuffix(out, "restarted all\n") {
		t.Errorf("%d\n%s%s", status, out, errs)
	}
	if got := <-d.machine.did; got != "configure "+good {
		t.Error(got)
	}
	if err := os.WriteFile(file, []byte("network {"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := d.run("configure", file, "--yes"); status != exitFailed || !strings.Contains(errs, "walt.hcl") {
		t.Errorf("%d %s", status, errs)
	}
}

func TestPassword(t *testing.T) {
	var out, errs bytes.Buffer
	tool := &Tool{In: strings.NewReader("open sesame\n"), Out: &out, Errors: &errs}
	if status := tool.Main(t.Context(), []string{"password"}); status != 0 {
		t.Fatal(errs.String())
	}
	text := "network \"walt-net\" {\n  ip = \"192.168.152.1/24\"\n}\n" + out.String()
	site, err := hcl.ParseSite([]byte(text), "walt.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if bcrypt.CompareHashAndPassword([]byte(site.Console.PasswordHash), []byte("open sesame")) != nil {
		t.Error(site.Console.PasswordHash)
	}
	for _, password := range []string{"\n", "é\n", ""} {
		tool.In = strings.NewReader(password)
		if status := tool.Main(t.Context(), []string{"password"}); status != exitFailed {
			t.Errorf("the password %q was taken", password)
		}
	}
}

// TestSupport opens the bundle with tar, and looks for a secret that a unit has said.
func TestSupport(t *testing.T) {
	d := newDesk(t)
	d.journal.Append("sshd", `connecting with password="hunter2Zebra" to postgres://walt:hunter2Zebra@db`)
	d.journal.Append("sshd", "an innocent line")
	file := filepath.Join(t.TempDir(), "support.tar.gz")
	if status, _, errs := d.run("support", "-o", file); status != 0 {
		t.Fatal(errs)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-xzf", file, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, part := range map[string]string{
		"status.txt": "UNIT  STATE", "status.json": `"units"`, "boot.svg": "<svg", "graph.dot": "digraph", "journal.jsonl": "an innocent line",
		"units.json": `"sshd"`, "files/proc/version": "Linux", "boots.txt": "BOOT",
	} {
		text, err := os.ReadFile(filepath.Join(dir, "walt-support", name))
		if err != nil || !strings.Contains(string(text), part) {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), "hunter2Zebra") {
			t.Errorf("%s holds the secret", path)
		}
		if len(text) > maxItem+1024 {
			t.Errorf("%s has %d bytes", path, len(text))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if status, _, _ := d.run("support", "-o", file); status != exitFailed {
		t.Error("a file was overwritten")
	}
}

// TestCompletion has the real bash complete, without the package bash-completion.
func TestCompletion(t *testing.T) {
	if socket := os.Getenv("WALT_TEST_COMPLETION"); socket != "" {
		tool := &Tool{Client: control.Client{Path: socket}, Out: os.Stdout, Errors: os.Stderr}
		os.Exit(tool.Main(t.Context(), strings.Split(os.Getenv("WALT_TEST_ARGS"), "\x1f")))
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not here")
	}
	d := newDesk(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program := "#!/bin/bash\nIFS=$'\\x1f'; WALT_TEST_COMPLETION=" + d.socket + " WALT_TEST_ARGS=\"$*\" exec " + self + " -test.run '^TestCompletion$'\n"
	if err := os.WriteFile(filepath.Join(dir, "waltctl"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	profile, err := filepath.Abs("../../image/root/etc/profile")
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"waltctl sta":         "start|status",
		"waltctl restart ss":  "sshd",
		"waltctl logs -p ":    "alert|crit|debug|emerg|err|info|notice|warning",
		"waltctl completion ": "bash|fish|zsh",
		"waltctl status b":    "bad",
	} {
		// As the shell of the appliance has it: the first Tab reads the script.
		script := fmt.Sprintf(`PS1=x; source %s; PATH=%s:$PATH
COMP_LINE=%q; COMP_POINT=${#COMP_LINE}; read -ra COMP_WORDS <<<"$COMP_LINE"
[[ $COMP_LINE == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_TYPE=9; COMP_KEY=9
_waltctl_later; [ $? = 124 ] || echo no retry
function=$(complete -p waltctl | sed 's/.* -F \([^ ]*\) .*/\1/')
compopt() { :; }
$function waltctl "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%%s\n' "${COMPREPLY[@]}"`, profile, dir, line)
		out, err := exec.Command(bash, "--norc", "-c", script).CombinedOutput()
		var found []string
		for reply := range strings.Lines(string(out)) {
			if fields := strings.Fields(reply); len(fields) > 0 {
				found = append(found, fields[0])
			}
		}
		slices.Sort(found)
		if got := strings.Join(found, "|"); err != nil || got != want {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
	for _, shell := range []string{"zsh", "fish"} {
		if status, out, _ := d.run("completion", shell); status != 0 || !strings.Contains(out, "waltctl") {
			t.Errorf("%s: %d", shell, status)
		}
	}
}
