package psql

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/confine"
	"github.com/waltos/waltos/services/daemon/core/terminal"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
)

// TestMain is also the program services, as far as prompts need it.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == confine.Role {
		fmt.Fprintln(os.Stderr, confine.Main(context.Background(), os.Args[2:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// needLandlock skips a test of what is confined where nothing can be.
func needLandlock(t *testing.T) {
	t.Helper()
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 || version < 6 {
		t.Skipf("the kernel has Landlock version %d (%v), prompts need 6", int(version), errno)
	}
}

// prompt starts PostgreSQL, and returns how to run psql on it.
func prompt(t *testing.T) Prompt {
	needLandlock(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	_, p := dbtest.Client(t)
	return Prompt{Services: exe, Program: dbtest.PsqlCommand(t), DSN: p.DSN}
}

// run gives psql an input and returns what it prints.
func run(t *testing.T, p Prompt, input string) string {
	t.Helper()
	cmd, clean, err := p.Command(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer clean()
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("psql: %v", err)
	}
	return string(out)
}

func TestTables(t *testing.T) {
	p := prompt(t)
	out := run(t, p, "\\dt\n")
	if strings.Count(out, "logstreams") != 1 || strings.Count(out, "\n") < 10 {
		t.Errorf("\\dt prints\n%s", out)
	}
	if out := run(t, p, "select name from devices where false;\n"); !strings.Contains(out, "(0 rows)") {
		t.Errorf("got %s", out)
	}
	if out := run(t, p, "select 'é', count(*) from devices;"); !strings.Contains(out, " é        |") {
		t.Errorf("got %s", out)
	}
}

// Nothing of psql reaches a program or a file.
func TestDefectS2PromptReachesNothing(t *testing.T) {
	p := prompt(t)
	dir, err := os.MkdirTemp("", "walt-psql")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	secret, made := filepath.Join(dir, "secret.sql"), filepath.Join(dir, "made")
	if err := os.WriteFile(secret, []byte("\\echo the-secret\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	reply := func(input string) string {
		cmd, clean, err := p.Command(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer clean()
		cmd.Stdin = strings.NewReader(input + "\n")
		out, _ := cmd.CombinedOutput() // psql may fail
		return string(out)
	}
	for _, input := range []string{
		`\! touch MADE`,
		`\! cat SECRET`,
		`\setenv SHELL /bin/sh` + "\n" + `\!` + "\ntouch MADE\n",
		`\o MADE` + "\nselect 1;",
		`\o |cat SECRET; touch MADE` + "\nselect 1;",
		`\w MADE`,
		`\w |touch MADE`,
		`select 1 \g MADE`,
		`select 1 \g |touch MADE`,
		`\copy (select 1) to 'MADE'`,
		`\copy (select 1) to program 'touch MADE'`,
		"create temp table t (x text);\n\\copy t from 'SECRET'\nselect * from t;",
		"create temp table t (x text);\n\\copy t from program 'cat SECRET; touch MADE'\nselect * from t;",
		`\i SECRET`,
		`\ir SECRET`,
		"\\cd " + dir + "\n\\i secret.sql",
		"\\echo `cat SECRET; touch MADE`",
		"\\set x `touch MADE`",
		`\s MADE`,
		`\e SECRET`,
		"select 1\n\\e\n",
		`\lo_import SECRET`,
		"select lo_create(4711);\n\\lo_export 4711 'MADE'",
		`\setenv PAGER 'touch MADE'` + "\n\\pset pager always\n\\dt\n\\?\n",
		`\setenv PSQL_EDITOR 'touch MADE'` + "\nselect 1\n\\e\n",
		`\pset pager on` + "\n" + `\setenv PSQL_PAGER 'cat SECRET'` + "\n\\pset pager always\n\\dt",
		`\watch 1`,
		`\i /etc/passwd`,
		`\i /proc/self/cmdline`,
		`\i /proc/self/environ`,
		`\set HISTFILE MADE`,
		`\c "host=127.0.0.1 port=1 passfile=SECRET"`,
		`\c "service=x servicefile=SECRET"`,
	} {
		input = strings.NewReplacer("SECRET", secret, "MADE", made).Replace(input)
		out := reply(input)
		if strings.Contains(out, "the-secret") || strings.Contains(out, "root:") || strings.Contains(out, "HOME=") {
			t.Errorf("%s reads\n%s", input, out)
		}
		if _, err := os.Lstat(made); err == nil {
			t.Errorf("%s writes\n%s", input, out)
			os.Remove(made)
		}
	}
	// No TCP either.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	out := reply(fmt.Sprintf(`\c "host=127.0.0.1 port=%d"`, ln.Addr().(*net.TCPAddr).Port))
	if !strings.Contains(out, "Permission denied") {
		t.Errorf("TCP is not refused:\n%s", out)
	}
}

// In a terminal psql prompts, and edits its line.
func TestTerminal(t *testing.T) {
	p := prompt(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cmd, clean, err := p.Command(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer clean()
	cmd.Env = append(cmd.Env, "TERM=xterm")
	server := &terminal.Conn{TCPConn: conn.(*net.TCPConn), R: bufio.NewReader(conn)}
	ended := make(chan error)
	go func() { ended <- server.Terminal(terminal.Size{Rows: 24, Columns: 80}, cmd) }()
	// A pickle of {"evt": "input_data", "data": b"select 6*7;\r\\q\r"}.
	data := "select 6*7;\r\\q\r"
	fmt.Fprintf(client, "\x80\x04}(\x8c\x03evt\x8c\x0ainput_data\x8c\x04dataC%c%su.", len(data), data)
	out, err := io.ReadAll(client)
	if err != nil || !strings.Contains(string(out), "walt=") || !strings.Contains(string(out), "42") {
		t.Errorf("the terminal shows %q, %v", out, err)
	}
	client.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestExternalDatabase opens a prompt on a database reached by TCP, from where no other
// port can be reached.
func TestExternalDatabase(t *testing.T) {
	needLandlock(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	external := dbtest.StartExternal(t, "secret")
	sockets := dbtest.Serve(t, "-dsn", "postgres://owner:secret@"+external.Address()+"/platform?sslmode=disable")
	database := db.Dial(filepath.Join(sockets, filepath.Base(db.Socket)))
	defer database.Close()
	p := Prompt{Services: exe, Program: dbtest.PsqlCommand(t), Access: database.SQLAccess}
	dbtest.Wait(t, "the role of the prompt", func(ctx context.Context) error {
		_, err := database.SQLAccess(ctx)
		return err
	})
	if out := run(t, p, "select current_user, count(*) from devices;"); !strings.Contains(out, "walt-sql     |     0") {
		t.Errorf("got %s", out)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	cmd, clean, err := p.Command(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer clean()
	cmd.Stdin = strings.NewReader("\\connect postgres://127.0.0.1:" + port + "/platform\nselect 1;")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "Permission denied") {
		t.Errorf("another port: %v\n%s", err, out)
	}
}

func TestWrongConfiguration(t *testing.T) {
	if _, _, err := (Prompt{DSN: "nonsense"}).Command(t.Context()); err == nil {
		t.Error("a wrong DSN is accepted")
	}
	if os.Geteuid() == 0 {
		_, _, err := (Prompt{Account: "no-such-account", DSN: "host=/x"}).Command(t.Context())
		if err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("a missing account gives %v", err)
		}
	}
}
