package screen

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/hinshun/vt10x"
	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/supervisor/journal"
	"github.com/waltos/waltos/supervisor/rescue"
	"github.com/waltos/waltos/supervisor/secureboot"
	"github.com/waltos/waltos/supervisor/unit"
)

// TestMain lets the tests run this program as the rescue shell.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == rescue.Name {
		os.Exit(rescue.Main(os.Args))
	}
	os.Exit(m.Run())
}

func example() View {
	now := time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)
	return View{
		Status: &control.Status{
			Name: "walt-server", Version: "10.0", Slot: "root-a", SecureBoot: secureboot.Setup, State: "degraded", Uptime: 62 * time.Minute,
			Clock: control.Clock{Now: now}, Data: control.Space{Size: 4 << 30, Free: 3 << 30},
			Units: []control.Unit{{Name: "a", Wanted: true, State: unit.Running}, {Name: "b", Wanted: true, State: unit.Failed}, {Name: "c", State: unit.Stopped}},
		},
		Addresses: []Address{{"walt-net", "192.168.152.1/24", false}, {"eth0", "10.0.2.15/24", true}, {"eth0", "fec0::1/64", true}},
		Failed: []control.Detail{{
			Unit: control.Unit{Name: "b", State: unit.Failed, Since: now, Reason: "exited with status 3"},
			Log:  []journal.Record{{Text: "the last\x1b[2J\u009b\u202e line"}},
		}},
	}
}

func text(lines []line) string {
	var out strings.Builder
	for _, l := range lines {
		out.WriteString(l.String() + "\n")
	}
	return out.String()
}

func TestScreenOfStatus(t *testing.T) {
	const want = ` WalT 10.0  walt-server

 State     degraded, 1 of 2 units are up; running for 1 hour
 Clock     2026-11-23 01:02 UTC, not synchronised
 Data      3072 MiB free of 4096 MiB
 Slot      root-a, Secure Boot: setup mode
 Addresses walt-net     192.168.152.1/24
           eth0         10.0.2.15/24
           eth0         fec0::1/64
 Clients   in ~/.walt/config:  walt: { server: 10.0.2.15 }

 b is failed since 01:02:03: exited with status 3
   | the last?[2J?? line

 L Logs  F Follow logs  N Network  S Shell  R Reboot  P Power off
`
	if got := text(example().lines(80, 15)); got != want {
		t.Errorf("%s", got)
	}
}

func TestScreenOfFailure(t *testing.T) {
	v := View{Failure: &Failure{
		What: "find root partition", Cause: "no partition root-a within 1m0s; disks seen: sda sdb " + strings.Repeat("and some more ", 5),
		Advice: "check that the disk is attached", Reboot: time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC),
	}}
	const want = ` WalT: the boot has FAILED

 Step      find root partition
 Cause
   no partition root-a within 1m0s; disks seen: sda sdb and some more and
   some more and some more and some more and some more 

 What to do
   check that the disk is attached

 The machine reboots at 01:02:03 unless a key is pressed.

 L Logs  S Shell  R Reboot  P Power off
`
	if got := text(v.lines(80, 13)); strings.ReplaceAll(got, " \n", "\n") != strings.ReplaceAll(want, " \n", "\n") {
		t.Errorf("%s", got)
	}
}

// TestAllSizes: a screen of any size has as many lines, none too long, and keeps the keys.
func TestAllSizes(t *testing.T) {
	v := example()
	v.Status.Refused = "Error: bad\n" + strings.Repeat("wide ", 50)
	for _, v := range []View{v, {}, {Failure: &Failure{Cause: strings.Repeat("x", 300)}}} {
		for width := 1; width < 120; width += 7 {
			for height := 1; height < 40; height++ {
				lines := v.lines(width, height)
				if len(lines) != height {
					t.Fatalf("%dx%d: %d lines", width, height, len(lines))
				}
				for _, l := range lines {
					if n := len([]rune(l.String())); n > width {
						t.Fatalf("%dx%d: a line of %d", width, height, n)
					}
				}
				if width > 10 && !strings.HasPrefix(lines[height-1].String(), " L Logs") {
					t.Fatalf("%dx%d: no keys", width, height)
				}
			}
		}
	}
}

