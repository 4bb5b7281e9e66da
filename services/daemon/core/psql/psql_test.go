package psql

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/waltos/waltos/services/confine"
	"github.com/waltos/waltos/services/confine/confinetest"
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

// prompt is a database and how to run psql on it.
type prompt struct {
	Prompt
	access db.SQLAccess
}

// start starts PostgreSQL.
func start(t *testing.T) prompt {
	confinetest.Need(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c, _ := dbtest.Client(t)
	p := prompt{Prompt: Prompt{Services: exe, Program: dbtest.PsqlCommand(t)}}
	dbtest.Wait(t, "the role of the prompt", func(ctx context.Context) error {
		if p.access, err = c.SQLAccess(ctx); err != nil {
			return err
		}
		conn, err := pgx.Connect(ctx, p.access.DSN)
		if err == nil {
			conn.Close(ctx)
		}
		return err
	})
	return p
}

// run gives psql an input and returns what it prints.
func run(t *testing.T, p prompt, input string) string {
	t.Helper()
	cmd, err := p.Command(t.Context(), p.access)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("psql: %v", err)
	}
	return string(out)
}

func TestTables(t *testing.T) {
	p := start(t)
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

// TestMemory asks for more than psql may hold.
func TestMemory(t *testing.T) {
	p := start(t)
	cmd, err := p.Command(t.Context(), p.access)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = strings.NewReader("select repeat('x', 1000000) from generate_series(1, 600);\nselect 'still here';\n")
	out, _ := cmd.CombinedOutput() // the first fails
	if text := string(out[:min(len(out), 1000)]); !strings.Contains(text, "out of memory") || !strings.Contains(text, "still here") {
		t.Errorf("psql prints %q", text)
	}
}

// Nothing of psql reaches a program or a file.
func TestDefectS2PromptReachesNothing(t *testing.T) {
	p := start(t)
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
		cmd, err := p.Command(t.Context(), p.access)
		if err != nil {
			t.Fatal(err)
		}
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
	p := start(t)
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
	cmd, err := p.Command(t.Context(), p.access)
	if err != nil {
		t.Fatal(err)
	}
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

// TestExternal reaches a database by TCP, and nothing else by it.
func TestExternal(t *testing.T) {
	p := prompt{Prompt: start(t).Prompt}
	postgres := dbtest.StartExternal(t, "secret-of-the-owner")
	site := filepath.Join(t.TempDir(), "site.hcl")
	text := fmt.Sprintf("network \"walt-net\" { ip = \"192.168.152.1/24\" }\ndatabase { url = %q }\n",
		"postgres://owner:secret-of-the-owner@"+postgres.Address()+"/platform?sslmode=disable")
	if err := os.WriteFile(site, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := db.Dial(filepath.Join(dbtest.Serve(t, "-site", site), filepath.Base(db.Socket)))
	t.Cleanup(c.Close)
	dbtest.Wait(t, "the role of the prompt", func(ctx context.Context) (err error) {
		p.access, err = c.SQLAccess(ctx)
		return err
	})
	out := run(t, p, "select current_user;\n\\dt\n")
	if !strings.Contains(out, "walt-sql") || strings.Count(out, "logstreams") != 1 {
		t.Errorf("got\n%s", out)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cmd, err := p.Command(t.Context(), p.access)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = strings.NewReader(fmt.Sprintf("\\getenv x PGPASSWORD\n\\c \"host=127.0.0.1 port=%d\"\n\\i /proc/self/cmdline\n", ln.Addr().(*net.TCPAddr).Port))
	said, _ := cmd.CombinedOutput()
	if !strings.Contains(string(said), "Permission denied") || strings.Contains(string(said), "secret") {
		t.Errorf("another port gives\n%s", said)
	}
}

func TestWrongConfiguration(t *testing.T) {
	if _, err := (Prompt{}).Command(t.Context(), db.SQLAccess{DSN: "postgres://u:secret@h:x/y"}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a wrong DSN: %v", err)
	}
	if os.Geteuid() != 0 {
		return
	}
	if _, err := (Prompt{Account: "no-such-account"}).Command(t.Context(), db.SQLAccess{DSN: "host=/x"}); err == nil {
		t.Error("a missing account is no error")
	}
}

func TestPorts(t *testing.T) {
	for dsn, want := range map[string][]uint16{
		"host=/run/postgresql user=walt-sql":              nil,
		"postgres://u@h1,h2:5433/db?sslmode=disable":      {5432, 5433},
		"postgres://u@h1,h2/db?sslmode=prefer":            {5432},
		"postgres://u@/db?host=/run/postgresql&port=5433": nil,
	} {
		if got, err := ports(dsn); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v, want %v", dsn, got, err, want)
		}
	}
}
