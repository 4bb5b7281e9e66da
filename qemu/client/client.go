// Package client runs the real walt client, version 10.0, against a platform: each
// time as a process of its own, with a home folder of its own whose configuration
// names the server and the user, so that nothing of the caller's account is used.
package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
)

// Program is a walt client ready to be run.
type Program struct {
	Argv []string // its first words
	Env  []string // as "NAME=value": all of its environment but what is inherited
}

// Client is a user of a platform.
type Client struct {
	Program Program
	Home    string // its home folder, made if it is missing
	Server  string // host of the server
	User    string // name that images and nodes are owned by
}

// endLimit is how long a client may take to end once it is told to, before it is killed.
const endLimit = 5 * time.Second

// Run runs a command line of the client and returns its exit code. An error says that
// there is no code. The context's end interrupts the client as Ctrl-C does.
func (c Client) Run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, args ...string) (int, error) {
	fail := func(err error) (int, error) {
		return 0, fmt.Errorf("cannot run walt %s: %w", strings.Join(args, " "), err)
	}
	cmd, err := c.Command(ctx, args...)
	if err != nil {
		return fail(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return fail(context.Cause(ctx))
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), nil
	case err != nil:
		return fail(err)
	}
	return 0, nil
}

// Command prepares to run a command line of the client, which the context's end
// interrupts.
func (c Client) Command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	if len(c.Program.Argv) == 0 {
		return nil, errors.New("this lab has no client")
	}
	if err := c.configure(); err != nil {
		return nil, err
	}
	argv := append(c.Program.Argv[:len(c.Program.Argv):len(c.Program.Argv)], args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = c.environment()
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = endLimit
	return cmd, nil
}

// Output runs a command line without input and returns what it printed.
func (c Client) Output(ctx context.Context, args ...string) (stdout, stderr string, code int, err error) {
	var out, complaints bytes.Buffer
	code, err = c.Run(ctx, nil, &out, &complaints, args...)
	return out.String(), complaints.String(), code, err
}

// configuration is ~/.walt/config.
type configuration struct {
	Walt struct {
		Server   string `yaml:"server"`
		Username string `yaml:"username"`
	} `yaml:"walt"`
}

// configure writes the configuration of the client unless it has one: the client adds
// to it, registry credentials for instance.
func (c Client) configure() error {
	file := filepath.Join(c.Home, ".walt", "config")
	var current configuration
	if data, err := os.ReadFile(file); err == nil && yaml.Unmarshal(data, &current) == nil &&
		current.Walt.Server == c.Server && current.Walt.Username == c.User {
		return nil
	}
	var wanted configuration
	wanted.Walt.Server, wanted.Walt.Username = c.Server, c.User
	data, err := yaml.Marshal(wanted)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o600)
}

// inherited are the variables a client gets from this process: what a terminal program
// needs. The rest (PYTHON…, XDG_…, WALT_…) is the caller's account.
var inherited = []string{"PATH", "TMPDIR", "TERM", "COLORTERM", "COLUMNS", "LINES", "EDITOR", "VISUAL", "PAGER"}

func (c Client) environment() []string {
	env := append([]string{"HOME=" + c.Home}, c.Program.Env...)
	for _, name := range inherited {
		if value, set := os.LookupEnv(name); set {
			env = append(env, name+"="+value)
		}
	}
	return env
}
