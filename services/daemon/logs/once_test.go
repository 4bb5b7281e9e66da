package logs_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
)

// between stands between a client and a server, and ends their connection in the place of an
// answer of the server, as if that had died.
type between struct {
	armed atomic.Bool
	ended chan struct{} // holds a value when it has
}

// stand has the client find the server, a unix socket, at another path.
func stand(t *testing.T, server, path string, isAnswer func(data []byte) bool) *between {
	t.Helper()
	b := &between{ended: make(chan struct{}, 1)}
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(running.Wait)
	t.Cleanup(func() { ln.Close() })
	pass := func(from, to net.Conn, last func(data []byte) bool) {
		defer from.Close()
		defer to.Close()
		buffer := make([]byte, 64<<10)
		for {
			n, err := from.Read(buffer)
			if err != nil || last(buffer[:n]) {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
	running.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			conn, err := net.Dial("unix", server)
			if err != nil {
				client.Close()
				continue
			}
			running.Go(func() { pass(client, conn, func([]byte) bool { return false }) })
			running.Go(func() {
				pass(conn, client, func(data []byte) bool {
					if !isAnswer(data) || !b.armed.CompareAndSwap(true, false) {
						return false
					}
					b.ended <- struct{}{}
					return true
				})
			})
		}
	})
	return b
}

// folder is one that another user may enter, with a short name.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "walt-between")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestDeathBetweenCommitAndAnswer: lines whose storing was not confirmed are stored once.
func TestDeathBetweenCommitAndAnswer(t *testing.T) {
	socket := filepath.Base(db.Socket)
	for _, test := range []struct {
		of    string
		start func(t *testing.T) (path string, b *between) // of the socket of server-db
	}{
		{"PostgreSQL", func(t *testing.T) (string, *between) {
			p, dir := dbtest.Start(t), folder(t)
			const name = ".s.PGSQL.5432"
			b := stand(t, filepath.Join(p.Folder(), name), filepath.Join(dir, name), func(data []byte) bool {
				return bytes.Contains(data, []byte("COMMIT\x00"))
			})
			return filepath.Join(dbtest.Serve(t, "-dsn", "host="+dir+" dbname=walt user=root"), socket), b
		}},
		{"server-db", func(t *testing.T) (string, *between) {
			path := filepath.Join(folder(t), socket)
			return path, stand(t, filepath.Join(dbtest.Start(t).Serve(), socket), path, func([]byte) bool { return true })
		}},
	} {
		for _, flow := range []struct {
			name                  string
			lines, length, deaths int // of a round
		}{
			{"some lines", 1000, 20, 1},
			{"a flood", 4000, 3000, 3}, // several calls, whose lines are sent ahead
		} {
			t.Run(test.of+", "+flow.name, func(t *testing.T) {
				path, b := test.start(t)
				c := db.Dial(path)
				t.Cleanup(c.Close)
				dbtest.Wait(t, "the database", c.Ping)
				h := hubOn(t, c, time.Hour)
				var want []string
				emit := func(text string) {
					h.Emit("app", text)
					want = append(want, "walt-server.app "+text)
				}
				for n := range 4 {
					// The stream is known after the first round, so that nothing else is answered.
					deaths := 0
					if n > 0 {
						deaths = flow.deaths
						b.armed.Store(true)
					}
					for i := range flow.lines {
						emit(fmt.Sprintf("%0*d of round %d", flow.length, i, n))
					}
					for death := range deaths {
						if death > 0 {
							b.armed.Store(true)
						}
						<-b.ended
						emit("meanwhile") // must not be taken for a part of what is stored
					}
					dbtest.Wait(t, "all lines to be stored", h.Flush)
				}
				if diff := cmp.Diff(want, history(t, h, "streams_regexp", "^app$")); diff != "" {
					t.Error(diff[:min(len(diff), 10_000)])
				}
			})
		}
	}
}