func FuzzLines(f *testing.F) {
	f.Add("a\x1b[2Jb", "c\nd")
	f.Fuzz(func(t *testing.T, reason, log string) {
		v := example()
		v.Failed[0].Reason, v.Failed[0].Log[0].Text, v.Status.Refused, v.Trouble = reason, log, log, reason
		for _, l := range v.lines(80, 24) {
			for _, r := range l.String() {
				if r < ' ' || r >= 0x7f && r <= 0x9f {
					t.Fatalf("%q shows %q", reason+log, l.String())
				}
			}
		}
	})
}

// fake is the machine of these tests.
type fake struct {
	did      chan string
	password string
	log      []string
}

func (m *fake) Log(context.Context, int) ([]string, error) { return m.log, nil }
func (m *fake) Follow(ctx context.Context, each func(string)) error {
	each("followed\x1b[31m line")
	<-ctx.Done()
	return ctx.Err()
}
func (m *fake) Site() ([]byte, error) {
	return []byte("network \"walt-net\" {\n  ip = \"192.168.152.1/24\"\n}\n"), nil
}
func (m *fake) Configure(_ context.Context, text []byte) (string, error) {
	m.did <- "configure " + string(text)
	return "applied it", nil
}
func (m *fake) End(_ context.Context, what string) error { m.did <- what; return nil }
func (m *fake) Admit(password string) bool               { return password == m.password }

// seat is a person at a terminal: what the far end of a serial line shows, and its keys.
type seat struct {
	t      *testing.T
	master *os.File
	mu     sync.Mutex
	raw    []byte
	screen vt10x.Terminal // nil: it understands nothing
	grown  chan struct{}
}

// sit starts a console on a pseudo-terminal. A dumb terminal answers nothing.
func sit(t *testing.T, m Machine, dumb bool) *seat {
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	s := &seat{t: t, master: master, grown: make(chan struct{}, 1)}
	if !dumb {
		s.screen = vt10x.New(vt10x.WithWriter(master), vt10x.WithSize(100, 30))
	}
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			s.mu.Lock()
			s.raw = append(s.raw, buffer[:n]...)
			s.mu.Unlock()
			if s.screen != nil {
				_, _ = s.screen.Write(buffer[:n])
			}
			select {
			case s.grown <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	source := &Source{Failure: &Failure{What: "find root partition", Cause: "no disk", Advice: "attach it"}}
	st := &station{
		terminal: &Terminal{Path: slave.Name(), Serial: true}, machine: m, source: source, presence: &presence{},
		sizeTime: 200 * time.Millisecond, shell: "/nonexistent", self: executable(t),
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); st.serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		slave.Close()
		master.Close()
	})
	return s
}

func executable(t *testing.T) string {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *seat) shows() string {
	if s.screen != nil {
		return s.screen.String()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.raw)
}

// await waits until the terminal shows something.
func (s *seat) await(want string) {
	s.t.Helper()
	pattern := regexp.MustCompile(want)
	limit := time.After(time.Minute)
	for !pattern.MatchString(s.shows()) {
		select {
		case <-s.grown:
		case <-limit:
			s.t.Fatalf("%q did not come; the terminal shows\n%s", want, s.shows())
		}
	}
}

