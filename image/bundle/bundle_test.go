package bundle

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/waltos/waltos/image/minisign"
)

func key(seed string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte(strings.Repeat(seed, ed25519.SeedSize)))
}

var built = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)

// contents are those of a small appliance.
func contents() Contents {
	random := rand.New(rand.NewPCG(1, 2))
	noise := func(size int) []byte {
		out := make([]byte, size)
		for i := range out {
			out[i] = byte(random.Uint32())
		}
		return out
	}
	a := noise(2000)
	b := bytes.Clone(a)
	b[100]++
	copy(b[1700:], noise(300))
	root := append(noise(3000), make([]byte, 3000)...)
	return Contents{
		Release: Release{"walt", "10.0", "amd64", built, "0123456789abcdef"},
		UKIs:    map[string][]byte{"a": a, "b": b},
		Root:    bytes.NewReader(root), RootSize: int64(len(root)), RootHash: contentOf(root).SHA256,
	}
}

func bundle(t testing.TB, c Contents, keys ...ed25519.PrivateKey) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, c, SignedBy(keys, "of a test")); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func trust(seeds ...string) Trust {
	t := Trust{Running: &Release{"walt", "10.0", "amd64", built, "fedcba9876543210"}}
	for _, seed := range seeds {
		t.Keys = append(t.Keys, minisign.PublicOf(key(seed)))
	}
	return t
}

