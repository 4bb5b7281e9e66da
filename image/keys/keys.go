// Package keys keeps the secret keys of a builder, outside of the sources: one that signs
// releases, and the three of Secure Boot.
//
// In the folder of a Store each role has a private key (PKCS #8 in PEM, RFC 5208 and 7468;
// with a passphrase: PBES2 of RFC 8018) ROLE.key, and what is public of it: for Secure Boot a
// certificate (X.509 in PEM) ROLE.crt, for releases a key of minisign ROLE.pub. What
// a key replaced stays as ROLE.previous.*: machines that trust only that are served until the
// files are removed. The keys of PK and KEK may be kept elsewhere; only Export needs them.
//
// Refused: key files that others can read, keys inside the sources, release keys that are not
// Ed25519, keys of Secure Boot that package sign refuses.
package keys

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/waltos/waltos/image/gpt"
	"github.com/waltos/waltos/image/minisign"
	"github.com/waltos/waltos/image/sign"
)

// Release is the role of the key that signs manifests and upgrade bundles; the other
// roles have the names of the variables of Secure Boot.
const Release = "release"

// Roles are all roles of keys.
var Roles = []string{Release, sign.PlatformKey, sign.ExchangeKeys, sign.Programs}

// Store is a folder of keys.
type Store struct {
	Dir string
	// Sources is a folder in which no keys are made; may be empty.
	Sources string
	// Passphrase is asked for what protects key files; nil: see AskPassphrase.
	Passphrase func() (string, error)
	// Now is the clock; nil: time.Now.
	Now func() time.Time

	passphrase string // once it is known
}

// FolderVariable names the folder of keys.
const FolderVariable = "WALT_KEYS"

// DefaultFolder is where keys are unless told otherwise.
func DefaultFolder() (string, error) {
	if dir := os.Getenv(FolderVariable); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("cannot choose a folder for keys: %w; name one by %s", err, FolderVariable)
	}
	return filepath.Join(dir, "waltos", "keys"), nil
}

// developmentUnit, in the certificates, marks keys that nobody asked for.
const developmentUnit = "local development"

// Ensure makes development keys, without a passphrase, where there are none, and tells
// whether it did.
func (s *Store) Ensure() (made bool, err error) {
	if s.exists() {
		return false, nil
	}
	err = s.generate(pkix.Name{CommonName: "walt", OrganizationalUnit: []string{developmentUnit}}, "")
	if errors.Is(err, fs.ErrExist) { // another build was faster
		return false, nil
	}
	return err == nil, err
}

// Generate makes keys of all roles. Development keys are moved aside; others are never
// replaced.
func (s *Store) Generate(name, passphrase string) error {
	if s.exists() {
		development, err := s.Development()
		if err != nil {
			return err
		}
		if !development {
			return fmt.Errorf("cannot make keys: %s has some; rotate single ones, or name another folder", s.Dir)
		}
		if err := os.Rename(s.Dir, s.Dir+".development"); err != nil {
			return fmt.Errorf("cannot move the development keys aside: %w", err)
		}
	}
	return s.generate(pkix.Name{CommonName: name}, passphrase)
}

// exists tells whether anything is in the folder.
func (s *Store) exists() bool {
	entries, err := os.ReadDir(s.Dir)
	return err == nil && len(entries) > 0
}

