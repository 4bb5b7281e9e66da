package logs_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
)

// TestCrashesUnderLoad ends PostgreSQL and server-db while lines come. Those that had
// been written to the disk stay, those that came later are stored by and by, and all
// are in the order of their stream.
func TestCrashesUnderLoad(t *testing.T) {
	p := dbtest.Start(t)
	socket := p.Serve()
	c := db.Dial(filepath.Join(socket, filepath.Base(db.Socket)))
	t.Cleanup(c.Close)
	dbtest.Wait(t, "the database", c.Ping)
	h := hubOn(t, c, time.Hour)

	const senders, before, after = 4, 2000, 3000
	emit := func(from, to int) {
		var all sync.WaitGroup
		for s := range senders {
			all.Go(func() {
				for i := from; i < to; i++ {
					h.Emit(fmt.Sprint("s", s), fmt.Sprint(i))
				}
			})
		}
		all.Wait()
	}
	emit(0, before)
	if err := h.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	look := p.Connect("walt")
	var committed string
	if err := look.QueryRow(t.Context(), `SELECT pg_current_wal_insert_lsn()::text`).Scan(&committed); err != nil {
		t.Fatal(err)
	}
	dbtest.Wait(t, "PostgreSQL to write what it has committed", func(ctx context.Context) error {
		var written bool
		err := look.QueryRow(ctx, `SELECT pg_current_wal_flush_lsn() >= $1::text::pg_lsn`, committed).Scan(&written)
		if err == nil && !written {
			err = errors.New("it has not")
		}
		return err
	})
	p.Kill()
	var sending sync.WaitGroup
	sending.Go(func() { emit(before, before+after) })
	p.Up()
	sending.Wait()
	dbtest.Wait(t, "all lines to be stored", h.Flush)

	found := map[string]int{} // the next line of each stream
	for _, r := range history(t, h, "streams_regexp", "^s[0-9]") {
		stream, text, _ := strings.Cut(strings.TrimPrefix(r, "walt-server."), " ")
		var n int
		fmt.Sscan(text, &n)
		if n != found[stream] {
			t.Fatalf("%s: line %d comes after %d", stream, n, found[stream]-1)
		}
		found[stream]++
	}
	for s := range senders {
		if n := found[fmt.Sprint("s", s)]; n != before+after {
			t.Errorf("stream s%d has %d lines of %d", s, n, before+after)
		}
	}
}
