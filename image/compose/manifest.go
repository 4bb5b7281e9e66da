package compose

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Manifest describes a build.
type Manifest struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// Architecture as Debian names it.
	Architecture string `json:"architecture"`
	Released     bool   `json:"released"` // false: built from a lock override
	Go           string `json:"go"`
	Lock         string `json:"lock"` // digest
	// Build is the digest of everything that decides the outputs but for the keys, which only
	// sign them; Inputs is that of all.
	Build   string  `json:"build"`
	Inputs  string  `json:"inputs"`
	Command string  `json:"command"` // kernel command line
	Signing Signing `json:"signing"`
	// Outputs by file name.
	Outputs map[string]Output `json:"outputs"`
	// Sizes of components in bytes.
	Sizes map[string]int64 `json:"sizes"`
	// Content is what the root holds of each package or other origin, in bytes before
	// compression.
	Content  map[string]int64  `json:"content"`
	Packages map[string]string `json:"packages"` // versions of what the root holds
	// Nodes are the architectures of the images of nodes, by their names.
	Nodes map[string]string `json:"nodes"`
}

// Signing tells by which keys a build is signed.
type Signing struct {
	// Releases are keys of minisign: the one that signed manifest and bundle, and its
	// predecessor if that has signed the bundle too.
	Releases []string `json:"releases"`
	// Certificate is the SHA-256 of the one that the UKI's signature is checked with.
	Certificate string `json:"certificate"`
	Development bool   `json:"development"` // the keys are nobody's
}

// Output is a file of a build.
type Output struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// sources are the folders of the module whose files decide what is built, besides
// the programs.
var sources = []string{"image", "hcl", "services/kmod"}

func (b *builder) newManifest() (*Manifest, error) {
	a := b.Inputs.Appliance
	m := &Manifest{
		Name: a.Name, Version: a.Version, Architecture: a.Debian.Architecture, Released: b.Inputs.Released(), Go: b.programs.toolchain,
		Lock: b.Inputs.Lock.Digest(), Outputs: map[string]Output{}, Sizes: map[string]int64{}, Packages: map[string]string{}, Nodes: map[string]string{},
	}
	for _, image := range b.Inputs.Native.Appliance.Images {
		m.Nodes[image.Name] = b.Inputs.Native.Appliance.Debian.Architecture
	}
	for _, p := range b.Inputs.Lock.Packages {
		if slices.Contains(p.Sets, "root") || slices.Contains(p.Sets, "boot") {
			m.Packages[p.Name] = p.Version
		}
	}
	var err error
	if m.Signing, err = b.signer.describe(); err != nil {
		return nil, err
	}
	h := sha256.New()
	for _, l := range b.Inputs.Locks() {
		fmt.Fprintf(h, "lock %s\n", l.Digest())
	}
	fmt.Fprintf(h, "go %s\n", m.Go)
	for _, program := range [][]byte{b.programs.supervisor, b.programs.services, b.programs.installer, b.programs.node} {
		fmt.Fprintf(h, "program %s\n", digestOf(program))
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		if err := hashFile(h, b.Source, name); err != nil {
			return nil, err
		}
	}
	for _, dir := range sources {
		err := filepath.WalkDir(filepath.Join(b.Source, dir), func(host string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entry.Name() == "testdata" {
				return filepath.SkipDir
			}
			if entry.IsDir() || strings.HasSuffix(host, "_test.go") {
				return nil
			}
			below, err := filepath.Rel(b.Source, host)
			if err != nil {
				return err
			}
			return hashFile(h, b.Source, below)
		})
		if err != nil {
			return nil, fmt.Errorf("cannot hash the sources: %w", err)
		}
	}
	m.Build = hex.EncodeToString(h.Sum(nil))
	m.Inputs = digestOf(fmt.Appendf(nil, "build %s\nsigning %+v\n", m.Build, m.Signing))
	return m, nil
}

// hashFile adds name, kind and content of a file of the sources to a hash.
func hashFile(h io.Writer, dir, name string) error {
	host := filepath.Join(dir, name)
	info, err := os.Lstat(host)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(host)
		fmt.Fprintf(h, "link %q %q\n", filepath.ToSlash(name), target)
		return err
	}
	content, err := os.ReadFile(host)
	if err != nil {
		return err
	}
	fmt.Fprintf(h, "file %q %v %s\n", filepath.ToSlash(name), info.Mode()&0o100 != 0, digestOf(content))
	return nil
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func readManifest(name string) (*Manifest, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	m := &Manifest{}
	return m, json.Unmarshal(content, m)
}

// complete reports whether a folder holds the outputs, by their sizes.
func (m *Manifest) complete(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, signatureName)); err != nil {
		return false
	}
	for name, output := range m.Outputs {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() != output.Size {
			return false
		}
	}
	return len(m.Outputs) > 0
}

// add records a finished output.
func (m *Manifest) add(dir, name string) error {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	size, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	m.Outputs[name] = Output{size, hex.EncodeToString(h.Sum(nil))}
	return nil
}
