// Package psql gives users of a platform the SQL prompt of its database (client-api §3.2,
// SQL_PROMPT): Debian's psql, as a database role that owns nothing and an account that may
// do nothing, confined to what it needs (package confine). psql's commands that start
// programs, or read or write files, fail.
package psql

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/waltos/waltos/services/confine"
	"github.com/waltos/waltos/services/daemon/db"
)

// memory bounds psql, which holds a whole result before it shows it.
const memory = 512 << 20

// Role is the role of the database of the appliance, and the account of its machine, that
// prompts have.
const Role = db.SQLRole

// Prompt says how psql is run.
type Prompt struct {
	// Services is the program services, which confines.
	Services string
	// Program is psql, and before it the loader that starts it, if any.
	Program []string
	// Account is the account of the machine that psql runs as; "": this one.
	Account string
	// DSN is the database, with the role.
	DSN string
	// Access, if it is not nil, is asked for the DSN, and for a password.
	Access func(context.Context) (db.SQLAccess, error)
}

// Default is that of the appliance.
func Default() Prompt {
	return Prompt{
		Services: "/proc/self/exe",
		Program:  []string{"/usr/lib/postgresql/17/bin/psql"},
		Account:  Role,
		DSN:      "host=/run/postgresql dbname=walt user=" + Role,
	}
}

// readable is what psql reads on a Debian system: its libraries, descriptions of
// terminals and of locales, and what it needs to reach a host.
var readable = []string{
	"/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/etc/ld.so.cache",
	"/usr/share/terminfo", "/usr/lib/terminfo", "/etc/terminfo",
	"/usr/lib/locale", "/usr/share/zoneinfo", "/etc/localtime",
	// Of a database elsewhere: names of hosts, and certificates.
	"/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services", "/etc/ssl",
}

// Command prepares a prompt, which ends with ctx. clean is for when it has ended.
func (p Prompt) Command(ctx context.Context) (cmd *exec.Cmd, clean func(), err error) {
	credential, err := p.credential()
	if err != nil {
		return nil, nil, err
	}
	access := db.SQLAccess{DSN: p.DSN}
	if p.Access != nil {
		if access, err = p.Access(ctx); err != nil {
			return nil, nil, err
		}
	}
	database, err := pgconn.ParseConfig(access.DSN)
	if err != nil {
		return nil, nil, errors.New("cannot open a SQL prompt: the database has no valid name in the configuration of this server")
	}
	clean = func() {}
	command := append(append([]string{}, p.Program...),
		"--no-psqlrc", "--no-password", "--pset=pager=off", "--set=HISTFILE=/dev/null", "--dbname="+access.DSN)
	cmd = exec.CommandContext(ctx, p.Services, confine.Command(command, p.reads(), memory, ports(database)...)...)
	cmd.Dir = "/"
	cmd.Env = []string{
		"LANG=C.UTF-8", "PGCLIENTENCODING=UTF8", "HOME=/nonexistent", "INPUTRC=/dev/null",
		"PGPASSFILE=/nonexistent", "PGSYSCONFDIR=/nonexistent", "PGSERVICEFILE=/nonexistent", "PGAPPNAME=walt advanced sql",
		"PSQL_PAGER=", "PSQL_HISTORY=/dev/null",
	}
	if access.Password != "" {
		cmd.Env = append(cmd.Env, "PGPASSWORD="+access.Password)
	}
	if zone := os.Getenv("TZ"); zone != "" {
		cmd.Env = append(cmd.Env, "TZ="+zone, "PGTZ="+zone)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	return cmd, clean, nil
}

// ports are those of a database that is reached by TCP.
func ports(database *pgconn.Config) (found []uint16) {
	add := func(host string, port uint16) {
		if !filepath.IsAbs(host) && !slices.Contains(found, port) {
			found = append(found, port)
		}
	}
	add(database.Host, database.Port)
	for _, f := range database.Fallbacks {
		add(f.Host, f.Port)
	}
	return found
}

// reads returns the paths that psql reads: those of the system, and the arguments of the
// loader that starts it.
func (p Prompt) reads() []string {
	paths := readable
	for _, word := range p.Program[1:] {
		for part := range strings.SplitSeq(word, ":") {
			if filepath.IsAbs(part) {
				paths = append(paths[:len(paths):len(paths)], part)
			}
		}
	}
	return paths
}

// credential returns the account to run as; nil is this one, which is then not root's
// except in tests.
func (p Prompt) credential() (*syscall.Credential, error) {
	if p.Account == "" || os.Geteuid() != 0 {
		return nil, nil
	}
	account, err := user.Lookup(p.Account)
	if err != nil {
		return nil, fmt.Errorf("cannot open a SQL prompt: %w", err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("cannot open a SQL prompt: %w", err)
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("cannot open a SQL prompt: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