// generate makes the whole folder, or nothing.
func (s *Store) generate(subject pkix.Name, passphrase string) error {
	fail := func(err error) error { return fmt.Errorf("cannot make keys in %s: %w", s.Dir, err) }
	if err := s.outside(); err != nil {
		return fail(err)
	}
	if err := os.MkdirAll(filepath.Dir(s.Dir), 0o700); err != nil {
		return fail(err)
	}
	temp, err := os.MkdirTemp(filepath.Dir(s.Dir), ".keys-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(temp)
	made := &Store{Dir: temp, Now: s.Now, passphrase: passphrase}
	for _, role := range Roles {
		if err := made.make(role, subject); err != nil {
			return fail(err)
		}
	}
	if err := os.Rename(temp, s.Dir); err != nil {
		if s.exists() {
			err = fs.ErrExist
		}
		return fail(err)
	}
	return nil
}

// outside refuses a folder inside of the sources.
func (s *Store) outside() error {
	if s.Sources == "" {
		return nil
	}
	dir, err := filepath.Abs(s.Dir)
	if err != nil {
		return err
	}
	below, err := filepath.Rel(s.Sources, dir)
	if err == nil && filepath.IsLocal(below) && !strings.HasPrefix(below, ".cache"+string(filepath.Separator)) {
		return errors.New("it is in the repository, where keys would be published; name another folder")
	}
	return nil
}

// make makes the key of a role.
func (s *Store) make(role string, subject pkix.Name) error {
	if role == Release {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		if err := s.writeKey(role, key); err != nil {
			return err
		}
		return s.writePublic(role, key)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	subject.CommonName += purpose(role)
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	// Firmware looks neither at the times nor at the extensions.
	template := &x509.Certificate{
		SerialNumber: serial, Subject: subject, NotBefore: s.now(), NotAfter: s.now().AddDate(30, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	if err := s.writeKey(role, key); err != nil {
		return err
	}
	return s.writeBlock(role+".crt", certificateBlock, raw)
}

func (s *Store) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// Development tells whether the keys are those that Ensure made.
func (s *Store) Development() (bool, error) {
	certificate, err := s.Certificate(sign.Programs)
	if err != nil {
		return false, err
	}
	return slices.Contains(certificate.Subject.OrganizationalUnit, developmentUnit), nil
}

// Rotate makes a new key of a role, of the same owner; the old one becomes the previous
// one.
func (s *Store) Rotate(role string) error {
	return s.succeed(role, func(made *Store) error {
		var subject pkix.Name
		if role != Release {
			old, err := s.Certificate(role)
			if err != nil {
				return err
			}
			subject.CommonName = strings.TrimSuffix(old.Subject.CommonName, purpose(role))
			subject.OrganizationalUnit = old.Subject.OrganizationalUnit
		}
		protected, err := s.protected(role)
		if err != nil {
			return err
		}
		if protected { // then the new one is too
			if made.passphrase, err = s.secret(); err != nil {
				return err
			}
		}
		return made.make(role, subject)
	})
}

// purpose ends the name of the owner in a certificate.
func purpose(role string) string { return " Secure Boot " + role }

// Replace takes a key of the administrator's for a role: PKCS #8 in PEM, and for a role of
// Secure Boot a certificate in PEM. The old key becomes the previous one. A key of
// PK or KEK may be nil.
func (s *Store) Replace(role string, key, certificate []byte) error {
	return s.succeed(role, func(made *Store) error {
		if role == Release && certificate != nil {
			return errors.New("a release key has no certificate")
		}
		if role != Release && certificate == nil {
			return errors.New("its certificate is missing")
		}
		if key == nil && (role == Release || role == sign.Programs) {
			return errors.New("builds sign with it: its private key is missing")
		}
		for name, content := range map[string][]byte{role + ".key": key, role + ".crt": certificate} {
			if content == nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(made.Dir, name), content, 0o600); err != nil {
				return err
			}
		}
		made.Passphrase = s.Passphrase
		switch {
		case role == Release:
			key, err := made.release(role)
			if err != nil {
				return err
			}
			return made.writePublic(role, key)
		case key == nil:
			_, err := made.Certificate(role)
			return err
		}
		_, err := made.Signer(role)
		return err
	})
}

// succeed puts what make leaves in a folder in the place of the files of a role, and those in
// the place of the previous ones.
func (s *Store) succeed(role string, make func(*Store) error) error {
	fail := func(err error) error { return fmt.Errorf("cannot replace key %s in %s: %w", role, s.Dir, err) }
	if !slices.Contains(Roles, role) {
		return fail(fmt.Errorf("there is no such role; the roles are %s", strings.Join(Roles, ", ")))
	}
	temp, err := os.MkdirTemp(s.Dir, ".new-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(temp)
	if err := make(&Store{Dir: temp, Now: s.Now}); err != nil {
		return fail(err)
	}
	for _, suffix := range []string{".key", ".crt", ".pub"} {
		current := filepath.Join(s.Dir, role+suffix)
		previous := filepath.Join(s.Dir, previous(role)+suffix)
		if err := os.Rename(current, previous); errors.Is(err, fs.ErrNotExist) {
			err = os.Remove(previous) // a pair stays one
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fail(err)
			}
		} else if err != nil {
			return fail(err)
		}
		if err := os.Rename(filepath.Join(temp, role+suffix), current); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fail(err)
		}
	}
	return nil
}

// previous is the name of the files of what a role had before.
func previous(role string) string { return role + ".previous" }

// Releases returns the keys that sign releases: the current one, and the previous one
// if it is there.
func (s *Store) Releases() ([]ed25519.PrivateKey, error) {
	current, err := s.release(Release)
	if err != nil {
		return nil, err
	}
	old, err := s.release(previous(Release))
	if errors.Is(err, fs.ErrNotExist) {
		return []ed25519.PrivateKey{current}, nil
	}
	return []ed25519.PrivateKey{current, old}, err
}

func (s *Store) release(name string) (ed25519.PrivateKey, error) {
	key, err := s.private(name)
	if err != nil {
		return nil, err
	}
	release, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("cannot sign releases with key %s: it is %T, not Ed25519", name, key)
	}
	return release, nil
}

// Signer returns the key of a role of Secure Boot with its certificate.
func (s *Store) Signer(role string) (*sign.Signer, error) {
	certificate, err := s.Certificate(role)
	if err != nil {
		return nil, err
	}
	key, err := s.private(role)
	if err != nil {
		return nil, err
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("cannot use key %s for Secure Boot: it is %T, not RSA", role, key)
	}
	signer := &sign.Signer{Key: private, Certificate: certificate}
	if err := signer.Check(); err != nil {
		return nil, fmt.Errorf("key %s: %w", role, err)
	}
	return signer, nil
}

// certificates returns what firmware shall trust for a role: the certificate, and the previous one
// if it is there. Of platform keys there is one only.
func (s *Store) certificates(role string) ([][]byte, error) {
	current, err := s.Certificate(role)
	if err != nil {
		return nil, err
	}
	all := [][]byte{current.Raw}
	if role == sign.PlatformKey {
		return all, nil
	}
	old, err := s.Certificate(previous(role))
	switch {
	case err == nil:
		all = append(all, old.Raw)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return all, nil
}

// Variables returns the variables that make firmware trust the keys, and more
// certificates (DER) for programs.
func (s *Store) Variables(at time.Time, also ...[]byte) ([]sign.Variable, error) {
	platform, err := s.Certificate(sign.PlatformKey)
	if err != nil {
		return nil, err
	}
	owner := gpt.DerivedGUID("owner " + Fingerprint(platform.Raw))
	var all []sign.Variable
	for _, role := range []string{sign.Programs, sign.ExchangeKeys, sign.PlatformKey} { // with the last, firmware is locked
		certificates, err := s.certificates(role)
		if err != nil {
			return nil, err
		}
		if role == sign.Programs {
			certificates = append(certificates, also...)
		}
		all = append(all, sign.NewVariable(role, at, owner, certificates...))
	}
	return all, nil
}

// Fingerprint is the SHA-256 of a certificate (DER) in hexadecimal.
func Fingerprint(certificate []byte) string {
	sum := sha256.Sum256(certificate)
	return hex.EncodeToString(sum[:])
}

// Trusted returns the public keys of releases: the current one, and the previous one if
// it is there.
func (s *Store) Trusted() ([]minisign.PublicKey, error) {
	current, err := s.public(Release)
	if err != nil {
		return nil, err
	}
	old, err := s.public(previous(Release))
	if errors.Is(err, fs.ErrNotExist) {
		return []minisign.PublicKey{current}, nil
	}
	return []minisign.PublicKey{current, old}, err
}
