// Package archivetest makes small signed Debian archives in folders, for tests of what
// reads them.
package archivetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"

	"github.com/waltos/waltos/image/debian"
)

// Archive is a folder with dists/ and pool/ of one suite.
type Archive struct {
	Dir     string
	Suite   string
	Keyring *debian.Keyring
	Date    time.Time // of the next Publish

	key      *openpgp.Entity
	packages []*Package
}

// Package is a package to publish.
type Package struct {
	Name, Version string
	Source        string
	Fields        map[string]string // more control fields, as "Depends"
	Files         map[string]string // content by path; "-> target" makes a link
}

// New makes an empty archive with a key of its own.
func New(t testing.TB, suite string) *Archive {
	t.Helper()
	key, err := openpgp.NewEntity("test archive", "", "archive@example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	var public bytes.Buffer
	w, err := armor.Encode(&public, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Serialize(w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	keyring, err := debian.ReadKeys(&public, []string{hex.EncodeToString(key.PrimaryKey.Fingerprint)})
	if err != nil {
		t.Fatal(err)
	}
	return &Archive{Dir: t.TempDir(), Suite: suite, Keyring: keyring, Date: time.Now().Add(-time.Hour).Truncate(time.Second), key: key}
}

// Put adds packages, in place of those with the same name.
func (a *Archive) Put(packages ...*Package) {
	for _, p := range packages {
		a.Drop(p.Name)
		a.packages = append(a.packages, p)
	}
}

// Drop takes a package out of the index of the next Publish.
func (a *Archive) Drop(name string) {
	a.packages = slices.DeleteFunc(a.packages, func(p *Package) bool { return p.Name == name })
}

// Path names the file of a package.
func (a *Archive) Path(p *Package) string {
	return filepath.Join(a.Dir, filepath.FromSlash(p.pool()))
}

func (p *Package) pool() string {
	// Like Debian's, the name of the file is without epoch.
	_, version, epoch := strings.Cut(p.Version, ":")
	if !epoch {
		version = p.Version
	}
	return fmt.Sprintf("pool/main/%s_%s_amd64.deb", p.Name, version)
}

// Publish writes packages, index and a signed InRelease. Files of packages published
// before stay.
func (a *Archive) Publish(t testing.TB) {
	t.Helper()
	var index bytes.Buffer
	for _, p := range a.packages {
		raw := p.build(t)
		write(t, a.Path(p), raw)
		fmt.Fprintf(&index, "%sFilename: %s\nSize: %d\nSHA256: %s\n\n", p.control(), p.pool(), len(raw), sum(raw))
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(index.Bytes())
	z.Close()
	folder := "main/binary-amd64/"
	write(t, filepath.Join(a.Dir, "dists", a.Suite, folder, "Packages.gz"), packed.Bytes())

	var signed bytes.Buffer
	w, err := clearsign.Encode(&signed, a.key.PrivateKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(w, "Codename: %s\nDate: %s\nSHA256:\n %s %d %sPackages.gz\n", a.Suite,
		a.Date.UTC().Format("Mon, 02 Jan 2006 15:04:05 UTC"), sum(packed.Bytes()), packed.Len(), folder)
	w.Close()
	write(t, filepath.Join(a.Dir, "dists", a.Suite, "InRelease"), signed.Bytes())
}

func (p *Package) control() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Package: %s\nVersion: %s\nArchitecture: amd64\n", p.Name, p.Version)
	if p.Source != "" {
		fmt.Fprintf(&b, "Source: %s\n", p.Source)
	}
	var names []string
	for name := range p.Fields {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "%s: %s\n", name, p.Fields[name])
	}
	return b.String()
}

// build makes the package file.
func (p *Package) build(t testing.TB) []byte {
	t.Helper()
	b := bytes.NewBufferString("!<arch>\n")
	for _, member := range []struct {
		name string
		data []byte
	}{
		{"debian-binary", []byte("2.0\n")},
		{"control.tar.gz", tarball(t, map[string]string{"control": p.control()})},
		{"data.tar.gz", tarball(t, p.Files)},
	} {
		fmt.Fprintf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", member.name, 0, 0, 0, "100644", len(member.data), member.data)
		if len(member.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func tarball(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		h := &tar.Header{Name: "./" + name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(files[name]))}
		if target, link := strings.CutPrefix(files[name], "-> "); link {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, target, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			io.WriteString(w, files[name])
		}
	}
	w.Close()
	z.Close()
	return b.Bytes()
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}
