package chrony

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func TestWait(t *testing.T) {
	refusal := errors.New("not permitted")
	for name, c := range map[string]struct {
		limit, after time.Duration
		fail         error
		cancel       time.Duration
		want         bool
		wantErr      error
		took         time.Duration
	}{
		"at once":         {limit: time.Minute, want: true},
		"later":           {limit: time.Minute, after: 10 * time.Second, want: true, took: 10 * time.Second},
		"limit":           {limit: 5 * time.Second, after: time.Hour, took: 5 * time.Second},
		"no limit":        {after: time.Hour, want: true, took: time.Hour},
		"stopped":         {after: time.Hour, cancel: 3 * time.Second, wantErr: context.Canceled, took: 3 * time.Second},
		"kernel does not": {limit: time.Minute, fail: refusal, wantErr: refusal},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.cancel > 0 {
					time.AfterFunc(c.cancel, cancel)
				}
				began := time.Now()
				ticker := time.NewTicker(lookTime)
				defer ticker.Stop()
				got, err := wait(ctx, c.limit, ticker.C, func() (bool, error) { return c.fail == nil && time.Since(began) >= c.after, c.fail })
				if got != c.want || !errors.Is(err, c.wantErr) || time.Since(began) != c.took {
					t.Errorf("%v, %v after %v", got, err, time.Since(began))
				}
			})
		})
	}
}

func TestMainWait(t *testing.T) {
	site := filepath.Join(t.TempDir(), "site.hcl")
	if err := os.WriteFile(site, []byte(`network "walt-net" { ip = "192.168.152.1/24" }`), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := MainWait(t.Context(), []string{"--site", site, "--limit", "0"}); err != nil {
		t.Errorf("without time servers: %v", err)
	}
	if _, err := kernelSynchronised(); err != nil {
		t.Errorf("the real kernel: %v", err)
	}
}
