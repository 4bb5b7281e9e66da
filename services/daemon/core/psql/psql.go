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

// Prompt says how psql is run.
type Prompt struct {
	// Services is the program services, which confines.
	Services string
	// Program is psql, and before it the loader that starts it, if any.
	Program []string
	// Account is the account of the machine that psql runs as; "": this one.
	Account string
}

// Account is the account of the appliance that prompts have.
const Account = db.SQLRole

// Default is that of the appliance.
func Default() Prompt {
	return Prompt{Services: "/proc/self/exe", Program: []string{"/usr/lib/postgresql/17/bin/psql"}, Account: Account}
}

// readable is what psql reads on a Debian system: its libraries, and descriptions of
// terminals and of locales.
var readable = []string{
	"/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib/aarch64-linux-gnu", "/usr/lib/ld-linux-aarch64.so.1", "/etc/ld.so.cache",
	"/usr/share/terminfo", "/usr/lib/terminfo", "/etc/terminfo",
	"/usr/lib/locale", "/usr/share/zoneinfo", "/etc/localtime",
}

// resolving is what it reads besides to find and to trust another machine.
var resolving = []string{
	"/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/host.conf", "/etc/services",
	"/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/usr/share/ca-certificates", "/usr/lib/ssl",
}

// Command prepares a prompt, which ends with ctx.
func (p Prompt) Command(ctx context.Context, access db.SQLAccess) (*exec.Cmd, error) {
	credential, err := p.credential()
	if err != nil {
		return nil, err
	}
	rules := confine.Rules{Read: p.reads(), Memory: memory}
	if rules.Connect, err = ports(access.DSN); err != nil {
		return nil, err
	}
	if rules.Connect != nil {
		rules.Read = append(rules.Read, resolving...)
	}
	command := append(slices.Clone(p.Program),
		"--no-psqlrc", "--no-password", "--pset=pager=off", "--set=HISTFILE=/dev/null", "--dbname="+access.DSN)
	cmd := exec.CommandContext(ctx, p.Services, rules.Command(command...)...)
	cmd.Dir = "/"
	cmd.Env = []string{
		"LANG=C.UTF-8", "PGCLIENTENCODING=UTF8", "HOME=/nonexistent", "INPUTRC=/dev/null", "PSQL_PAGER=", "PSQL_HISTORY=/dev/null",
		"PGPASSFILE=/nonexistent", "PGSYSCONFDIR=/nonexistent", "PGSERVICEFILE=/nonexistent", "PGAPPNAME=walt advanced sql",
	}
	if access.Password != "" {
		cmd.Env = append(cmd.Env, "PGPASSWORD="+access.Password)
	}
	if zone := os.Getenv("TZ"); zone != "" {
		cmd.Env = append(cmd.Env, "TZ="+zone, "PGTZ="+zone)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	return cmd, nil
}

// ports returns the ports of TCP that lead to a database; none if it is on this machine.
func ports(dsn string) ([]uint16, error) {
	config, err := pgconn.ParseConfig(dsn)
	if err != nil {
		// The error would show the configuration to the user.
		return nil, errors.New("cannot open a SQL prompt: the database is not well named in the configuration of this server")
	}
	var all []uint16
	add := func(host string, port uint16) {
		if !strings.HasPrefix(host, "/") && !slices.Contains(all, port) {
			all = append(all, port)
		}
	}
	add(config.Host, config.Port)
	for _, other := range config.Fallbacks {
		add(other.Host, other.Port)
	}
	return all, nil
}

// reads returns the paths that psql reads: those of the system, and the arguments of the
// loader that starts it.
func (p Prompt) reads() []string {
	paths := slices.Clone(readable)
	for _, word := range p.Program {
		for part := range strings.SplitSeq(word, ":") {
			if filepath.IsAbs(part) {
				paths = append(paths, part)
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
