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

	"golang.org/x/crypto/ssh"

	"github.com/waltos/waltos/services/daemon/core/remote/sshtest"
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
	config := sshtest.Config(host, accepted)
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
			all.Go(func() { sshtest.Serve(conn, config, m.home, func(user string) { m.users <- user }) })
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
