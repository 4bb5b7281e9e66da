// Package remote reaches nodes and other devices by ssh (client-api §3.5, node-protocols
// §4.3): commands and shells of users, and what the server itself asks nodes about their
// files.
//
// Addresses, names and paths may come from anybody: an address must be one, no argument
// can be taken for an option, and what a shell reads is quoted. A node's answers are
// bounded in size and time.
package remote

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/waltos/waltos/services/daemon/trackexec"
	"github.com/waltos/waltos/services/internal/pattern"
)

const (
	// scanTimeout bounds the scan of the host keys of a device.
	scanTimeout = 10 * time.Second
	// maxKeys bounds what a scan may answer.
	maxKeys = 64 << 10
)

// SSH says how nodes and devices are reached.
type SSH struct {
	Program    string // "ssh"
	KeyScan    string // "ssh-keyscan"
	KnownNodes string // file with the host key that all nodes share
	Home       string // of the account whose key nodes accept
}

// Default is that of the appliance.
func Default() SSH {
	return SSH{Program: "ssh", KeyScan: "ssh-keyscan", KnownNodes: "/var/lib/walt/ssh/known_hosts.nodes", Home: "/root"}
}

// alive ends a connection to what does not answer any more.
var alive = []string{"-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5"}

// Node is the command that reaches a node; command is read by the shell of its root, ""
// opens one.
func (s SSH) Node(ctx context.Context, ip string, terminal bool, command string) (*exec.Cmd, error) {
	if _, err := netip.ParseAddr(ip); err != nil {
		return nil, fmt.Errorf("cannot reach a node: %q is not an address", ip)
	}
	args := append([]string{
		"-o", "PreferredAuthentications=publickey", "-o", "UserKnownHostsFile=" + s.KnownNodes, "-o", "HostKeyAlias=walt.node",
	}, alive...)
	if terminal {
		args = append(args, "-t")
	}
	args = append(args, "--", "root@"+ip)
	if command != "" {
		args = append(args, command)
	}
	return s.Command(ctx, s.Program, args...), nil
}

// Command prepares a program of the server that looks at the network.
func (s SSH) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Home, "LANG=C.UTF-8"}
	return cmd
}

var loginName = pattern.Lazy(`^[a-zA-Z_][a-zA-Z0-9_.-]*\$?$`)

// Shell is the command that opens a shell on a device, for a user or ("") for that of the
// server. The host keys that the device shows now are trusted, for this connection only;
// clean removes what was kept of them.
func (s SSH) Shell(ctx context.Context, ip, user string) (cmd *exec.Cmd, clean func(), err error) {
	if _, err := netip.ParseAddr(ip); err != nil {
		return nil, nil, fmt.Errorf("cannot reach a device: %q is not an address", ip)
	}
	target := ip
	if user != "" {
		if !loginName().MatchString(user) {
			return nil, nil, fmt.Errorf("%q is not a login name", user)
		}
		target = user + "@" + ip
	}
	known, err := s.scan(ctx, ip)
	if err != nil {
		return nil, nil, err
	}
	// A device that shows no key now may do so a moment later, or ssh tells why not.
	args := append([]string{"-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile=" + known}, alive...)
	return s.Command(ctx, s.Program, append(args, "--", target)...), func() { os.Remove(known) }, nil
}

// scan writes the host keys of a device to a new file.
func (s SSH) scan(ctx context.Context, ip string) (path string, err error) {
	ctx, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	var keys bytes.Buffer
	cmd := s.Command(ctx, s.KeyScan, "-T", "5", "--", ip)
	cmd.Stdout = &atMost{&keys, maxKeys}
	_ = trackexec.RunCommand(ctx, cmd, cmd.Run) // no key is no key, whatever the reason
	f, err := os.CreateTemp("", "known_hosts.")
	if err != nil {
		return "", fmt.Errorf("cannot keep the host keys of %s: %w", ip, err)
	}
	_, err = f.Write(keys.Bytes())
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		os.Remove(f.Name())
		return "", fmt.Errorf("cannot keep the host keys of %s: %w", ip, err)
	}
	return f.Name(), nil
}

// atMost fails when more than left bytes are written.
type atMost struct {
	w    io.Writer
	left int
}

func (a *atMost) Write(p []byte) (int, error) {
	if len(p) > a.left {
		return 0, io.ErrShortWrite
	}
	a.left -= len(p)
	return a.w.Write(p)
}

// Quote makes one word of a text for the shell of a node. The text has no NUL.
func Quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
