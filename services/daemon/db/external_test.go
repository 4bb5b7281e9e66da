package db_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
)

const password = "se@c/ret"

// external serves the database of a site file.
func external(t *testing.T, url string) *db.Client {
	t.Helper()
	site := filepath.Join(t.TempDir(), "site.hcl")
	text := fmt.Sprintf("network \"walt-net\" { ip = \"192.168.152.1/24\" }\ndatabase { url = %q }\n", url)
	must(t, os.WriteFile(site, []byte(text), 0o600))
	c := db.Dial(filepath.Join(dbtest.Serve(t, "-site", site), filepath.Base(db.Socket)))
	t.Cleanup(c.Close)
	return c
}

// TestExternalDatabase uses a database over TCP, with a password, and its SQL prompt.
func TestExternalDatabase(t *testing.T) {
	p := dbtest.StartExternal(t, password)
	c := external(t, "postgres://owner:se%40c%2Fret@"+p.Address()+"/platform?sslmode=disable")
	dbtest.Wait(t, "the database", c.Ping)
	populate(t, c)
	id := stream(t, c, nodeMAC, "app")
	must(t, c.InsertLines(t.Context(), []db.Line{{Stream: id, Time: time.Now(), Text: "x"}}))
	if diff := cmp.Diff([]string{"rpi.app x"}, texts(t, c, db.LogFilter{})); diff != "" {
		t.Error(diff)
	}
	dbtest.Wait(t, "the role of the prompt", func(ctx context.Context) error {
		access, err := c.SQLAccess(ctx)
		if err != nil {
			return err
		}
		if strings.Contains(access.DSN, "se%40c") || strings.Contains(access.DSN, access.Password) || access.Password == "" {
			t.Errorf("a prompt is opened with %q", access.DSN)
		}
		psql := p.Command("psql", "-X", "-At", access.DSN, "-c", "SELECT current_user, count(*) FROM devices")
		psql.Env = append(psql.Env, "PGPASSWORD="+access.Password)
		out, err := psql.CombinedOutput()
		if got := strings.TrimSpace(string(out)); got != "walt-sql|3" {
			return fmt.Errorf("psql: %s, %v", got, err)
		}
		return nil
	})
}

// TestExternalRoleRefused: without the right to make roles all works but the prompt.
func TestExternalRoleRefused(t *testing.T) {
	p := dbtest.StartExternal(t, password)
	_, err := p.Connect("postgres").Exec(t.Context(), `ALTER ROLE owner NOCREATEROLE`)
	must(t, err)
	c := external(t, "postgres://owner:se%40c%2Fret@"+p.Address()+"/platform?sslmode=disable")
	dbtest.Wait(t, "the database", c.Ping)
	populate(t, c)
	if _, err := c.SQLAccess(t.Context()); err == nil || !strings.Contains(err.Error(), "has no role") {
		t.Errorf("SQLAccess: %v", err)
	}
}

// TestFailover: of two servers the one that takes changes is used, and the other one
// once it has taken over.
func TestFailover(t *testing.T) {
	first := dbtest.StartExternal(t, password)
	second := first.Standby()
	c := external(t, "postgres://owner:se%40c%2Fret@"+second.Address()+","+first.Address()+"/platform?target_session_attrs=read-write&sslmode=disable")
	dbtest.Wait(t, "the database", c.Ping)
	populate(t, c)
	follower := second.Connect("platform")
	dbtest.Wait(t, "the second server to have it all", func(ctx context.Context) error {
		var n int
		err := follower.QueryRow(ctx, `SELECT count(*) FROM switches`).Scan(&n)
		if err == nil && n == 0 {
			err = fmt.Errorf("it has not")
		}
		return err
	})
	first.Kill()
	if err := c.SaveImage(t.Context(), "u/between:1"); err == nil {
		t.Error("a change was made without a server that takes any")
	}
	_, err := second.Connect("postgres").Exec(t.Context(), `SELECT pg_promote()`)
	must(t, err)
	dbtest.Wait(t, "the other server", func(ctx context.Context) error { return c.SaveImage(ctx, "u/after:1") })
	got, err := c.LoadAll(t.Context())
	must(t, err)
	if diff := cmp.Diff([]string{"u/after:1", "u/img:latest"}, got.Images); diff != "" || len(got.Devices) != 3 {
		t.Error(diff, got.Devices)
	}
}

// TestDemotion: the server of the connections in use stops taking changes, and keeps
// them open.
func TestDemotion(t *testing.T) {
	c, p := dbtest.Client(t)
	populate(t, c)
	admin := p.Connect("postgres")
	_, err := admin.Exec(t.Context(), `ALTER SYSTEM SET default_transaction_read_only = on`)
	must(t, err)
	_, err = admin.Exec(t.Context(), `SELECT pg_reload_conf()`)
	must(t, err)
	dbtest.Wait(t, "the refusal of changes", func(ctx context.Context) error {
		if err := c.SaveImage(ctx, "u/x:1"); err == nil {
			return fmt.Errorf("a change was made")
		}
		return nil
	})
	_, err = admin.Exec(t.Context(), `SET default_transaction_read_only = off`)
	must(t, err)
	_, err = admin.Exec(t.Context(), `ALTER SYSTEM RESET default_transaction_read_only`)
	must(t, err)
	_, err = admin.Exec(t.Context(), `SELECT pg_reload_conf()`)
	must(t, err)
	dbtest.Wait(t, "changes", func(ctx context.Context) error { return c.SaveImage(ctx, "u/x:1") })
}

// TestPasswordIsSecret: what is said of a database that cannot be used does not tell
// its password.
func TestPasswordIsSecret(t *testing.T) {
	p := dbtest.StartExternal(t, password)
	printed := capture(t)
	t.Run("servers", func(t *testing.T) { // which have ended when it ends
		for _, url := range []string{
			"postgres://owner:wrong%2Fsecret@" + p.Address() + "/platform?sslmode=disable",
			"postgres://owner:wrong%2Fsecret@127.0.0.1:1/platform?sslmode=disable",
			"postgres://owner:wrong%2Fsecret@" + p.Address() + "/none?sslmode=disable",
		} {
			c := external(t, url)
			dbtest.Wait(t, "the reason", func(ctx context.Context) error {
				err := c.Ping(ctx)
				if err == nil || strings.Contains(err.Error(), "just started") {
					return fmt.Errorf("Ping: %v", err)
				}
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("Ping: %v", err)
				}
				return nil
			})
		}
	})
	err := db.Main(t.Context(), []string{"-dsn", "postgres://owner:wrong%2Fsecret@127.0.0.1:x/db", "-socket-dir", t.TempDir()})
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("an invalid URL: %v", err)
	}
	if text := printed(); !strings.Contains(text, "cannot reach the database") || strings.Contains(text, "secret") {
		t.Errorf("printed: %s", text)
	}
}

// capture collects what is printed on stderr until the function returned is called.
func capture(t *testing.T) func() string {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	old := os.Stderr
	os.Stderr = w
	text := make(chan string)
	go func() {
		all, _ := io.ReadAll(r)
		text <- string(all)
	}()
	return func() string {
		os.Stderr = old
		w.Close()
		return <-text
	}
}

// TestSilentServer: a server that accepts connections and says nothing is given up.
func TestSilentServer(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	p := dbtest.StartExternal(t, password)
	c := external(t, "postgres://owner:se%40c%2Fret@"+ln.Addr().String()+","+p.Address()+"/platform?sslmode=disable")
	dbtest.Wait(t, "the server that answers", c.Ping)
}
