package images

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/waltos/waltos/services/atomicfile"
)

// keys are the ssh keys that images get.
type keys struct {
	host, hostPublic []byte // host key of all nodes, OpenSSH formats
	dropbear         []byte // the same for dropbear
	// server returns the public key of the server, one line. To make its RSA key takes
	// seconds on a slow machine, so that is left until somebody wants it.
	server     func() (string, error)
	knownHosts string
}

// nodeHost is the name under which the host key of all nodes is known.
const nodeHost = "walt.node"

// loadKeys reads the key pairs, made if they are missing (server-state 1.10). A key
// that cannot be read is an error: to replace it would shut the server out of nodes.
func loadKeys(c Config) (*keys, error) {
	hostPath := filepath.Join(c.State, "keys", "ssh_host_ecdsa_key")
	host, private, err := loadKey(hostPath, "walt-node", func() (any, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) })
	if err != nil {
		return nil, err
	}
	key, ok := private.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("cannot use %s: not an ECDSA key", hostPath)
	}
	k := &keys{host: host}
	if k.hostPublic, err = publicLine(private, "walt-node"); err != nil {
		return nil, err
	}
	if k.dropbear, err = dropbearKey(key); err != nil {
		return nil, fmt.Errorf("cannot use %s: %w", hostPath, err)
	}
	words := strings.Fields(string(k.hostPublic))
	k.knownHosts = nodeHost + " " + words[0] + " " + words[1]

	path := filepath.Join(c.ServerSSH, "id_rsa")
	k.server = sync.OnceValues(func() (string, error) { return serverKey(path) })
	if _, err := os.Stat(path); err == nil {
		if _, err := k.server(); err != nil {
			return nil, err
		}
	}
	for path, content := range map[string][]byte{
		hostPath + ".pub": k.hostPublic,
		filepath.Join(c.State, "keys", "dropbear_ecdsa_host_key"): k.dropbear,
		filepath.Join(c.State, "ssh", "known_hosts.nodes"):        []byte(k.knownHosts),
	} {
		mode := fs.FileMode(0o644)
		if strings.HasSuffix(path, "dropbear_ecdsa_host_key") {
			mode = 0o600
		}
		if err := update(path, content, mode); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// serverKey returns the public key of the server, a line; the key pair is made if it is
// missing.
func serverKey(path string) (string, error) {
	_, private, err := loadKey(path, "root@walt-server", func() (any, error) { return rsa.GenerateKey(rand.Reader, 3072) })
	if err != nil {
		return "", err
	}
	public, err := publicLine(private, "root@walt-server")
	if err != nil {
		return "", err
	}
	// The file may carry a comment of its own; it is what other hosts know.
	if text, err := os.ReadFile(path + ".pub"); err == nil {
		public = text
	}
	line := strings.TrimSpace(string(public))
	return line, update(path+".pub", []byte(line+"\n"), 0o644)
}

// update writes a file unless it has that content.
func update(path string, content []byte, mode fs.FileMode) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(content) {
		return nil
	}
	return atomicfile.Write(path, content, mode)
}

// loadKey reads a private key, or makes one and writes it in the OpenSSH format.
func loadKey(path, comment string, generate func() (any, error)) (text []byte, private any, err error) {
	text, err = os.ReadFile(path)
	if err == nil {
		private, err = ssh.ParseRawPrivateKey(text)
		if err != nil {
			return nil, nil, fmt.Errorf("cannot read key %s: %w", path, err)
		}
		return text, private, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("cannot read key: %w", err)
	}
	if private, err = generate(); err != nil {
		return nil, nil, fmt.Errorf("cannot make key %s: %w", path, err)
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make key %s: %w", path, err)
	}
	text = pem.EncodeToMemory(block)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, nil, fmt.Errorf("cannot write key: %w", err)
	}
	// An old public part would not match.
	if err := os.Remove(path + ".pub"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("cannot write key: %w", err)
	}
	return text, private, atomicfile.Write(path, text, 0o600)
}

func publicLine(private any, comment string) ([]byte, error) {
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, fmt.Errorf("cannot use an ssh key: %w", err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	return []byte(line + " " + comment + "\n"), nil
}

// dropbearKey writes a private key as dropbear's buf_put_ecdsa_priv_key does: the
// public key in the ssh format, then the secret number as an mpint.
func dropbearKey(key *ecdsa.PrivateKey) ([]byte, error) {
	public, err := ssh.NewPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	secret, err := key.Bytes()
	if err != nil {
		return nil, err
	}
	secret = []byte(strings.TrimLeft(string(secret), "\x00"))
	if len(secret) > 0 && secret[0] >= 0x80 {
		secret = append([]byte{0}, secret...) // or it would be negative
	}
	return append(public.Marshal(), ssh.Marshal(struct{ Secret []byte }{secret})...), nil
}
