package watchdog

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fake is a device that resets the machine when it is not fed for its time.
type fake struct {
	fed      time.Time
	disarmed bool
	now      *time.Time
	refuse   error
}

func (d *fake) Name() string           { return "fake" }
func (d *fake) Timeout() time.Duration { return time.Minute }

func (d *fake) Feed() error {
	if d.refuse == nil {
		d.fed = *d.now
	}
	return d.refuse
}

func (d *fake) Disarm() error {
	d.disarmed = true
	return nil
}

// room is a guard with its surroundings.
type room struct {
	*Guard
	now     time.Time
	device  *fake // nil: none is there
	missing string
	said    []string
}

var usual = Settings{Enabled: true, Timeout: time.Minute, Grace: 10 * time.Minute}

func newRoom() *room {
	r := &room{now: time.Unix(1e9, 0)}
	r.device = &fake{now: &r.now}
	r.Guard = New(Config{
		Open: func(time.Duration) (Device, error) {
			if r.device == nil {
				return nil, fmt.Errorf("no watchdog: %w", fs.ErrNotExist)
			}
			*r.device = fake{now: r.device.now, fed: r.now, refuse: r.device.refuse}
			return r.device, nil
		},
		Goal: func() string { return r.missing },
		Say:  func(format string, args ...any) { r.said = append(r.said, fmt.Sprintf(format, args...)) },
	})
	return r
}

// pass lets time pass as Run would, and tells whether the machine was reset.
func (r *room) pass(d time.Duration) (reset bool) {
	for end := r.now.Add(d); r.now.Before(end); {
		r.now = r.now.Add(r.Period())
		r.Look(r.now)
		if r.device != nil && !r.device.disarmed && !r.device.fed.IsZero() && r.now.Sub(r.device.fed) >= r.device.Timeout() {
			return true
		}
	}
	return false
}

func (r *room) want(t *testing.T, state State) {
	t.Helper()
	if got := r.Status().State; got != state {
		t.Fatalf("it is %s, not %s; %q", got, state, r.said)
	}
}

func TestGoalFails(t *testing.T) {
	r := newRoom()
	r.Configure(usual)
	if r.pass(time.Hour) {
		t.Fatal("a healthy machine was reset")
	}
	r.want(t, Armed)
	r.missing = "walt-server-main is failed"
	if r.pass(5 * time.Minute) {
		t.Fatal("there was no grace")
	}
	r.want(t, Grace)
	if s := r.Status(); s.Left > 5*time.Minute+slowest || s.Left < 4*time.Minute || s.Why != r.missing {
		t.Errorf("%+v", s)
	}
	r.missing = ""
	r.pass(time.Second)
	r.want(t, Armed)
	// It fails for too long.
	r.missing = "walt-server-main is failed"
	began := r.now
	if !r.pass(time.Hour) {
		t.Fatal("the machine was not reset")
	}
	r.want(t, Starving)
	if took := r.now.Sub(began); took < 10*time.Minute || took > 12*time.Minute {
		t.Errorf("reset after %v", took)
	}
	if !strings.Contains(strings.Join(r.said, "\n"), "walt-server-main is failed; `waltctl watchdog off`") {
		t.Errorf("it says %q", r.said)
	}
}

func TestRescuedAtTheLastMoment(t *testing.T) {
	r := newRoom()
	r.Configure(usual)
	r.pass(time.Second)
	r.missing = "x"
	r.pass(10*time.Minute + 20*time.Second)
	r.want(t, Starving)
	r.missing = ""
	if r.pass(time.Hour) {
		t.Error("reset although the goal holds again")
	}
	r.want(t, Armed)
}

func TestMaintenance(t *testing.T) {
	r := newRoom()
	r.Configure(usual)
	r.pass(time.Second)
	r.missing = "x"
	r.pass(10*time.Minute + 20*time.Second)
	if err := r.Suspend(); err != nil || !r.device.disarmed {
		t.Fatalf("%v, disarmed %v", err, r.device.disarmed)
	}
	if r.pass(time.Hour) {
		t.Error("reset during maintenance")
	}
	r.Configure(Settings{Enabled: true, Timeout: 20 * time.Second, Grace: time.Minute})
	r.want(t, Suspended)
	if err := r.Resume(); err != nil {
		t.Fatal(err)
	}
	r.want(t, Armed)
	if !r.pass(time.Hour) {
		t.Error("no reset after maintenance")
	}
}

