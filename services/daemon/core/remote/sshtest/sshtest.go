// Package sshtest is a server of ssh for tests, which stands for that of a node or a device.
// It runs commands and shells as this user, with a terminal if one is asked for. It is no
// server for anybody else.
package sshtest

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"

	"github.com/creack/pty"
	"golang.org/x/crypto/ssh"
)

// Config returns what a server that has a host key and accepts one key of clients is
// configured with.
func Config(host ssh.Signer, client ssh.PublicKey) *ssh.ServerConfig {
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, offered ssh.PublicKey) (*ssh.Permissions, error) {
		if string(offered.Marshal()) != string(client.Marshal()) {
			return nil, errors.New("not the key of the server")
		}
		return nil, nil
	}}
	config.AddHostKey(host)
	return config
}

// Serve serves a connection to its end. Commands run in a home folder. login is told who has
// logged in.
func Serve(conn net.Conn, config *ssh.ServerConfig, home string, login func(user string)) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer conn.Close()
	server, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	login(server.User())
	go ssh.DiscardRequests(requests)
	for c := range channels {
		if c.ChannelType() != "session" {
			c.Reject(ssh.UnknownChannelType, "")
			continue
		}
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		s := &shell{Channel: channel, home: home}
		go s.serve(ctx, requests)
	}
}

// shell is one session.
type shell struct {
	ssh.Channel
	home     string
	size     *pty.Winsize // nil: no terminal
	term     string
	terminal *os.File
}

func (s *shell) serve(ctx context.Context, requests <-chan *ssh.Request) {
	for r := range requests {
		known := true
		switch r.Type {
		case "pty-req":
			var p struct {
				Term                   string
				Cols, Rows, Wide, High uint32
				Modes                  string
			}
			known = ssh.Unmarshal(r.Payload, &p) == nil
			s.term, s.size = p.Term, &pty.Winsize{Rows: uint16(p.Rows), Cols: uint16(p.Cols)}
		case "window-change":
			if s.terminal != nil && len(r.Payload) >= 8 {
				pty.Setsize(s.terminal, &pty.Winsize{
					Cols: uint16(binary.BigEndian.Uint32(r.Payload)), Rows: uint16(binary.BigEndian.Uint32(r.Payload[4:]))})
			}
		case "shell":
			known = s.run(exec.CommandContext(ctx, "/bin/sh")) == nil
		case "exec":
			var p struct{ Command string }
			known = ssh.Unmarshal(r.Payload, &p) == nil && s.run(exec.CommandContext(ctx, "/bin/sh", "-c", p.Command)) == nil
		case "env":
		default:
			known = false
		}
		if r.WantReply {
			r.Reply(known, nil)
		}
	}
	s.Close()
}

// run starts a command whose end is the end of the session.
func (s *shell) run(cmd *exec.Cmd) error {
	cmd.Dir = s.home
	cmd.Env = []string{"HOME=" + s.home, "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "PS1=node# ", "TERM=" + s.term}
	if s.size == nil {
		input, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		cmd.Stdout, cmd.Stderr = s, s.Stderr()
		if err := cmd.Start(); err != nil {
			return err
		}
		go func() {
			io.Copy(input, s)
			input.Close()
		}()
		go func() { s.end(cmd.Wait()) }()
		return nil
	}
	terminal, err := pty.StartWithSize(cmd, s.size)
	if err != nil {
		return err
	}
	s.terminal = terminal
	go io.Copy(terminal, s)
	go func() {
		io.Copy(s, terminal)
		s.end(cmd.Wait())
		terminal.Close()
	}()
	return nil
}

func (s *shell) end(err error) {
	status := struct{ Status uint32 }{}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status.Status = uint32(max(exit.ExitCode(), 1))
	}
	s.SendRequest("exit-status", false, ssh.Marshal(status))
	s.Close()
}
