package db_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
)

// These tests show that the defects of WalT 10.0 in row 5 of server-state §8 are absent.

// TestDefectS5ErrorsRollBackAlone: calls that fail take nothing with them, neither what
// others do meanwhile nor what comes after.
func TestDefectS5ErrorsRollBackAlone(t *testing.T) {
	c, _ := dbtest.Client(t)
	populate(t, c)
	id := stream(t, c, nodeMAC, "app")
	const n = 50
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range n {
				if err := c.RenameImage(t.Context(), "u/img:latest", "u/x:1"); err == nil { // it is in use
					t.Error("a used image was renamed")
				}
				if err := c.SaveImage(t.Context(), fmt.Sprintf("u/i%d:%d", worker, i)); err != nil {
					t.Error(err)
				}
				if err := c.InsertLines(t.Context(), []db.Line{{Stream: id, Time: time.Now(), Text: "x"}, {Stream: 9999, Time: time.Now(), Text: "of nobody"}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	got, err := c.LoadAll(t.Context())
	must(t, err)
	if len(got.Images) != 4*n+1 {
		t.Errorf("%d images", len(got.Images))
	}
	if lines := texts(t, c, db.LogFilter{}); len(lines) != 4*n {
		t.Errorf("%d lines", len(lines))
	}
}

// TestDefectS5NamesAreBound: names are values in SQL, never text of it.
func TestDefectS5NamesAreBound(t *testing.T) {
	c, _ := dbtest.Client(t)
	populate(t, c)
	ctx := t.Context()
	const evil = `x'; DROP TABLE images; --`
	must(t, c.SaveImage(ctx, evil))
	must(t, c.SaveSwitchPort(ctx, db.SwitchPort{MAC: switchMAC, Port: 1, Name: evil}))
	created, err := c.SaveCheckpoint(ctx, db.Checkpoint{User: evil, Name: evil, Time: time.Now()})
	if must(t, err); !created {
		t.Error("no checkpoint")
	}
	found, err := c.Checkpoints(ctx, "%")
	if must(t, err); len(found) > 0 {
		t.Errorf("a user name is a pattern: %v", found)
	}
	must(t, c.InsertLines(ctx, []db.Line{{Stream: stream(t, c, nodeMAC, evil), Time: time.Now(), Text: evil}}))
	if diff := cmp.Diff([]string{"rpi." + evil + " " + evil}, texts(t, c, db.LogFilter{Issuers: []string{"rpi", evil}})); diff != "" {
		t.Error(diff)
	}
	got, err := c.LoadAll(ctx)
	must(t, err)
	if len(got.Images) != 2 || len(got.SwitchPorts) != 1 || got.SwitchPorts[0].Name != evil {
		t.Errorf("%+v", got)
	}
}

// TestDefectS5StartsBeforePostgreSQL: server-db needs nothing to be there when it starts.
func TestDefectS5StartsBeforePostgreSQL(t *testing.T) {
	p := dbtest.Start(t)
	p.Down()
	c := db.Dial(filepath.Join(p.Serve(), filepath.Base(db.Socket)))
	defer c.Close()
	if err := c.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot use the database yet") {
		t.Errorf("Ping: %v", err)
	}
	p.Up()
	dbtest.Wait(t, "PostgreSQL", c.Ping)
	populate(t, c)
}