func TestBundle(t *testing.T) {
	want := contents()
	root, _ := io.ReadAll(want.Root)
	want.Root = bytes.NewReader(root)
	file := bundle(t, want, key("a"))
	if again := bundle(t, contents(), key("a")); !bytes.Equal(file, again) {
		t.Error("the same contents made another bundle")
	}
	b, err := Open(bytes.NewReader(file), trust("a"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for slot, uki := range want.UKIs {
		if got, err := b.SlotUKI(slot); err != nil || !bytes.Equal(got, uki) {
			t.Errorf("the UKI of slot %s is another one, %v", slot, err)
		}
	}
	if _, err := b.SlotUKI("c"); err == nil {
		t.Error("there is a slot c")
	}
	var got bytes.Buffer
	if err := b.CopyRoot(&got); err != nil || !bytes.Equal(got.Bytes(), root) {
		t.Errorf("the root is another one, %v", err)
	}
	if err := b.CopyRoot(&got); err == nil {
		t.Error("the root was read twice")
	}
}

// While a key is replaced, bundles are accepted by who knows the old or the new one.
func TestTwoKeys(t *testing.T) {
	file := bundle(t, contents(), key("n"), key("o"))
	for _, known := range []string{"n", "o"} {
		if _, err := Verify(bytes.NewReader(file), trust(known)); err != nil {
			t.Error(err)
		}
	}
	if _, err := Verify(bytes.NewReader(file), trust("x")); err == nil || !strings.Contains(err.Error(), "trusted is") {
		t.Errorf("signed by strangers: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		want   string
		change func(*Contents)
	}{
		{"appliance", func(c *Contents) { c.Name = "other" }},
		{"architecture", func(c *Contents) { c.Architecture = "arm64" }},
		{"older than", func(c *Contents) { c.Version = "9.10" }},
		{"older than", func(c *Contents) { c.Time = built.Add(-time.Second) }},
		{"compare version", func(c *Contents) { c.Version = "new" }},
		{"not what was signed", func(c *Contents) { c.RootHash = strings.Repeat("0", 64) }},
	} {
		changed := contents()
		c.change(&changed)
		allowed := trust("a")
		if _, err := Verify(bytes.NewReader(bundle(t, changed, key("a"))), allowed); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.want, err)
		}
		if allowed.Downgrade = true; c.want == "older than" {
			changed := contents()
			c.change(&changed)
			if _, err := Verify(bytes.NewReader(bundle(t, changed, key("a"))), allowed); err != nil {
				t.Error(err)
			}
		}
	}
	if err := Write(io.Discard, contents(), SignedBy(nil, "")); err == nil {
		t.Error("a bundle without a signature")
	}
	shorter := contents()
	shorter.UKIs["b"] = shorter.UKIs["b"][1:]
	if err := Write(io.Discard, shorter, SignedBy([]ed25519.PrivateKey{key("a")}, "")); err == nil {
		t.Error("UKIs of different sizes")
	}
}

// Each byte that is changed, and each byte that is missing or added, is noticed, but for some
// that mean nothing to zstd.
func TestChanges(t *testing.T) {
	file := bundle(t, contents(), key("a"))
	verify := func(file []byte) error {
		_, err := Verify(bytes.NewReader(file), trust("a"))
		return err
	}
	if err := verify(file); err != nil {
		t.Fatal(err)
	}
	for i := range file {
		changed := bytes.Clone(file)
		changed[i] ^= 1 << (i % 8)
		if verify(changed) == nil && !bytes.Equal(decompress(t, changed), decompress(t, file)) {
			t.Errorf("byte %d of %d can be changed", i, len(file))
		}
		if verify(file[:i]) == nil {
			t.Errorf("accepted after %d of %d bytes", i, len(file))
		}
	}
	if verify(append(bytes.Clone(file), 0)) == nil || verify(append(bytes.Clone(file), file...)) == nil {
		t.Error("something can be appended")
	}
}

func decompress(t *testing.T, file []byte) []byte {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	content, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// What is inside is bound to its place, also where the checksums of the stream are right.
func TestMembers(t *testing.T) {
	type member struct {
		tar.Header
		content []byte
	}
	var members []member
	for r := tar.NewReader(bytes.NewReader(decompress(t, bundle(t, contents(), key("a"), key("b"))))); ; {
		header, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, member{*header, content})
	}
	verify := func(members []member) error {
		var file bytes.Buffer
		z, err := zstd.NewWriter(&file)
		if err != nil {
			t.Fatal(err)
		}
		w := tar.NewWriter(z)
		for _, m := range members {
			m.Size = int64(len(m.content))
			if m.Typeflag != tar.TypeReg {
				m.Size = 0
			}
			if err := w.WriteHeader(&m.Header); err != nil {
				t.Fatal(err)
			}
			if m.Size > 0 {
				w.Write(m.content)
			}
		}
		w.Close()
		z.Close()
		_, err = Verify(&file, trust("a"))
		return err
	}
	if err := verify(members); err != nil {
		t.Fatal(err)
	}
	for i := range members {
		for what, change := range map[string]func([]member) []member{
			"content":  func(m []member) []member { m[i].content[0]++; return m },
			"longer":   func(m []member) []member { m[i].content = append(m[i].content, 0); return m },
			"shorter":  func(m []member) []member { m[i].content = m[i].content[1:]; return m },
			"name":     func(m []member) []member { m[i].Name = "other"; return m },
			"link":     func(m []member) []member { m[i].Typeflag, m[i].Linkname = tar.TypeSymlink, "/etc"; return m },
			"left out": func(m []member) []member { return append(m[:i], m[i+1:]...) },
			"twice":    func(m []member) []member { return append(m[:i+1], m[i:]...) },
		} {
			var copied []member
			for _, m := range members {
				m.content = bytes.Clone(m.content)
				copied = append(copied, m)
			}
			// The previous key's signature is not needed by who trusts the new one.
			optional := members[i].Name == previousSignatureName && (what == "content" || what == "longer" || what == "shorter" || what == "left out")
			if err := verify(change(copied)); (err == nil) != optional {
				t.Errorf("%s, %s: %v", members[i].Name, what, err)
			}
		}
	}
}

func TestEdits(t *testing.T) {
	for _, pair := range [][2]string{{"", ""}, {"same", "same"}, {"abc", "xbz"}, {strings.Repeat("a", 500), strings.Repeat("a", 200) + "b" + strings.Repeat("a", 298) + "c"}} {
		from, to := []byte(pair[0]), []byte(pair[1])
		list, err := edits(from, to)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := (Slot{contentOf(to), list}).apply(from); err != nil || !bytes.Equal(got, to) {
			t.Errorf("%q became %q, %v", from, got, err)
		}
	}
	if _, err := (Slot{Edits: []Edit{{5, []byte("x")}}}).apply([]byte("short")); err == nil {
		t.Error("an edit outside was applied")
	}
	if _, err := edits(make([]byte, maxEdits+1), bytes.Repeat([]byte("x"), maxEdits+1)); err == nil {
		t.Error("two UKIs that have nothing in common")
	}
}

// Whatever bytes come, nothing is accepted but what was signed.
func FuzzVerify(f *testing.F) {
	f.Add(bundle(f, contents(), key("a")))
	f.Add(bundle(f, contents(), key("a"), key("b")))
	want, err := Verify(bytes.NewReader(bundle(f, contents(), key("a"))), trust("a"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		if d, err := Verify(bytes.NewReader(file), trust("a")); err == nil && d.Root != want.Root {
			t.Errorf("accepted %+v", d)
		}
	})
}
