package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/image/bundle"
	"github.com/waltos/waltos/image/keys"
	"github.com/waltos/waltos/image/minisign"
)

func seed(letter string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte(strings.Repeat(letter, ed25519.SeedSize)))
}

func TestCheck(t *testing.T) {
	root := make([]byte, 50000)
	rand.NewChaCha8([32]byte{}).Read(root) // nothing to compress, as in a real one
	sum := sha256.Sum256(root)
	contents := bundle.Contents{
		Release: bundle.Release{Name: "walt", Version: "10.0", Architecture: "arm64", Time: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), Build: "0123456789abcdef"},
		UKIs:    map[string][]byte{"a": []byte("kernel for a"), "b": []byte("kernel for b")},
		Root:    bytes.NewReader(root), RootSize: int64(len(root)), RootHash: hex.EncodeToString(sum[:]),
	}
	var good bytes.Buffer
	if err := bundle.Write(&good, contents, bundle.SignedBy([]ed25519.PrivateKey{seed("r")}, "of a test")); err != nil {
		t.Fatal(err)
	}
	public := minisign.PublicOf(seed("r"))
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	damaged := bytes.Clone(good.Bytes())
	damaged[len(damaged)/2] ^= 1
	key, foreign := public.String(), minisign.PublicOf(seed("f")).String()
	whole := file("good", good.Bytes())
	for name, c := range map[string]struct {
		arguments []string
		want      []string // in the output, or in the error if there is none
	}{
		"good": {
			[]string{whole, "--key", key},
			[]string{
				"walt 10.0 (arm64) of 2026-11-23 00:00:00, build 0123456789ab\n", "signed by release key " + key + ": of a test\n",
				"root   50000 bytes  " + hex.EncodeToString(sum[:]), "uki a  12 bytes", "uki b  12 bytes",
			},
		},
		"key in a file, and another one": {[]string{whole, "--key", file("pub", public.File()), "--key", foreign}, []string{"walt 10.0"}},
		"foreign":                        {[]string{whole, "--key", foreign}, []string{"good: cannot accept upgrade bundle: ", "it is of key " + public.Name()}},
		"damaged":                        {[]string{file("damaged", damaged), "--key", key}, []string{"damaged: cannot accept upgrade bundle: it is damaged or cut off, near byte ", "CRC"}},
		"cut off":                        {[]string{file("cut", good.Bytes()[:good.Len()-9]), "--key", key}, []string{"cut: cannot accept", "cut off, near byte "}},
		"empty":                          {[]string{file("empty", nil), "--key", key}, []string{"empty: cannot accept upgrade bundle: it is damaged or cut off, near byte 0 "}},
		"something else":                 {[]string{file("else", root), "--key", key}, []string{"else: cannot accept upgrade bundle: it is damaged"}},
		"not there":                      {[]string{filepath.Join(dir, "nothing"), "--key", key}, []string{"cannot check upgrade bundle: open "}},
		"no key":                         {[]string{whole, "--key", "abc"}, []string{"--key abc is neither a public key of minisign nor a file"}},
		"no key in a file":               {[]string{whole, "--key", whole}, []string{whole + ": cannot read public key"}},
		"no keys of one's own":           {[]string{whole}, []string{"there are no keys in " + filepath.Join(dir, "keys") + "; give the public key by --key"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(keys.FolderVariable, filepath.Join(dir, "keys"))
			out, err := run(t, append([]string{"check"}, c.arguments...)...)
			if err != nil {
				if out != "" {
					t.Errorf("printed %q and failed", out)
				}
				out = err.Error()
			}
			for _, text := range c.want {
				if !strings.Contains(out, text) {
					t.Errorf("%q is missing in %q", text, out)
				}
			}
			if good := strings.HasPrefix(c.want[0], "walt 10.0"); good != (err == nil) {
				t.Errorf("%v", err)
			}
		})
	}
	out, err := run(t, "check", "--json", "--key", key, whole)
	var found checked
	if err != nil || json.Unmarshal([]byte(out), &found) != nil || found.Version != "10.0" || found.Signer != key || found.Parts["root"].Size != int64(len(root)) {
		t.Errorf("%v\n%s", err, out)
	}
}

// run runs the command and returns what it prints.
func run(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := command()
	c.SetOut(&out)
	c.SetErr(t.Output())
	c.SetArgs(arguments)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}