func (s *seat) keys(text string) {
	s.t.Helper()
	if _, err := s.master.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

func machine() *fake {
	m := &fake{did: make(chan string, 10)}
	for i := range 101 {
		m.log = append(m.log, fmt.Sprintf("line %d\x1b]0;evil\a\x1b[2J", i))
	}
	return m
}

func TestKeysOfTheScreen(t *testing.T) {
	m := machine()
	s := sit(t, m, false)
	s.await("press Enter")
	s.keys("\x00\xff\x1b[Zgarbage")
	s.keys("\r")
	s.await("the boot has FAILED")
	s.await("find root partition")
	s.await("S Shell")
	s.keys("\x1b[99;99~\x80\xff\x00\x1bOz\x1b[?1;2c\x1b]0;x\a\x07") // noise

	// The logs, backwards and forwards.
	s.keys("l")
	s.await(`line 100\?\]0;evil\?\?\[2J`)
	s.keys("g")
	s.await("line 0")
	s.keys("G")
	s.await("line 100")
	s.keys("q")
	s.await("the boot has FAILED")

	// An end must be meant.
	s.keys("rno\r")
	s.await("S Shell")
	s.keys("Ryes\r")
	if got := <-m.did; got != "reboot" {
		t.Error(got)
	}
	s.keys("pyes\r")
	if got := <-m.did; got != "poweroff" {
		t.Error(got)
	}

	// The shell that needs nothing, and back.
	s.keys("s")
	s.await("rescue:/.*# ")
	s.keys("echo $((40+2)) from the shell\r")
	s.await("42 from the shell")
	s.keys("exit\r")
	s.await("the boot has FAILED")
	s.keys("\x0c") // drawn again
	s.await("the boot has FAILED")
	s.keys("q")
	s.await("press Enter")
}

func TestKeysOfLines(t *testing.T) {
	m := machine()
	s := sit(t, m, true)
	s.await("press Enter")
	s.keys("\r")
	s.await("the boot has FAILED")
	s.await("walt> $")
	s.keys("l\r")
	s.await(`line 100\?\]0;evil`)
	s.keys("r\r")
	s.await("type yes: $")
	s.keys("yes\r")
	if got := <-m.did; got != "reboot" {
		t.Error(got)
	}
	s.keys("s\r")
	s.await("rescue:/.*# ")
	s.keys("echo $((40+2)) from the shell\r")
	s.await("42 from the shell")
	s.keys("exit\r")
	s.await(`(?s)exit.*walt> $`)
	if strings.Contains(s.shows(), "\x1b[2J") {
		t.Error("lines draw")
	}
	s.keys("q\r")
	s.await("(?s)press Enter.*press Enter")
}

func TestPassword(t *testing.T) {
	m := machine()
	m.password = "sesame"
	s := sit(t, m, false)
	s.await("press Enter")
	s.keys("\r")
	s.await("S Shell")
	s.keys("l")
	s.await("Password of the console:")
	s.keys("wrong\r")
	s.await("It is not this one.")
	if strings.Contains(s.shows(), "wrong") {
		t.Error("the password is shown")
	}
	s.keys("q")
	s.await("S Shell")
	s.keys("l")
	s.await("Password of the console:")
	s.keys("sesame\r")
	s.await("line 100")
}

// TestNetworkForm answers the questions of the form.
func TestNetworkForm(t *testing.T) {
	m := machine()
	f := &script{answers: map[string]string{
		"Interface of the platform": "eth1", "Address of the platform": "192.168.200.1/24", "Interface of the way out": "eth0",
		"Address of the way out": "10.0.0.5/24", "Gateway": "10.0.0.1", "To apply": "yes",
	}}
	c := &Console{Machine: m}
	if err := c.network(f); err != nil {
		t.Fatal(err)
	}
	got := <-m.did
	for _, part := range []string{`"192.168.200.1/24"`, `network "walt-out"`, `gateway   = "10.0.0.1"`} {
		if !strings.Contains(got, part) {
			t.Errorf("it lacks %s:\n%s", part, got)
		}
	}
	if shown := strings.Join(f.shown, "\n"); !strings.Contains(shown, `-  ip = "192.168.152.1/24"`) || !strings.Contains(shown, "applied it") {
		t.Errorf("%s", shown)
	}
	f.answers["Address of the platform"] = "192.168.200.0/24"
	if err := c.network(f); err == nil || !strings.Contains(err.Error(), "which is the address of the network itself") {
		t.Error(err)
	}
	f.answers["Address of the platform"], f.answers["To apply"] = "192.168.201.1/24", "no"
	if err := c.network(f); err != nil || len(m.did) != 0 {
		t.Errorf("%v, %d", err, len(m.did))
	}
}

// script is a face that answers by itself.
type script struct {
	answers map[string]string
	shown   []string
}

func (s *script) ask(question, proposal string) (string, bool) {
	for start, answer := range s.answers {
		if strings.HasPrefix(question, start) {
			return answer, true
		}
	}
	return proposal, true
}
func (s *script) secret(string) (string, bool)                                        { return "", false }
func (s *script) show(_ string, lines []string)                                       { s.shown = append(s.shown, lines...) }
func (s *script) follow(context.Context, string, func(context.Context, func(string))) {}
func (s *script) lend(func() error) error                                             { return errors.New("no terminal") }

func TestPresence(t *testing.T) {
	now := time.Now()
	p := &presence{}
	if p.gone(now.Add(time.Second), now) || !p.gone(now.Add(-time.Second), now) {
		t.Error("nobody came")
	}
	p.touch()
	if p.gone(now.Add(-time.Hour), time.Now()) || !p.gone(now, time.Now().Add(2*idleTime)) {
		t.Error("somebody was there")
	}
	p.use(1)
	if p.gone(now, time.Now().Add(2*idleTime)) {
		t.Error("a shell is in use")
	}
}

// TestOnlyChanges: what stays the same is not sent again, and a screen is sent as text.
func TestOnlyChanges(t *testing.T) {
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	terminal := &Terminal{Path: slave.Name(), Serial: true}
	if err := terminal.Open(); err != nil {
		t.Fatal(err)
	}
	screen, err := openScreen(terminal)
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Fini()
	sent := func() string {
		var all []byte
		buffer := make([]byte, 4096)
		// What is drawn is in the line when draw returns; a mark follows it.
		terminal.print("END")
		for !bytes.HasSuffix(all, []byte("END")) {
			n, err := master.Read(buffer)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, buffer[:n]...)
		}
		return string(all)
	}
	f := &full{screen: screen, view: example()}
	f.draw(f.view.lines)
	if first := sent(); !strings.Contains(first, ", 1 of 2 units are up; running for 1 hour") || strings.Contains(first, strings.Repeat(" ", 20)) {
		t.Errorf("%q", first)
	}
	f.draw(f.view.lines)
	if again := sent(); strings.ContainsAny(again, "WwuU") {
		t.Errorf("it was drawn again: %q", again)
	}
	f.view.Status.Slot = "root-b"
	f.draw(f.view.lines)
	if one := sent(); !strings.Contains(one, "b") || len(one) > 60 {
		t.Errorf("for one letter came %q", one)
	}
}

// TestNoise: bytes of all kinds on the line, without the letters that mean something, do
// nothing, and the console obeys afterwards.
func TestNoise(t *testing.T) {
	m := machine()
	s := sit(t, m, false)
	s.await("press Enter")
	s.keys("\r")
	s.await("S Shell")
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 1<<14)
	for i := range noise {
		for {
			noise[i] = byte(random.Uint32())
			if !bytes.ContainsAny(noise[i:i+1], "lLfFnNsSrRpPqQ") {
				break
			}
		}
	}
	if _, err := s.master.Write(noise); err != nil {
		t.Fatal(err)
	}
	// A person presses the key again until it is obeyed, after what ends a sequence.
	for !strings.Contains(s.shows(), "line 100") {
		s.keys("\x1b\\l")
		select {
		case <-s.grown:
		case <-time.After(100 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatalf("the console obeys no more; it shows\n%s", s.shows())
		}
	}
	if len(m.did) != 0 {
		t.Errorf("noise did %s", <-m.did)
	}
}
