package debian

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

func TestStanzas(t *testing.T) {
	text := "# comment\nPackage: a\nDescription: short\n long\n .\nEmpty:\n\n\nPackage: b\n"
	for _, c := range []struct {
		fields []string
		want   []Stanza
	}{
		{nil, []Stanza{{"Package": "a", "Description": "short\nlong\n.", "Empty": ""}, {"Package": "b"}}},
		{[]string{"Package"}, []Stanza{{"Package": "a"}, {"Package": "b"}}},
	} {
		r := NewStanzaReader(strings.NewReader(text), c.fields...)
		for _, want := range c.want {
			if got, err := r.Next(); err != nil || !maps.Equal(got, want) {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("got %v at the end", err)
		}
	}
	for _, bad := range []string{" continued\n", "no colon\n", "A: 1\nA: 2\n", "A b: 1\n"} {
		if _, err := NewStanzaReader(strings.NewReader(bad)).Next(); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%q is accepted (%v)", bad, err)
		}
	}
}

func TestRelations(t *testing.T) {
	got, err := ParseRelations("libc6 (>= 2.38), python3:any, a | b (<< 1:2~) , c (=1.0)")
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, d := range got {
		text = append(text, d.String())
	}
	if want := "libc6 (>= 2.38); python3; a | b (<< 1:2~); c (= 1.0)"; strings.Join(text, "; ") != want {
		t.Errorf("got %q, want %q", strings.Join(text, "; "), want)
	}
	for _, bad := range []string{"a (>= 1", "a (1)", "a (~ 1)", "| b", "a b", "a (= 1) x", "$x"} {
		if _, err := ParseRelations(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func FuzzRelations(f *testing.F) {
	f.Add("libc6 (>= 2.38), python3:any, a | b (<< 1:2~)")
	f.Fuzz(func(t *testing.T, s string) {
		first, err := ParseRelations(s)
		if err != nil {
			return
		}
		for _, d := range first {
			again, err := ParseRelations(d.String())
			if err != nil || len(again) != 1 || again[0].String() != d.String() {
				t.Errorf("%q becomes %v, %v", d, again, err)
			}
		}
	})
}

func FuzzPackages(f *testing.F) {
	f.Add([]byte(index("a 1 b|c", "b 2")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		u := NewUniverse()
		if u.Read(bytes.NewReader(raw), "s", "amd64") == nil {
			u.Resolve([]string{"a"}, Policy{})
		}
	})
}

// signer is a key of a test archive.
func signer(t testing.TB) (*openpgp.Entity, *Keyring) {
	t.Helper()
	key, err := openpgp.NewEntity("test archive", "", "archive@example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	key.Serialize(w)
	w.Close()
	ring, err := ReadKeys(&b, []string{fmt.Sprintf("%X", key.PrimaryKey.Fingerprint)})
	if err != nil {
		t.Fatal(err)
	}
	return key, ring
}

func sign(t testing.TB, text string, keys ...*openpgp.Entity) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	if len(keys) == 1 {
		w, err = clearsign.Encode(&b, keys[0].PrivateKey, nil)
	} else {
		w, err = clearsign.EncodeMulti(&b, []*packet.PrivateKey{keys[0].PrivateKey, keys[1].PrivateKey}, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, text)
	w.Close()
	return b.String() + "\n"
}

const release = `Origin: Test
Codename: test
Date: Sat, 21 Nov 2026 00:53:03 UTC
%sAcquire-By-Hash: yes
SHA256:
 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855        0 main/binary-amd64/Packages
`

func TestInRelease(t *testing.T) {
	key, ring := signer(t)
	other, _ := signer(t)
	now := time.Now()
	valid := func(until time.Time) string {
		return fmt.Sprintf(release, "Valid-Until: "+until.UTC().Format("Mon, _2 Jan 2006 15:04:05 MST")+"\n")
	}
	plain := fmt.Sprintf(release, "")
	good := sign(t, plain, key)
	for name, c := range map[string]struct{ text, want string }{
		"good":            {good, ""},
		"second key good": {sign(t, plain, other, key), ""},
		"still valid":     {sign(t, valid(now.Add(time.Hour)), key), ""},
		"outdated":        {sign(t, valid(now.Add(-time.Hour)), key), "valid until"},
		"other key":       {sign(t, plain, other), "no good signature"},
		"changed":         {strings.Replace(good, "Origin: Test", "Origin: Fest", 1), "no good signature"},
		"unsigned":        {plain, "not clear-signed"},
		"text before":     {"Origin: Evil\n\n" + good, "not clear-signed"},
		"text after":      {good + "Origin: Evil\n", "text follows"},
		"cut":             {good[:len(good)/2], "damaged"},
		"no date":         {sign(t, "Codename: test\n", key), "Date"},
		"no hashes":       {sign(t, "Date: Sat, 21 Nov 2026 00:53:03 UTC\n", key), "SHA256"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := ring.ReadInRelease(strings.NewReader(c.text), now)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want == "" && (r.Codename != "test" || !r.ByHash || len(r.Files) != 1 || r.Date.Unix() != 1795222383):
				t.Errorf("got %+v", r)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestShippedKeys(t *testing.T) {
	if _, err := Keys([]string{"04B54C3CDCA79751B16BC6B5225629DF75B188BD", "5E04 A1E3 223A 19A2 0706  E20F 9904 613D 4CCE 68C6"}); err != nil {
		t.Error(err)
	}
	if _, err := Keys([]string{strings.Repeat("0", 40)}); err == nil {
		t.Error("an unknown fingerprint is accepted")
	}
	if _, err := Keys(nil); err == nil {
		t.Error("no fingerprint is accepted")
	}
}

// index writes a Packages index from lines "name version dependencies [field: value]".
func index(lines ...string) string {
	var b strings.Builder
	for _, line := range lines {
		line, extra, _ := strings.Cut(line, " # ")
		f := strings.SplitN(line, " ", 3)
		fmt.Fprintf(&b, "Package: %s\nVersion: %s\nArchitecture: amd64\nFilename: pool/%s.deb\nSize: 1\nSHA256: %064x\n", f[0], f[1], f[0], 0)
		if len(f) > 2 {
			fmt.Fprintf(&b, "Depends: %s\n", f[2])
		}
		if extra != "" {
			b.WriteString(extra + "\n")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestResolve(t *testing.T) {
	world := index(
		"a 1 b, c (>= 2)", "b 1 c", "c 2", "c 1",
		"choice 1 x | y", "x 1", "y 1", "both 1 choice, y",
		"needs-virtual 1 mail", "exim 1 # Provides: mail (= 3)", "postfix 1 # Provides: mail",
		"needs-version 1 mail (>= 2)",
		"old 1 c (>= 3)", "deep 1 old", "lost 1 nowhere",
		"fight 1 c, x # Conflicts: x", "self 1 # Provides: thing\nConflicts: thing",
		"loop1 1 loop2", "loop2 1 loop1",
	)
	u := NewUniverse()
	if err := u.Read(strings.NewReader(world), "test", "amd64"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want   string
		policy Policy
		set    string
		err    string
	}{
		{want: "a", set: "a b c"},
		{want: "choice", set: "choice x"},
		{want: "choice", policy: Policy{Alternatives: []string{"y"}}, set: "choice y"},
		{want: "both", set: "both choice y"},
		{want: "choice y", set: "choice y"},
		{want: "needs-virtual", err: "needs-virtual: mail is provided by exim, postfix"},
		{want: "needs-virtual", policy: Policy{Alternatives: []string{"postfix"}}, set: "needs-virtual postfix"},
		{want: "needs-virtual", policy: Policy{Excluded: []string{"mail"}}, set: "needs-virtual"},
		{want: "needs-virtual", policy: Policy{Excluded: []string{"exim"}}, set: "needs-virtual postfix"},
		{want: "needs-version", set: "exim needs-version"},
		{want: "deep", err: "deep → old: it depends on c (>= 3), and the newest c is 2"},
		{want: "lost", err: "there is no nowhere"},
		{want: "fight", err: "conflicts with x"},
		{want: "self", set: "self"},
		{want: "loop1", set: "loop1 loop2"},
		{want: "mail", err: "virtual, provided by exim, postfix"},
		{want: "none", err: "no such package"},
		{want: "b c", policy: Policy{Excluded: []string{"c"}}, set: "b c"},
	} {
		t.Run(c.want, func(t *testing.T) {
			set, err := u.Resolve(strings.Fields(c.want), c.policy)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q in it", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.ReplaceAll(names(set), ",", ""); got != c.set {
				t.Errorf("got %q, want %q", got, c.set)
			}
		})
	}
}

func TestNewestAcrossSuites(t *testing.T) {
	u := NewUniverse()
	for suite, text := range map[string]string{"base": index("a 2"), "security": index("a 10"), "old": index("a 1")} {
		if err := u.Read(strings.NewReader(text), suite, "amd64"); err != nil {
			t.Fatal(err)
		}
	}
	if p, _ := u.Find("a"); p.Version != "10" || p.Suite != "security" {
		t.Errorf("got %s of %s", p.Version, p.Suite)
	}
}

func TestBadPackages(t *testing.T) {
	good := index("a 1")
	for _, change := range [][2]string{
		{"pool/a.deb", "../a.deb"}, {"pool/a.deb", "/a.deb"}, {"pool/a.deb", "a/../../b"}, {"pool/a.deb", "a?b"},
		{"Size: 1", "Size: -1"}, {"Version: 1", "Version: "}, {"Package: a", "Package: -"}, {"SHA256: 0", "SHA256: x"},
	} {
		bad := strings.Replace(good, change[0], change[1], 1)
		if err := NewUniverse().Read(strings.NewReader(bad), "s", "amd64"); err == nil {
			t.Errorf("%q is accepted", change[1])
		}
	}
}

func FuzzInRelease(f *testing.F) {
	key, ring := signer(f)
	f.Add([]byte(sign(f, fmt.Sprintf(release, ""), key)))
	f.Add([]byte(fmt.Sprintf(release, "Valid-Until: Sat, 28 Nov 2026 00:53:03 UTC\n")))
	signed := []byte(sign(f, fmt.Sprintf(release, ""), key))
	f.Fuzz(func(t *testing.T, raw []byte) {
		parseRelease(raw)
		r, err := ring.ReadInRelease(bytes.NewReader(raw), time.Now())
		// Only what was signed passes, up to white space that the format ignores.
		if err == nil && (r.Codename != "test" || len(r.Files) != 1 || !bytes.Contains(signed, []byte("Codename: "+r.Codename))) {
			t.Errorf("%q is trusted", raw)
		}
	})
}
