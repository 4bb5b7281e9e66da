package platform

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// keyFile is the private key of a lab, in its folder, in the format of OpenSSH.
const keyFile = "ssh_key"

// ensureKey makes the key pair of a lab unless it has one, and returns the line for
// authorized_keys.
func ensureKey(folder string) (string, error) {
	signer, err := loadKey(folder)
	if errors.Is(err, os.ErrNotExist) {
		signer, err = makeKey(folder)
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))) + " lab", nil
}

func makeKey(folder string) (ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make an ssh key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "lab")
	if err != nil {
		return nil, fmt.Errorf("cannot make an ssh key: %w", err)
	}
	if err := os.WriteFile(filepath.Join(folder, keyFile), pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, fmt.Errorf("cannot keep the ssh key: %w", err)
	}
	return ssh.NewSignerFromKey(private)
}

func loadKey(folder string) (ssh.Signer, error) {
	data, err := os.ReadFile(filepath.Join(folder, keyFile))
	if err != nil {
		return nil, fmt.Errorf("cannot read the ssh key of the lab: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read the ssh key of the lab: %w", err)
	}
	return signer, nil
}

// greetingTime bounds the begin of a connection: QEMU accepts one also when nothing comes of it.
const greetingTime = time.Minute

// Shell runs commands on the appliance of a lab, from any process.
type Shell struct {
	Folder   string
	Endpoint string // address and port of its ssh server
}

// Run executes a command as root on the appliance and returns its exit code; an empty
// command is a shell. An error says that there is no code.
func (s Shell) Run(ctx context.Context, command string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	fail := func(err error) (int, error) {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return 0, fmt.Errorf("cannot run a command on the appliance: %w", err)
	}
	key, err := loadKey(s.Folder)
	if err != nil {
		return fail(err)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", s.Endpoint)
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(greetingTime)); err != nil {
		return fail(err)
	}
	inner, channels, requests, err := ssh.NewClientConn(conn, s.Endpoint, &ssh.ClientConfig{
		User: "root",
		Auth: []ssh.AuthMethod{ssh.PublicKeys(key)},
		// A machine of ours, made a moment ago, behind a loopback address: there
		// is nothing its host key could be compared with.
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		return fail(err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return fail(err)
	}
	connection := ssh.NewClient(inner, channels, requests)
	defer connection.Close()
	session, err := connection.NewSession()
	if err != nil {
		return fail(err)
	}
	defer session.Close()
	session.Stdin, session.Stdout, session.Stderr = stdin, stdout, stderr
	if command == "" {
		if err = session.RequestPty("xterm", 24, 80, ssh.TerminalModes{}); err == nil {
			if err = session.Shell(); err == nil {
				err = session.Wait()
			}
		}
	} else {
		err = session.Run(command)
	}
	var exit *ssh.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitStatus(), nil
	case err != nil:
		return fail(err)
	}
	return 0, nil
}

// Output runs a command and returns what it printed, both streams together. An exit
// code other than 0 is an error.
func (s Shell) Output(ctx context.Context, command string) (string, error) {
	var out, complaints bytes.Buffer
	code, err := s.Run(ctx, command, nil, &out, &complaints)
	if err == nil && code != 0 {
		err = fmt.Errorf("command %q on the appliance ended with code %d: %s", command, code, strings.TrimSpace(complaints.String()))
	}
	return out.String() + complaints.String(), err
}
