package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/qemu/client"
	"github.com/waltos/waltos/services/daemon/blocking/registrytest"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/tests/native"
)

// limit bounds each command: none may hang.
const limit = 20 * time.Second

// platform is a daemon with devices: two nodes that run, one of another user that does
// not, a virtual one that does not, a switch and an unknown device.
type platform struct {
	*native.Daemon
	t     *testing.T
	nodes map[string]*native.Node
	hub   *registrytest.Hub
	own   *registrytest.Registry
}

func device(host int, name, kind string) db.Device {
	d := db.Device{MAC: fmt.Sprintf("02:00:00:00:00:%02x", host), IP: fmt.Sprintf("192.168.152.%d", host), Name: name, Type: kind}
	if kind == "node" {
		d.Image, d.Model = native.DefaultImage, "pc-x86-64"
	}
	return d
}

func startPlatform(t *testing.T) *platform {
	t.Helper()
	virtual := device(20, "vn1", "node")
	virtual.MAC, virtual.Virtual = "52:54:00:00:00:14", true
	p := &platform{t: t, nodes: map[string]*native.Node{}}
	p.Daemon = native.StartSite(t, p.registries(),
		device(11, "n1", "node"), device(12, "n2", "node"), device(13, "n3", "node"), virtual,
		device(5, "switch1", "switch"), device(6, "unknown-000006", "unknown"))
	p.giveAccounts("alice")
	for i, name := range []string{"n1", "n2"} { // one after the other, as their log lines are
		p.nodes[name] = p.Node(fmt.Sprint("192.168.152.", 11+i))
		if _, err := p.Call("bob", "wait_for_nodes", name); err != nil {
			t.Fatal(err)
		}
	}
	// n3 is bob's.
	if _, err := p.Call("bob", "get_clones_of_default_images", "n3"); err != nil {
		t.Fatal(err)
	}
	if ok, err := p.Call("bob", "set_image", "n3", "pc-x86-64-default"); ok != true || err != nil {
		t.Fatal(ok, err)
	}
	return p
}

// do lets something else happen than a command.
func (p *platform) do(words []string) error {
	if len(words) < 2 {
		return fmt.Errorf("what should happen? %q", words)
	}
	n := p.nodes[words[0]]
	if n == nil {
		return fmt.Errorf("there is no node %q", words[0])
	}
	switch arguments := words[2:]; words[1] {
	case "log": // a line to a stream
		n.Log(arguments[0], strings.Join(arguments[1:], " "))
	case "asked": // what the server has asked it to do
		if asked := n.Asked(); !slices.Equal(asked, arguments) {
			return fmt.Errorf("node %s was asked %q", words[0], asked)
		}
	case "booted": // it is booted for the server
		_, err := p.Call("bob", "wait_for_nodes", words[0])
		return err
	case "fails", "recovers": // in serving control requests
		n.Fail(words[1] == "fails")
	default:
		return fmt.Errorf("what should happen? %q", words)
	}
	return nil
}

// result is what a command line printed.
type result struct {
	out, err string
	code     int
}

// client returns the program of a command line, of a user, and its arguments.
func (p *platform) client(user string, words []string) (client.Client, []string, error) {
	c := p.User(user)
	switch words[0] {
	case "walt":
	case "walt-autocomplete-helper":
		c.Program = native.Get().Helper
	case "python":
		c.Program = native.Get().Python
	default:
		return c, nil, fmt.Errorf("there is no program %q", words[0])
	}
	return c, words[1:], nil
}

// run runs a command line.
func (p *platform) run(t testing.TB, user, input string, words ...string) (result, error) {
	c, args, err := p.client(user, words)
	if err != nil {
		return result{}, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd, err := c.Command(ctx, args...)
	if err != nil {
		return result{}, err
	}
	var out, complaints bytes.Buffer
	cmd.Dir = p.Folder(user)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &complaints
	err = cmd.Run()
	if ctx.Err() != nil {
		return result{}, fmt.Errorf("it hangs: %w\n%s%s", ctx.Err(), out.String(), complaints.String())
	}
	r := result{out.String(), complaints.String(), 0}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		r.code, err = exit.ExitCode(), nil
	}
	return r, err
}
