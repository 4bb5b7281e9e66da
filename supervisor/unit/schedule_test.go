package unit

import (
	"testing"
	"time"

	"github.com/waltos/waltos/hcl"
)

func TestNextRun(t *testing.T) {
	at := func(text string) time.Time {
		if text == "" {
			return time.Time{}
		}
		moment, err := time.Parse("2006-01-2 15:04:05", "2026-11-"+text)
		if err != nil {
			t.Fatal(err)
		}
		return moment
	}
	for _, c := range []struct {
		timer                   hcl.Timer
		booted, last, now, want string
	}{
		{hcl.Timer{Every: "1h"}, "2 10:00:00", "", "2 10:00:10", "2 11:00:10"},
		{hcl.Timer{Every: "1h", AfterBoot: "5m"}, "2 10:00:00", "", "2 10:00:10", "2 10:05:00"},
		{hcl.Timer{Every: "1h", AfterBoot: "5m"}, "2 10:00:00", "", "2 12:00:00", "2 12:00:00"},
		{hcl.Timer{Every: "1h"}, "2 10:00:00", "2 11:00:00", "2 11:00:30", "2 12:00:00"},
		// A run that took longer than the period: its occasions are dropped.
		{hcl.Timer{Every: "1h"}, "2 10:00:00", "2 11:00:00", "2 13:30:00", "2 14:00:00"},
		{hcl.Timer{Every: "1h"}, "2 10:00:00", "2 11:00:00", "2 13:00:00", "2 14:00:00"},
		// The last run was in an earlier boot.
		{hcl.Timer{Every: "1h", Persistent: true}, "2 10:00:00", "2 09:50:00", "2 10:00:00", "2 10:50:00"},
		{hcl.Timer{Every: "1h", Persistent: true}, "2 10:00:00", "1 09:50:00", "2 10:00:00", "2 10:00:00"},
		{hcl.Timer{Every: "1h", Persistent: true, AfterBoot: "5m"}, "2 10:00:00", "1 09:50:00", "2 10:00:00", "2 10:05:00"},
		{hcl.Timer{Every: "1h", Persistent: true, AfterBoot: "5m"}, "2 10:00:00", "2 09:01:00", "2 10:00:00", "2 10:05:00"},
		// The clock was wrong.
		{hcl.Timer{Every: "1h", Persistent: true}, "2 10:00:00", "9 00:00:00", "2 10:00:00", "2 11:00:00"},
		{hcl.Timer{Daily: "03:30"}, "2 02:00:00", "", "2 02:00:00", "2 03:30:00"},
		{hcl.Timer{Daily: "03:30"}, "2 02:00:00", "2 03:30:00", "2 03:30:00", "3 03:30:00"},
		{hcl.Timer{Daily: "03:30"}, "2 04:00:00", "", "2 04:00:00", "3 03:30:00"},
		{hcl.Timer{Daily: "03:30", Persistent: true}, "2 04:00:00", "1 03:30:00", "2 04:00:00", "2 04:00:00"},
		{hcl.Timer{Daily: "03:30", Persistent: true, AfterBoot: "10m"}, "2 04:00:00", "1 03:30:00", "2 04:00:00", "2 04:10:00"},
		{hcl.Timer{Daily: "03:30", Persistent: true}, "2 02:00:00", "1 03:31:00", "2 02:00:00", "2 03:30:00"},
		{hcl.Timer{Daily: "03:30", Persistent: true}, "2 02:00:00", "", "2 02:00:00", "2 03:30:00"},
	} {
		if got := next(&c.timer, at(c.booted), at(c.last), at(c.now)); !got.Equal(at(c.want)) {
			t.Errorf("%+v: booted %s, last %s, now %s: next %s, want %s", c.timer, c.booted, c.last, c.now, got.Format("2 15:04:05"), c.want)
		}
	}
}

func TestPeriodicJob(t *testing.T) {
	h := newHouse(t, `unit "job" {
		type = "oneshot"
		exec = ["/job"]
		timer {
			every = "1h"
			after_boot = "1m"
		}
	}`)
	booted := h.clock.now
	h.StartAll()
	h.want(t, "job", Scheduled)
	if s := h.Snapshot()[0]; !s.Next.Equal(booted.Add(time.Minute)) || !s.Settled || s.Active {
		t.Errorf("%+v", s)
	}
	tick := func() {
		t.Helper()
		for h.state("job") == Scheduled {
			if !h.clock.next() {
				t.Fatal("no timer")
			}
		}
	}
	tick()
	h.want(t, "job", Starting)
	if got := h.clock.now.Sub(booted); got != time.Minute {
		t.Errorf("the first run came after %v", got)
	}
	h.launcher.exit("job", false)
	h.want(t, "job", Scheduled)
	h.wantReason(t, "job", "the last run failed: exited with status 1")
	tick()
	if got := h.clock.now.Sub(booted); got != time.Hour+time.Minute {
		t.Errorf("the second run came after %v", got)
	}
	// One that is still running is not started once more.
	run := h.launcher.runs["job"]
	h.Start("job")
	h.clock.now = h.clock.now.Add(90 * time.Minute)
	if h.launcher.runs["job"] != run {
		t.Fatal("two runs")
	}
	h.launcher.exit("job", true)
	h.want(t, "job", Scheduled)
	if got := h.units["job"].due.Sub(booted); got != 3*time.Hour+time.Minute {
		t.Errorf("the third run is due after %v", got)
	}
	// By hand, now.
	h.Start("job")
	h.want(t, "job", Starting)
	h.Stop("job")
	h.want(t, "job", Stopping)
	h.launcher.exit("job", true)
	h.want(t, "job", Stopped)
	h.Start("job") // by hand after a stop: now
	h.want(t, "job", Starting)
	h.launcher.exit("job", true)
	h.want(t, "job", Scheduled)
	h.Stop("job")
	h.want(t, "job", Stopped)
	if h.clock.next() {
		t.Error("a stopped job has a timer")
	}
}

// TestDailyJobFollowsTheClock: a clock that is set while the job waits moves its time.
func TestDailyJobFollowsTheClock(t *testing.T) {
	h := newHouse(t, `unit "job" {
		type = "oneshot"
		exec = ["/job"]
		timer {
			daily = "03:30"
			persistent = true
		}
	}`)
	h.clock.now = time.Date(2026, 11, 23, 1, 0, 0, 0, time.Local)
	h.StartAll()
	h.clock.now = h.clock.now.Add(24*time.Hour + 150*time.Minute) // the clock is set
	h.clock.next()
	h.want(t, "job", Starting)
}
