package core

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/creack/pty"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/wire/pickle"
)

// SSH says how nodes and devices are reached (client-api §3.5, node-protocols §4.3).
type SSH struct {
	Program    string // "ssh"
	KnownNodes string // file with the host key that all nodes share
	Home       string // of the account whose key nodes accept
}

// DefaultSSH is that of the appliance.
func DefaultSSH() SSH {
	return SSH{Program: "ssh", KnownNodes: "/var/lib/walt/ssh/known_hosts.nodes", Home: "/root"}
}

// node is the command that reaches a node; command is read by its shell, "" opens one.
func (s SSH) node(ctx context.Context, ip string, terminal bool, command string) *exec.Cmd {
	args := []string{
		"-o", "PreferredAuthentications=publickey", "-o", "UserKnownHostsFile=" + s.KnownNodes,
		"-o", "HostKeyAlias=walt.node", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5",
	}
	if terminal {
		args = append(args, "-t")
	}
	args = append(args, "root@"+ip)
	if command != "" {
		args = append(args, command)
	}
	return s.command(ctx, s.Program, args...)
}

func (s SSH) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Home, "LANG=C.UTF-8"}
	return cmd
}

// nodeAt returns the node that a stream names by its address.
func (s *stream) nodeAt(ip string) (*registry.Device, error) {
	d := s.registry.View().ByIP(ip)
	if d == nil || d.Type != registry.Node {
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
		return err
	}
	return s.prompt(p, s.SSH.node(s, node.IP, p.flag("ssh_tty"), strings.Join(p.texts("cmdargs"), " ")))
}

func (s *stream) devicePing() error {
	p, err := s.ready()
	if err != nil {
		return err
	}
	d := s.registry.View().ByIP(p.text("device_ip"))
	if d == nil {
		return fmt.Errorf("no device has address %q", p.text("device_ip"))
	}
	return s.prompt(p, s.SSH.command(s, "ping", "-c", "10", "-w", "11", d.IP))
}

