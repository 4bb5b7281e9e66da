package clock

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// fake is a clock that stands still.
type fake struct {
	now, rtc time.Time
	refuse   error
}

func (f *fake) Now() time.Time { return f.now }

func (f *fake) Set(t time.Time) error {
	if f.refuse == nil {
		f.now = t
	}
	return f.refuse
}

func (f *fake) Keep(t time.Time) error {
	f.rtc = t
	return nil
}

func day(n int) time.Time { return time.Date(2026, 1, n, 12, 0, 0, 0, time.UTC) }

func TestRestore(t *testing.T) {
	for name, c := range map[string]struct {
		now, built, saved, want time.Time
	}{
		"right":                      {now: day(9), built: day(1), saved: day(8), want: day(9)},
		"empty battery":              {now: time.Unix(0, 0), built: day(1), saved: day(8), want: day(8)},
		"first boot, empty battery":  {now: time.Unix(0, 0), built: day(1), want: day(1)},
		"first boot, right":          {now: day(9), built: day(1), want: day(9)},
		"behind the last run":        {now: day(7), built: day(1), saved: day(8), want: day(8)},
		"newer system, old last run": {now: day(2), built: day(5), saved: day(3), want: day(5)},
		"nothing is known":           {now: day(2), want: day(2)},
	} {
		t.Run(name, func(t *testing.T) {
			machine := &fake{now: c.now}
			k := Keeper{machine, filepath.Join(t.TempDir(), "clock"), c.built}
			if !c.saved.IsZero() {
				if err := (&Keeper{&fake{now: c.saved}, k.File, time.Time{}}).Save(); err != nil {
					t.Fatal(err)
				}
			}
			restored, err := k.Restore()
			if err != nil || !machine.now.Equal(c.want) {
				t.Fatalf("the clock is %v, want %v; %v", machine.now, c.want, err)
			}
			if (restored != nil) != c.want.After(c.now) {
				t.Errorf("it says %v", restored)
			}
			if restored != nil && !machine.rtc.Equal(c.want) {
				t.Errorf("the real-time clock is %v", machine.rtc)
			}
			// Whatever is wrong with the clock later, the next save is what it says.
			machine.now = day(20)
			if err := k.Finish(); err != nil || !machine.rtc.Equal(day(20)) {
				t.Errorf("the real-time clock is %v, %v", machine.rtc, err)
			}
			info, err := os.Stat(k.File)
			if err != nil || !info.ModTime().Equal(day(20)) || info.Size() != 0 {
				t.Errorf("the file has time %v, %v", info.ModTime(), err)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	refusal := errors.New("not permitted")
	k := Keeper{&fake{now: time.Unix(0, 0), refuse: refusal}, filepath.Join(t.TempDir(), "clock"), day(1)}
	if restored, err := k.Restore(); !errors.Is(err, refusal) || restored != nil {
		t.Errorf("%v, %v", restored, err)
	}
	// A file that cannot be looked at does not keep the build time from being used.
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	machine := &fake{now: time.Unix(0, 0)}
	k = Keeper{machine, filepath.Join(file, "clock"), day(1)}
	if restored, err := k.Restore(); err == nil || restored == nil || !machine.now.Equal(day(1)) {
		t.Errorf("%v, %v", restored, err)
	}
	if err := k.Save(); err == nil {
		t.Error("a time that was not saved is no error")
	}
	if err := (System{filepath.Join(file, "rtc")}).Keep(day(1)); err == nil {
		t.Error("a clock that does not exist was set")
	}
}
