package minisign

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waltos/waltos/image/inputs/inputstest"
)

func key(seed string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte(strings.Repeat(seed, ed25519.SeedSize)))
}

// The real minisign accepts what is signed here, and refuses the rest.
func TestMinisign(t *testing.T) {
	box := inputstest.Tools(t, "build")
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	message := []byte("the manifest\n")
	file := write("message", message)
	signature := write("message.minisig", Sign(key("a"), message, "walt 10.0"))
	ours, other := PublicOf(key("a")), PublicOf(key("b"))
	verify := func(message string, arguments ...string) (string, error) {
		out, err := box.Command(t.Context(), "minisign", append([]string{"-V", "-m", message, "-x", signature}, arguments...)...).CombinedOutput()
		return string(out), err
	}
	out, err := verify(file, "-P", ours.String())
	if err != nil || !strings.Contains(out, "comment signature verified") || !strings.Contains(out, "walt 10.0") {
		t.Errorf("minisign: %v\n%s", err, out)
	}
	if out, err := verify(file, "-p", write("key.pub", ours.File())); err != nil {
		t.Errorf("minisign with a file: %v\n%s", err, out)
	}
	if out, err := verify(file, "-P", other.String()); err == nil {
		t.Errorf("minisign accepts another key:\n%s", out)
	}
	if out, err := verify(write("changed", []byte("The manifest\n")), "-P", ours.String()); err == nil {
		t.Errorf("minisign accepts another message:\n%s", out)
	}

	// And the other way round: a key and a signature of minisign.
	public, secret := filepath.Join(dir, "theirs.pub"), filepath.Join(dir, "theirs.key")
	for _, arguments := range [][]string{
		{"-G", "-W", "-p", public, "-s", secret},
		{"-S", "-s", secret, "-m", file, "-x", signature, "-t", "by minisign"},
	} {
		if out, err := box.Command(t.Context(), "minisign", arguments...).CombinedOutput(); err != nil {
			t.Fatalf("minisign: %v\n%s", err, out)
		}
	}
	text, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := ParsePublicKey(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile(signature); err != nil {
		t.Fatal(err)
	}
	if v, err := Verify([]PublicKey{ours, theirs}, message, text); err != nil || v != (Verified{theirs, "by minisign"}) {
		t.Errorf("the signature of minisign: %q, %v", v.Comment, err)
	}
}

func TestVerify(t *testing.T) {
	message := []byte("message")
	good := Sign(key("a"), message, "comment")
	keys := []PublicKey{PublicOf(key("b")), PublicOf(key("a"))}
	if v, err := Verify(keys, message, good); err != nil || v.Comment != "comment" {
		t.Fatalf("%q, %v", v.Comment, err)
	}
	for want, bad := range map[string][]byte{
		"something else":  Sign(key("a"), []byte("other"), "comment"),
		"another comment": bytes.Replace(good, []byte(": comment"), []byte(": Comment"), 1),
		"trusted is":      Sign(key("c"), message, "comment"),
		"not one of":      []byte("x"),
		"no trusted":      bytes.Replace(good, []byte("\ntrusted"), []byte("\nTrusted"), 1),
		"second line":     bytes.Replace(good, []byte("\nRU"), []byte("\n?"), 1),
		"algorithm":       bytes.Replace(good, []byte("\nRU"), []byte("\nRW"), 1),
		"last line":       good[:len(good)-4],
		"bytes":           bytes.Repeat([]byte("x"), MaxSignature+1),
	} {
		if _, err := Verify(keys, message, bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for _, text := range []string{"", "x", PublicOf(key("a")).String()[1:], "untrusted comment: x\n"} {
		if _, err := ParsePublicKey(text); err == nil {
			t.Errorf("%q is taken for a key", text)
		}
	}
}

func FuzzVerify(f *testing.F) {
	keys, message := []PublicKey{PublicOf(key("a"))}, []byte("message")
	good := Sign(key("a"), message, "comment")
	f.Add(good)
	f.Fuzz(func(t *testing.T, text []byte) {
		// The first line is not signed, and a last new line may be missing.
		if _, err := Verify(keys, message, text); err == nil && !strings.Contains(string(text), string(bytes.SplitN(good, []byte("\n"), 3)[1])) {
			t.Errorf("accepted:\n%s", text)
		}
	})
}