func TestConfiguration(t *testing.T) {
	r := newRoom()
	r.pass(time.Minute)
	r.want(t, Off)
	r.Configure(usual)
	r.pass(time.Second)
	r.Configure(Settings{})
	if r.want(t, Off); !r.device.disarmed {
		t.Error("disabled, but armed")
	}
	if err := r.Suspend(); err != nil {
		t.Error(err)
	}
	if err := r.Resume(); err == nil {
		t.Error("resumed although it is disabled")
	}
}

func TestNoDevice(t *testing.T) {
	r := newRoom()
	device := r.device
	r.device = nil
	r.Configure(usual)
	r.pass(time.Minute)
	r.want(t, Absent)
	if len(r.said) != 0 {
		t.Errorf("it says %q", r.said)
	}
	if err := r.Suspend(); err != nil {
		t.Error(err)
	}
	if err := r.Resume(); err == nil {
		t.Error("resumed without a device")
	}
	r.device = device
	r.pass(time.Second)
	r.want(t, Armed)
	device.refuse = errors.New("broken")
	r.pass(time.Hour)
	if n := strings.Count(strings.Join(r.said, "\n"), "broken"); n != 1 {
		t.Errorf("a broken device was told %d times", n)
	}
}

func TestEnd(t *testing.T) {
	r := newRoom()
	r.Configure(usual)
	r.pass(time.Second)
	r.missing = "all units are stopped"
	r.End(r.now, 3*time.Minute)
	if r.pass(2 * time.Minute) {
		t.Error("reset while the units stop in order")
	}
	if err := r.Suspend(); err == nil {
		t.Error("suspended at the end")
	}
	r.Release()
	if !r.device.disarmed || r.pass(time.Hour) {
		t.Error("armed after the end")
	}
	// An end that hangs is ended.
	r = newRoom()
	r.Configure(usual)
	r.pass(time.Second)
	r.End(r.now, 3*time.Minute)
	if !r.pass(time.Hour) {
		t.Error("an end without end was not ended")
	}
}

// TestEvents shows that whatever comes in whatever order, the machine is reset only when its
// goal fails, and is reset then.
func TestEvents(t *testing.T) {
	for seed := range uint64(300) {
		r := newRoom()
		random := rand.New(rand.NewPCG(seed, 0))
		events := []func(){
			func() { r.Configure(usual) },
			func() { r.Configure(Settings{}) },
			func() { _ = r.Suspend() }, // refused in some states
			func() { _ = r.Resume() },
			func() { r.missing = "x" },
			func() { r.missing = "" },
		}
		failing := time.Duration(0)
		for range 40 {
			events[random.IntN(len(events))]()
			const step = 7 * time.Minute
			reset := r.pass(step)
			if r.missing == "" {
				failing = 0
			} else {
				failing += step
			}
			if reset && failing < 10*time.Minute {
				t.Fatalf("seed %d: reset after %v of failure", seed, failing)
			}
			if reset {
				break
			}
		}
		// Every state leads to armed.
		r.missing = ""
		if err := r.Suspend(); err != nil {
			t.Fatal(err)
		}
		r.Configure(usual)
		if err := r.Resume(); err != nil {
			t.Fatal(err)
		}
		r.want(t, Armed)
	}
}

// TestFinder uses files in place of devices: what is written is what the kernel gets.
func TestFinder(t *testing.T) {
	f := Finder{Class: t.TempDir(), Dev: t.TempDir()}
	if _, err := f.Open(time.Minute); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("without a device: %v", err)
	}
	for name, identity := range map[string]string{"watchdog0": software, "watchdog1": "i6300ESB timer"} {
		if err := errors.Join(
			os.Mkdir(filepath.Join(f.Class, name), 0o755),
			os.WriteFile(filepath.Join(f.Class, name, "identity"), []byte(identity+"\n"), 0o644),
			os.WriteFile(filepath.Join(f.Dev, name), nil, 0o644),
		); err != nil {
			t.Fatal(err)
		}
	}
	if !f.Any() {
		t.Error("the devices are not seen")
	}
	d, err := f.Open(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if d.Name() != "i6300ESB timer" {
		t.Errorf("%s was preferred", d.Name())
	}
	if err := errors.Join(d.Feed(), d.Feed(), d.Disarm()); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(f.Dev, "watchdog1")); err != nil || string(text) != "\x00\x00V" {
		t.Errorf("the device got %q, %v", text, err)
	}
	if err := errors.Join(d.Feed(), d.Disarm()); err == nil {
		t.Error("a closed device was fed")
	}
}
