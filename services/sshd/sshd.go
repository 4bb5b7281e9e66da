// Package sshd starts Debian's OpenSSH server: it makes the host key at first boot,
// then becomes the server (execve). Administrators log in as root with the keys of
// the site file; there is no password.
package sshd

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/atomicfile"
)

// Main runs as root.
func Main(_ context.Context, args []string) error {
	flags := flag.NewFlagSet("sshd", flag.ContinueOnError)
	keys := flags.String("keys", "/var/lib/ssh", "folder of the host key")
	server := flags.String("server", "/usr/sbin/sshd", "the OpenSSH server")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := ensureHostKey(filepath.Join(*keys, "ssh_host_ed25519_key")); err != nil {
		return err
	}
	// sshd refuses to start without its privilege separation folder.
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		return fmt.Errorf("cannot start sshd: %w", err)
	}
	argv := []string{*server, "-D", "-e"}
	return fmt.Errorf("cannot execute %s: %w", *server, unix.Exec(*server, argv, os.Environ()))
}

// ensureHostKey makes an ed25519 key pair at path and path.pub unless it exists.
func ensureHostKey(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot look at the ssh host key: %w", err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("cannot make an ssh host key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return fmt.Errorf("cannot encode the ssh host key: %w", err)
	}
	sshPublic, err := ssh.NewPublicKey(public)
	if err != nil {
		return fmt.Errorf("cannot encode the ssh host key: %w", err)
	}
	// The private key comes last: its presence ends the making.
	if err := atomicfile.Write(path+".pub", ssh.MarshalAuthorizedKey(sshPublic), 0o644); err != nil {
		return fmt.Errorf("cannot write the ssh host key: %w", err)
	}
	if err := atomicfile.Write(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return fmt.Errorf("cannot write the ssh host key: %w", err)
	}
	return nil
}
