package keys

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/youmark/pkcs8"
	"golang.org/x/term"

	"github.com/waltos/waltos/image/minisign"
)

// Types of PEM blocks.
const (
	plainKey         = "PRIVATE KEY"
	encryptedKey     = "ENCRYPTED PRIVATE KEY"
	certificateBlock = "CERTIFICATE"
)

// protection makes guessing a passphrase slow: OWASP's number of 2023.
var protection = &pkcs8.Opts{
	Cipher:  pkcs8.AES256CBC,
	KDFOpts: pkcs8.PBKDF2Opts{SaltSize: 16, IterationCount: 600_000, HMACHash: crypto.SHA256},
}

// writeKey writes the private key of a role.
func (s *Store) writeKey(role string, key crypto.PrivateKey) error {
	kind, password := plainKey, []byte(nil)
	if s.passphrase != "" {
		kind, password = encryptedKey, []byte(s.passphrase)
	}
	der, err := pkcs8.MarshalPrivateKey(key, password, protection)
	if err != nil {
		return err
	}
	return s.writeBlock(role+".key", kind, der)
}

// writePublic writes the public key of releases.
func (s *Store) writePublic(role string, key ed25519.PrivateKey) error {
	return os.WriteFile(filepath.Join(s.Dir, role+".pub"), minisign.PublicOf(key).File(), 0o600)
}

// public reads a public key of releases.
func (s *Store) public(name string) (minisign.PublicKey, error) {
	file := filepath.Join(s.Dir, name+".pub")
	content, err := os.ReadFile(file)
	if err != nil {
		return minisign.PublicKey{}, fmt.Errorf("cannot read key: %w", err)
	}
	key, err := minisign.ParsePublicKey(string(content))
	if err != nil {
		return key, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

func (s *Store) writeBlock(name, kind string, der []byte) error {
	return os.WriteFile(filepath.Join(s.Dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// block reads a PEM file.
func (s *Store) block(name string) (*pem.Block, error) {
	file := filepath.Join(s.Dir, name)
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read key: %w", err)
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("cannot read %s: it is not in PEM", file)
	}
	return block, nil
}

// private reads the private key of a name.
func (s *Store) private(name string) (crypto.PrivateKey, error) {
	file := filepath.Join(s.Dir, name+".key")
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("cannot use %s: others can read it; chmod 600 it", file)
	}
	block, err := s.block(name + ".key")
	if err != nil {
		return nil, err
	}
	var password []byte
	switch block.Type {
	case plainKey:
	case encryptedKey:
		text, err := s.secret()
		if err != nil {
			return nil, err
		}
		password = []byte(text)
	default:
		return nil, fmt.Errorf("cannot read %s: it holds %q, not a key in PKCS #8; convert it with openssl pkcs8 -topk8", file, block.Type)
	}
	key, _, err := pkcs8.ParsePrivateKey(block.Bytes, password)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", file, err)
	}
	return key, nil
}

// Certificate reads the certificate of a role, or of its predecessor.
func (s *Store) Certificate(name string) (*x509.Certificate, error) {
	block, err := s.block(name + ".crt")
	if err != nil {
		return nil, err
	}
	issued, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", filepath.Join(s.Dir, name+".crt"), err)
	}
	return issued, nil
}

// protected tells whether a passphrase protects the key of a name.
func (s *Store) protected(name string) (bool, error) {
	block, err := s.block(name + ".key")
	return err == nil && block.Type == encryptedKey, err
}

// secret returns the passphrase of the folder.
func (s *Store) secret() (string, error) {
	if s.passphrase != "" {
		return s.passphrase, nil
	}
	ask := s.Passphrase
	if ask == nil {
		ask = AskPassphrase
	}
	var err error
	s.passphrase, err = ask()
	return s.passphrase, err
}

// PassphraseVariable holds the passphrase where nobody can be asked.
const PassphraseVariable = "WALT_KEYS_PASSPHRASE"

// AskPassphrase takes the passphrase from PassphraseVariable, or from the terminal.
func AskPassphrase() (string, error) {
	if text := os.Getenv(PassphraseVariable); text != "" {
		return text, nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return "", errors.New("cannot ask for the passphrase of the keys: no terminal; set " + PassphraseVariable)
	}
	fmt.Fprint(os.Stderr, "Passphrase of the keys: ")
	text, err := term.ReadPassword(int(os.Stdin.Fd()))
	fmt.Fprintln(os.Stderr)
	if err != nil {
		return "", fmt.Errorf("cannot read the passphrase: %w", err)
	}
	if len(text) == 0 {
		return "", errors.New("cannot use an empty passphrase")
	}
	return string(text), nil
}
