package remote

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/crypto/ssh"
)

// machine is a node or a device: a server of ssh on the loopback that runs commands as
// this user, in a home of their own.
type machine struct {
	t     *testing.T
	home  string
	users chan string // who has logged in
}

// newMachine starts a machine, and returns it with how it is reached by the real ssh.
func newMachine(t *testing.T) (*machine, SSH) {
	t.Helper()
	for _, program := range []string{"ssh", "ssh-keyscan"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("there is no %s on this machine", program)
		}
	}
	dir := t.TempDir()
	hostKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	host, err := ssh.NewSignerFromKey(hostKey)
	if err != nil {
		t.Fatal(err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := write("id", string(pem.EncodeToMemory(block)), 0o600)
	known := write("known", "walt.node "+string(ssh.MarshalAuthorizedKey(host.PublicKey())), 0o600)

	m := &machine{t: t, home: filepath.Join(dir, "home"), users: make(chan string, 100)}
	if err := os.Mkdir(m.home, 0o700); err != nil {
		t.Fatal(err)
	}
	accepted, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(c ssh.ConnMetadata, offered ssh.PublicKey) (*ssh.Permissions, error) {
		if string(offered.Marshal()) != string(accepted.Marshal()) {
			return nil, fmt.Errorf("not the key of the server")
		}
		return nil, nil
	}}
	config.AddHostKey(host)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { ln.Close(); all.Wait() })
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() { m.serve(conn, config) })
		}
	})
	port := ln.Addr().(*net.TCPAddr).Port
	return m, SSH{
		Program:    write("ssh", fmt.Sprintf("#!/bin/sh\nexec ssh -F /dev/null -p %d -i %s -o BatchMode=yes \"$@\"\n", port, key), 0o700),
		KeyScan:    write("ssh-keyscan", fmt.Sprintf("#!/bin/sh\nexec ssh-keyscan -p %d \"$@\"\n", port), 0o700),
		KnownNodes: known,
		Home:       dir,
	}
}

func (m *machine) serve(conn net.Conn, config *ssh.ServerConfig) {
	defer conn.Close()
	server, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	m.users <- server.User()
	go ssh.DiscardRequests(requests)
	for channel := range channels {
		if channel.ChannelType() != "session" {
			channel.Reject(ssh.UnknownChannelType, "")
			continue
		}
		c, requests, err := channel.Accept()
		if err != nil {
			return
		}
		m.session(c, requests)
	}
}

// session runs one command or shell as sshd does.
func (m *machine) session(c ssh.Channel, requests <-chan *ssh.Request) {
	defer c.Close()
	terminal := false
	for r := range requests {
		cmd := exec.Command("sh")
		cmd.Dir, cmd.Env = m.home, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + m.home}
		switch r.Type {
		case "pty-req":
			terminal = true
			r.Reply(true, nil)
			continue
		case "exec":
			var command struct{ Text string }
			if err := ssh.Unmarshal(r.Payload, &command); err != nil {
				m.t.Error(err)
			}
			cmd.Args = append(cmd.Args, "-c", command.Text)
		case "shell":
		default:
			r.Reply(false, nil)
			continue
		}
		r.Reply(true, nil)
		go ssh.DiscardRequests(requests)
		var status struct{ Code uint32 }
		if err := m.run(cmd, c, terminal); err != nil {
			status.Code = 1
		}
		c.SendRequest("exit-status", false, ssh.Marshal(status))
		return
	}
}

func (m *machine) run(cmd *exec.Cmd, c ssh.Channel, terminal bool) error {
	if terminal {
		f, err := pty.Start(cmd)
		if err != nil {
			return err
		}
		defer f.Close()
		go func() { copyTo(f, c) }()
		copyTo(c, f)
		return cmd.Wait()
	}
	input, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = c, c.Stderr()
	go func() { copyTo(input, c); input.Close() }()
	return cmd.Run()
}

func copyTo(w interface{ Write([]byte) (int, error) }, r interface{ Read([]byte) (int, error) }) {
	buffer := make([]byte, 4096)
	for {
		n, err := r.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// make makes files in the home of the machine; a folder ends with "/".
func (m *machine) make(names ...string) {
	m.t.Helper()
	for _, name := range names {
		path := filepath.Join(m.home, name)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(path, 0o700)
		} else if err == nil {
			err = os.WriteFile(path, nil, 0o600)
		}
		if err != nil {
			m.t.Fatal(err)
		}
	}
}
