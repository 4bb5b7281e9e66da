// Package postgresql starts Debian's PostgreSQL on the data partition: it makes the
// cluster at first boot, then becomes the server (execve), so that the supervisor
// watches PostgreSQL itself.
//
// The cluster is made in a folder of its own and renamed once complete and synced,
// so that a power cut never leaves half a cluster. A folder with content that is no
// cluster is refused, never replaced. Nothing of that is done when the site file names an
// external database.
package postgresql

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/notify"
)

// Main runs as the user that owns the data folder.
func Main(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("postgresql", flag.ContinueOnError)
	bin := flags.String("bin", "/usr/lib/postgresql/17/bin", "folder of the programs of PostgreSQL")
	data := flags.String("data", "/var/lib/postgresql/17/main", "folder of the cluster")
	conf := flags.String("conf", "/etc/postgresql-walt", "folder of postgresql.conf, pg_hba.conf and pg_ident.conf")
	siteFile := flags.String("site", "/run/walt/site.hcl", "site file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if external(*siteFile) {
		return stay(ctx)
	}
	if err := ensureCluster(ctx, *bin, *data); err != nil {
		return err
	}
	server := filepath.Join(*bin, "postgres")
	argv := []string{server, "-D", *data,
		"-c", "config_file=" + filepath.Join(*conf, "postgresql.conf"),
		"-c", "hba_file=" + filepath.Join(*conf, "pg_hba.conf"),
		"-c", "ident_file=" + filepath.Join(*conf, "pg_ident.conf"),
		"-c", "external_pid_file=/run/postgresql/postgresql.pid", // Debian's default is a name that cannot be written
	}
	return fmt.Errorf("cannot execute %s: %w", server, unix.Exec(server, argv, os.Environ()))
}

// external tells that the site file names another database. If it cannot be read,
// server-db says so.
func external(siteFile string) bool {
	site, err := hcl.LoadSite(siteFile)
	return err == nil && site.Database.URL != ""
}

// stay is the service without PostgreSQL: units that start after it do.
func stay(ctx context.Context) error {
	const reason = "not needed: the site file names an external database"
	fmt.Fprintln(os.Stderr, reason)
	if err := notify.Status(reason); err != nil {
		return err
	}
	if err := notify.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// ensureCluster makes the cluster unless it exists.
func ensureCluster(ctx context.Context, bin, data string) error {
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot look at the database: %w", err)
	}
	if entries, err := os.ReadDir(data); err == nil && len(entries) > 0 {
		return fmt.Errorf("cannot make the database: %s holds files but no PG_VERSION; restore it or move it away", data)
	}
	draft := data + ".new" // left by a power cut, or made now
	if err := os.RemoveAll(draft); err != nil {
		return fmt.Errorf("cannot remove an unfinished database: %w", err)
	}
	fmt.Fprintln(os.Stderr, "first start: making the database cluster")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "--pgdata="+draft,
		"--encoding=UTF8", "--locale-provider=libc", "--locale=C.UTF-8", "--auth=peer", "--username=postgres",
		"--no-instructions", "--no-sync")
	initdb.Env = append(os.Environ(), "PGTZ=UTC") // or initdb tries every zone of the disk
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make the database cluster: %w\n%s", err, strings.TrimSpace(string(out)))
	}
	unix.Sync()
	if err := os.Remove(data); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot replace the empty folder of the database: %w", err)
	}
	if err := os.Rename(draft, data); err != nil {
		return fmt.Errorf("cannot put the database in place: %w", err)
	}
	unix.Sync()
	return nil
}
