package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/image/inputs/inputstest"
	"github.com/waltos/waltos/image/sign"
	"github.com/waltos/waltos/image/toolbox"
)

// store returns a folder that is not there yet.
func store(t *testing.T) *Store {
	return &Store{Dir: filepath.Join(t.TempDir(), "config", "keys"), Passphrase: func() (string, error) {
		return "", errors.New("nobody should have asked")
	}}
}

func read(t *testing.T, name ...string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(name...))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestEnsure(t *testing.T) {
	s := store(t)
	if made, err := s.Ensure(); err != nil || !made {
		t.Fatalf("%v, %v", made, err)
	}
	if made, err := s.Ensure(); err != nil || made {
		t.Errorf("made again: %v, %v", made, err)
	}
	for _, name := range []string{"release.key", "PK.key", "KEK.key", "db.key"} {
		if info, err := os.Stat(filepath.Join(s.Dir, name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if development, err := s.Development(); err != nil || !development {
		t.Errorf("development %v, %v", development, err)
	}
	var table bytes.Buffer
	if err := s.Show(&table); err != nil || !strings.Contains(table.String(), "local development keys") {
		t.Errorf("%v\n%s", err, &table)
	}

	// Keys that somebody asks for take their place; those are never replaced as a whole.
	if err := s.Generate("lab of somebody", ""); err != nil {
		t.Fatal(err)
	}
	if development, err := s.Development(); err != nil || development {
		t.Errorf("development %v, %v", development, err)
	}
	read(t, s.Dir+".development", "db.key")
	if err := s.Generate("again", ""); err == nil || !strings.Contains(err.Error(), "rotate") {
		t.Errorf("made twice: %v", err)
	}
	table.Reset()
	if err := s.Show(&table); err != nil || !strings.Contains(table.String(), "CN=lab of somebody Secure Boot db") {
		t.Errorf("%v\n%s", err, &table)
	}
}

// Many builds at once agree on one set of keys.
func TestEnsureTogether(t *testing.T) {
	s := store(t)
	const builds = 4
	count := make(chan bool, builds)
	for range builds {
		go func() {
			made, err := (&Store{Dir: s.Dir}).Ensure()
			if err != nil {
				t.Error(err)
			}
			count <- made
		}()
	}
	made := 0
	for range builds {
		if <-count {
			made++
		}
	}
	if made != 1 {
		t.Errorf("%d of %d made keys", made, builds)
	}
	if left, _ := os.ReadDir(filepath.Dir(s.Dir)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOutsideOfSources(t *testing.T) {
	sources := t.TempDir()
	if _, err := (&Store{Dir: filepath.Join(sources, "image", "secret"), Sources: sources}).Ensure(); err == nil || !strings.Contains(err.Error(), "repository") {
		t.Errorf("keys were made in the repository: %v", err)
	}
	if _, err := (&Store{Dir: filepath.Join(sources, ".cache", "keys"), Sources: sources}).Ensure(); err != nil {
		t.Error(err)
	}
}

func TestPassphrase(t *testing.T) {
	s := store(t)
	if err := s.Generate("x", "secret"); err != nil {
		t.Fatal(err)
	}
	if key := read(t, s.Dir, "release.key"); !bytes.HasPrefix(key, []byte("-----BEGIN ENCRYPTED PRIVATE KEY")) {
		t.Errorf("the key is open:\n%s", key)
	}
	if _, err := s.Releases(); err == nil || !strings.Contains(err.Error(), "nobody should") {
		t.Errorf("no passphrase was needed: %v", err)
	}
	asked := 0
	ask := func(text string) func() (string, error) {
		return func() (string, error) { asked++; return text, nil }
	}
	if _, err := (&Store{Dir: s.Dir, Passphrase: ask("wrong")}).Releases(); err == nil {
		t.Error("a wrong passphrase opened the key")
	}
	asked = 0
	open := &Store{Dir: s.Dir, Passphrase: ask("secret")}
	if _, err := open.Signer(sign.Programs); err != nil {
		t.Fatal(err)
	}
	if err := open.Rotate(Release); err != nil {
		t.Fatal(err)
	}
	if all, err := open.Releases(); err != nil || len(all) != 2 || asked != 1 {
		t.Errorf("%d keys, asked %d times, %v", len(all), asked, err)
	}
	if all, err := s.Trusted(); err != nil || len(all) != 2 { // without the passphrase
		t.Errorf("%v, %v", all, err)
	}
	if key := read(t, s.Dir, "release.key"); !bytes.HasPrefix(key, []byte("-----BEGIN ENCRYPTED")) {
		t.Error("the new key of a protected one is open")
	}
}

func TestRefusals(t *testing.T) {
	s := store(t)
	if _, err := s.Ensure(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.Dir, "release.key")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Releases(); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: %v", err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	release, db, crt, pk := read(t, file), read(t, s.Dir, "db.key"), read(t, s.Dir, "db.crt"), read(t, s.Dir, "PK.crt")
	for _, c := range []struct {
		want, role       string
		key, certificate []byte
	}{
		{"no such role", "dbx", db, crt},
		{"not Ed25519", Release, db, nil},
		{"not RSA", sign.Programs, release, crt},
		{"not that of the key", sign.Programs, db, pk},
		{"certificate is missing", sign.Programs, db, nil},
		{"private key is missing", sign.Programs, nil, crt},
		{"no certificate", Release, release, crt},
		{"not in PEM", Release, []byte("garbage"), nil},
		{"openssl pkcs8", Release, []byte("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"), nil},
	} {
		if err := s.Replace(c.role, c.key, c.certificate); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.want, err)
		}
	}
	if got := read(t, file); !bytes.Equal(got, release) {
		t.Error("a refused key has replaced the old one")
	}
	if left, _ := filepath.Glob(filepath.Join(s.Dir, "*previous*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A key of openssl takes the place of ours; what its predecessor was trusted for goes on.
func TestReplace(t *testing.T) {
	box, s := tools(t), store(t)
	if err := s.Generate("first", ""); err != nil {
		t.Fatal(err)
	}
	first, err := s.Releases()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key, certificate := filepath.Join(dir, "own.pem"), filepath.Join(dir, "own.crt")
	run := func(args ...string) string {
		t.Helper()
		command := box.Command(t.Context(), "openssl", args...)
		command.Env = append(command.Env, "OPENSSL_CONF="+box.Path("etc/ssl/openssl.cnf"))
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("req", "-x509", "-newkey", "rsa:2048", "-keyout", key, "-out", certificate, "-passout", "pass:own", "-days", "10", "-subj", "/CN=my own/")
	s.Passphrase = func() (string, error) { return "own", nil }
	if err := s.Replace(sign.Programs, read(t, key), read(t, certificate)); err != nil {
		t.Fatal(err)
	}
	if signer, err := s.Signer(sign.Programs); err != nil || signer.Certificate.Subject.CommonName != "my own" {
		t.Errorf("%v, %v", signer, err)
	}
	run("genpkey", "-algorithm", "ed25519", "-out", key)
	if err := s.Replace(Release, read(t, key), nil); err != nil {
		t.Fatal(err)
	}
	if now, err := s.Releases(); err != nil || len(now) != 2 || !now[1].Equal(first[0]) || now[0].Equal(first[0]) {
		t.Errorf("%d keys, %v", len(now), err)
	}

	// The platform key's private part may go elsewhere once the rest is done.
	out := filepath.Join(dir, "out")
	if err := s.Rotate(sign.PlatformKey); err != nil {
		t.Fatal(err)
	}
	if err := s.Export(out); err != nil {
		t.Fatal(err)
	}
	run("x509", "-inform", "DER", "-in", filepath.Join(out, "db.cer"), "-noout", "-subject")
	lists := filepath.Join(dir, "found")
	if text, err := box.Command(t.Context(), "sig-list-to-certs", filepath.Join(out, "db.esl"), lists).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if found, _ := filepath.Glob(lists + "-*.der"); len(found) != 2 {
		t.Errorf("db has %v instead of the new and the previous certificate", found)
	}
	if signer, err := s.Signer(sign.PlatformKey); err != nil || signer.Certificate.Subject.CommonName != "first Secure Boot PK" {
		t.Errorf("the new platform key is %v, %v", signer, err)
	}
	if bytes.Equal(read(t, out, "PK.auth"), read(t, out, "PK.update.auth")) {
		t.Error("the change of the platform key is signed by the new one")
	}
	if err := os.Remove(filepath.Join(s.Dir, "PK.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Variables(time.Now()); err != nil {
		t.Error(err)
	}
	if err := s.Export(out); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("exported without the platform key: %v", err)
	}
	var table bytes.Buffer
	if err := s.Show(&table); err != nil || !strings.Contains(table.String(), "absent") || !strings.Contains(table.String(), "release.previous") {
		t.Errorf("%v\n%s", err, &table)
	}
}

// The encoding of a key is the standard's: others read it.
func TestEncoding(t *testing.T) {
	s := store(t)
	if _, err := s.Ensure(); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(read(t, s.Dir, "release.key"))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if _, ok := key.(ed25519.PrivateKey); err != nil || !ok {
		t.Errorf("%T, %v", key, err)
	}
}

func tools(t *testing.T) *toolbox.Toolbox { return inputstest.Tools(t, "build") }
