package compose

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/waltos/waltos/image/bundle"
	"github.com/waltos/waltos/image/inputs"
	"github.com/waltos/waltos/image/keys"
	"github.com/waltos/waltos/image/uki"
)

// Whoever builds the same gets the same bytes from the published signatures.
func TestPublished(t *testing.T) {
	if testing.Short() {
		t.Skip("downloads packages")
	}
	in, err := inputs.Open(inputs.Options{Appliance: "../appliance.hcl", Override: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Ensure(t.Context(), tools); err != nil {
		t.Fatal(err)
	}
	box, err := in.Toolbox(t.Context(), tools)
	if err != nil {
		t.Fatal(err)
	}
	stub, err := os.ReadFile(box.Path(uki.StubName("amd64")))
	if err != nil {
		t.Fatal(err)
	}
	store := &keys.Store{Dir: filepath.Join(t.TempDir(), "keys")}
	if _, err := store.Ensure(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	release := bundle.Release{Name: "walt", Version: "10.0", Architecture: "amd64"}
	// build signs all that a build has signed.
	build := func(by signer) (ukis map[string][]byte, packed, signature []byte) {
		t.Helper()
		ukis = map[string][]byte{}
		for _, slot := range slots {
			plain, err := uki.Assemble(uki.Parts{Stub: stub, Command: "walt.slot=" + slot, Linux: []byte("kernel")})
			if err != nil {
				t.Fatal(err)
			}
			if ukis[slot], err = by.program(slot, plain); err != nil {
				t.Fatal(err)
			}
		}
		var out bytes.Buffer
		c := bundle.Contents{Release: release, UKIs: ukis, Root: bytes.NewReader([]byte("root")), RootSize: 4, RootHash: digestOf([]byte("root"))}
		if err := bundle.Write(&out, c, by.bundle("comment")); err != nil {
			t.Fatal(err)
		}
		if signature, err = by.manifest([]byte("manifest"), "comment"); err != nil {
			t.Fatal(err)
		}
		return ukis, out.Bytes(), signature
	}
	first, packed, signature := build(owner{store})
	m := Manifest{Name: "walt", Version: "10.0", Architecture: "amd64"}
	if m.Signing, err = (owner{store}).describe(); err != nil || !m.Signing.Development {
		t.Fatalf("%+v, %v", m.Signing, err)
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	write(manifestName, text)
	write(signatureName, signature)
	write(bundleName, packed)
	by, err := openPublished(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, again, copied := build(by)
	for _, slot := range slots {
		if !bytes.Equal(first[slot], second[slot]) {
			t.Errorf("the UKI of slot %s differs", slot)
		}
	}
	if !bytes.Equal(packed, again) || !bytes.Equal(signature, copied) {
		t.Error("the bundle, or the signature of the manifest, differs")
	}
	write(bundleName, packed[:100])
	if _, err := openPublished(dir); err == nil {
		t.Error("signatures were copied from a damaged bundle")
	}
}