var loginName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_.-]*$`)

func (s *stream) deviceShell() error {
	p, err := s.ready()
	if err != nil {
		return err
	}
	d := s.registry.View().ByIP(p.text("device_ip"))
	if d == nil {
		return fmt.Errorf("no device has address %q", p.text("device_ip"))
	}
	target := d.IP
	if user := p.text("user"); user != "" {
		if !loginName.MatchString(user) {
			return fmt.Errorf("%q is not a login name", user)
		}
		target = user + "@" + d.IP
	}
	return s.prompt(p, s.SSH.command(s, s.SSH.Program,
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
		"-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", target))
}

// prompt runs a command for a client, in a terminal if the client has one
// (client-api §3.4).
func (s *stream) prompt(p params, cmd *exec.Cmd) error {
	if p.flag("tty_mode") {
		return s.terminal(p, cmd)
	}
	return s.pipe(cmd)
}

// pipe makes the connection the input and the outputs of a command. The end of what the
// client sends is the end of its input, and not its own.
func (s *stream) pipe(cmd *exec.Cmd) error {
	input, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = s.conn, s.conn
	if err := cmd.Start(); err != nil {
		return s.refuse(err)
	}
	stop := context.AfterFunc(s, func() { s.conn.Close() })
	defer stop()
	var fed sync.WaitGroup
	fed.Go(func() {
		_, _ = io.Copy(input, s.r) // a command may end before its input does
		input.Close()
	})
	_ = cmd.Wait() // no exit status is transmitted
	s.end(&fed)
	return nil
}

// lastWords is how long a client may take to leave once it was sent all.
const lastWords = 10 * time.Second

// end closes the connection when the client has received all: a rest that it sends and
// nobody reads would reset the connection, and lose what was sent last. reading is who
// reads the connection.
func (s *stream) end(reading *sync.WaitGroup) {
	_ = s.conn.CloseWrite()
	_ = s.conn.SetReadDeadline(time.Now().Add(lastWords))
	reading.Wait()
	_, _ = io.Copy(io.Discard, s.r)
}

// refuse tells the client why a command cannot be run.
func (s *stream) refuse(err error) error {
	if _, err := fmt.Fprintf(s.conn, "%v\r\n", err); err != nil {
		return err
	}
	s.end(&sync.WaitGroup{})
	return err
}

// terminal runs a command in a new terminal, as leader of its session.
func (s *stream) terminal(p params, cmd *exec.Cmd) error {
	term := "xterm"
	if env, ok := p.get("env").(*pickle.Dict); ok {
		if value, _ := env.Get("TERM"); value != nil {
			if name, ok := value.(string); ok && loginName.MatchString(name) {
				term = name
			}
		}
	}
	cmd.Env = append(cmd.Env, "TERM="+term)
	size := &pty.Winsize{Rows: 24, Cols: 80}
	if win, ok := p.get("win_size").(pickle.Int16s); ok && len(win) == 4 {
		size = &pty.Winsize{Rows: uint16(win[0]), Cols: uint16(win[1]), X: uint16(win[2]), Y: uint16(win[3])}
	}
	master, err := pty.StartWithSize(cmd, size)
	if err != nil {
		return s.refuse(err)
	}
	defer master.Close()
	var typed sync.WaitGroup
	typed.Go(func() {
		s.typeInto(master)
		// The client has left: the command goes with it, after the hang-up of its
		// terminal. Both do nothing to a command that has ended.
		master.Close()
		_ = cmd.Process.Kill()
		s.conn.Close()
	})
	_, _ = io.Copy(s.conn, master) // ends with EIO when the terminal has no user left
	_ = cmd.Wait()
	s.end(&typed)
	return nil
}

func (p params) get(key string) any {
	value, _ := p.dict.Get(key)
	return value
}

// typeInto passes what the client types to its terminal, until it leaves or sends what is
// not understood.
func (s *stream) typeInto(master *os.File) {
	decoder := pickle.NewDecoder(s.r, paramsLimits)
	for {
		value, err := decoder.Decode()
		if err != nil {
			return
		}
		event, ok := value.(*pickle.Dict)
		if !ok {
			return
		}
		e := params{event}
		switch e.text("evt") {
		case "input_data":
			data, _ := e.get("data").([]byte)
			if _, err := master.Write(data); err != nil {
				return
			}
		case "window_resize":
			size := &pty.Winsize{Rows: uint16(e.number("lines")), Cols: uint16(e.number("columns"))}
			if err := pty.Setsize(master, size); err != nil {
				return
			}
		default:
			return
		}
	}
}

// quote makes one word of a text for the shell of a node.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// tarFromNode sends a file or folder of a node as a tar stream whose top member has the
// wanted name (client-api §3.8). Nothing else is ever written: what the command says
// goes to the daemon's log (CN-18).
func (s *stream) tarFromNode() error {
	p, node, err := s.transfer()
	if err != nil {
		return err
	}
	// A link of the wanted name, followed, gives the member its name with any tar.
	script := `set -e; src=$(readlink -f -- ` + quote(p.text("src_path")) + `); [ -e "$src" ]; ` +
		`tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; ln -s -- "$src" "$tmp"/` + quote(p.text("dst_name")) +
		`; tar -c -h -f - -C "$tmp" -- ` + quote(p.text("dst_name"))
	cmd := s.SSH.node(s, node.IP, false, script)
	cmd.Stdout = s.conn
	var said excerpt
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("cannot send %s of node %s: %w: %s", p.text("src_path"), node.Name, err, said.String())
	}
	return nil
}

// tarToNode extracts the tar stream of a client on a node. What the command says is
// shown by the client as an error.
func (s *stream) tarToNode() error {
	p, node, err := s.transfer()
	if err != nil {
		return err
	}
	return s.pipe(s.SSH.node(s, node.IP, false, "cd "+quote(p.text("dst_dir"))+" && tar -x -f -"))
}

// transfer reads the parameters of a file transfer with a node.
func (s *stream) transfer() (params, *registry.Device, error) {
	p, err := s.ready()
	if err != nil {
		return p, nil, err
	}
	node, err := s.nodeAt(p.text("node_ip"))
	if err != nil {
		return p, nil, err
	}
	if name := p.text("dst_name"); name == "" || strings.Contains(name, "/") || strings.ContainsRune(name+p.text("src_path")+p.text("dst_dir"), 0) {
		return p, nil, fmt.Errorf("%q is not a file name", name)
	}
	return p, node, nil
}

// excerpt keeps the first bytes of what a command says.
type excerpt struct{ text []byte }

func (t *excerpt) Write(p []byte) (int, error) {
	const enough = 1024
	if room := enough - len(t.text); room > 0 {
		t.text = append(t.text, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func (t *excerpt) String() string { return printable(strings.TrimSpace(string(t.text))) }
