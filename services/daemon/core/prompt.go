package core

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/terminal"
	"github.com/waltos/waltos/services/daemon/trackexec"
	"github.com/waltos/waltos/services/internal/pattern"
	"github.com/waltos/waltos/services/wire/pickle"
)

// errLater is what users of images are told.
var errLater = errors.New("this is not available on this server yet")

// deviceAt returns the device that a stream names by its address. The address is one, even
// if someone has written something else into the database.
func (s *stream) deviceAt(ip string) (*registry.Device, error) {
	d := s.registry.View().ByIP(ip)
	if _, err := netip.ParseAddr(ip); d == nil || err != nil {
		return nil, fmt.Errorf("no device has address %q", ip)
	}
	return d, nil
}

func (s *stream) nodeAt(ip string) (*registry.Device, error) {
	d, err := s.deviceAt(ip)
	if err != nil || d.Type != registry.Node {
		return nil, fmt.Errorf("no node has address %q", ip)
	}
	return d, nil
}

func (s *stream) nodeCommand() error {
	p, err := s.ready()
	if err != nil {
		return err
	}
	node, err := s.nodeAt(p.text("node_ip"))
	if err != nil {
		return s.conn.Refuse(err)
	}
	words, err := p.words("cmdargs")
	if err != nil {
		return s.conn.Refuse(err)
	}
	cmd, err := s.SSH.Node(s, node.IP, p.flag("ssh_tty"), strings.Join(words, " "))
	if err != nil {
		return s.conn.Refuse(err)
	}
	return s.prompt(p, cmd)
}

func (s *stream) devicePing() error {
	p, err := s.ready()
	if err != nil {
		return err
	}
	d, err := s.deviceAt(p.text("device_ip"))
	if err != nil {
		return s.conn.Refuse(err)
	}
	return s.prompt(p, s.SSH.Command(s, "ping", "-c", "10", "-w", "11", "--", d.IP))
}

func (s *stream) deviceShell() error {
	p, err := s.ready()
	if err != nil {
		return err
	}
	d, err := s.deviceAt(p.text("device_ip"))
	if err != nil {
		return s.conn.Refuse(err)
	}
	cmd, clean, err := s.SSH.Shell(s, d.IP, p.text("user"))
	if err != nil {
		return s.conn.Refuse(err)
	}
	defer clean()
	return s.prompt(p, cmd)
}

// sqlPrompt opens psql on the database of the platform (client-api §3.2).
func (s *stream) sqlPrompt() error {
	p, err := s.ready()
	if err != nil {
		return err
	}
	access, err := asked(s, s.Store.SQLAccess)
	if err != nil {
		return s.conn.Refuse(err)
	}
	cmd, err := s.SQL.Command(s, access)
	if err != nil {
		return s.conn.Refuse(err)
	}
	// What the registry holds of the database may have been changed.
	defer s.reloads.poke()
	return s.prompt(p, cmd)
}

// imageShell would open a shell in a container of an image.
func (s *stream) imageShell() error {
	if _, err := s.ready(); err != nil {
		return err
	}
	return s.conn.Refuse(errLater)
}

// Commands that run at the same time for clients, in all and for one address: each is a
// process or two of the server.
const (
	maxCommands     = 1024
	maxCommandsEach = 256
)

var errManyCommands = errors.New("too many commands are running, try again later")

// startPause is the least time between the starts of two commands. The start of a process
// stops one of the threads that serve everybody; a flood of them would leave none.
const startPause = 10 * time.Millisecond

// claim takes a place among the commands that run, and waits until one more may start;
// release gives the place back.
func (s *stream) claim() (release func(), err error) {
	if !s.commands.Take(s.peer) {
		return nil, errManyCommands
	}
	select {
	case s.starting <- struct{}{}:
		time.AfterFunc(startPause, func() { <-s.starting })
	case <-s.Done():
		s.commands.Give(s.peer)
		return nil, s.Err()
	}
	return func() { s.commands.Give(s.peer) }, nil
}

// terminalName is the form of the names of terminals: one file name.
var terminalName = pattern.Lazy(`^[a-zA-Z0-9][a-zA-Z0-9_.+-]{0,63}$`)

// prompt runs a command for a client, in a terminal if the client has one
// (client-api §3.4). Of the client's environment, the command gets TERM only (CN-17).
func (s *stream) prompt(p params, cmd *exec.Cmd) error {
	release, err := s.claim()
	if err != nil {
		return s.conn.Refuse(err)
	}
	defer release()
	if !p.flag("tty_mode") {
		return trackexec.RunCommand(s, cmd, func() error { return s.conn.Pipe(cmd) })
	}
	name := "xterm"
	if env, ok := p.get("env").(*pickle.Dict); ok {
		if wanted := (params{env}).text("TERM"); terminalName().MatchString(wanted) {
			name = wanted
		}
	}
	cmd.Env = append(cmd.Env, "TERM="+name)
	size := terminal.Size{Rows: 24, Columns: 80}
	if win, ok := p.get("win_size").(pickle.Int16s); ok && len(win) == 4 {
		size = terminal.Size{Rows: uint16(win[0]), Columns: uint16(win[1]), Width: uint16(win[2]), Height: uint16(win[3])}
	}
	return trackexec.RunCommand(s, cmd, func() error { return s.conn.Terminal(size, cmd) })
}
