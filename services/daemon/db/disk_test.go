package db_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
)

// TestRealDiskFull fills a disk with log lines: they are refused before anything else
// fails, none that was acknowledged is lost, and they are stored again when there is
// room.
func TestRealDiskFull(t *testing.T) {
	disk := t.TempDir()
	must(t, os.Chmod(filepath.Dir(disk), 0o755))
	if err := unix.Mount("walt", disk, "tmpfs", 0, "size=512m,mode=0755"); err != nil {
		t.Skipf("no small disk can be made: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("TMPDIR", disk)
	p := dbtest.Start(t)
	c := db.Dial(filepath.Join(dbtest.Serve(t, "-dsn", p.DSN, "-disk", disk), filepath.Base(db.Socket)))
	defer c.Close()
	dbtest.Wait(t, "the database", c.Ping)
	populate(t, c)
	id := stream(t, c, nodeMAC, "app")

	var space unix.Statfs_t
	must(t, unix.Statfs(disk, &space))
	ballast := filepath.Join(disk, "ballast")
	free := int(space.Bavail) * int(space.Bsize)
	must(t, os.WriteFile(ballast, make([]byte, free-100<<20), 0o600))

	lines := make([]db.Line, 2000)
	stored := 0
	var refused error
	for n := 0; refused == nil && n < 200; n++ {
		for i := range lines {
			lines[i] = db.Line{Stream: id, Time: time.Now(), Text: fmt.Sprintf("%d.%d %s", n, i, strings.Repeat("x", 1000))}
		}
		if refused = c.InsertLines(t.Context(), lines); refused == nil {
			stored += len(lines)
		}
	}
	if refused == nil || !strings.Contains(refused.Error(), "no space left on the disk of the database") {
		t.Fatalf("after %d lines: %v", stored, refused)
	}
	if stored == 0 {
		t.Error("no line was stored")
	}
	must(t, c.SaveImage(t.Context(), "u/other:1")) // the rest goes on
	if n, err := c.CountLogs(t.Context(), db.LogFilter{StreamsRegexp: "app"}); err != nil || n != stored {
		t.Errorf("%d lines of %d, %v", n, stored, err)
	}
	must(t, os.Remove(ballast))
	must(t, c.InsertLines(t.Context(), lines[:1]))
	if n, err := c.CountLogs(t.Context(), db.LogFilter{StreamsRegexp: "app"}); err != nil || n != stored+1 {
		t.Errorf("%d lines of %d, %v", n, stored+1, err)
	}
}
