package compose

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/waltos/waltos/image/bundle"
	"github.com/waltos/waltos/image/minisign"
	"github.com/waltos/waltos/image/sign"
)

// published takes the signatures of a published build. They are copied, not judged:
// if what is built now is the same, the files are the same to the last byte; if not, the
// signatures fit nothing.
type published struct {
	signing    Signing
	ukis       map[string][]byte // by slot
	signatures [][]byte          // of the bundle
	signature  []byte            // of the manifest
}

// openPublished reads the outputs of a build: manifest with signature, and bundle.
func openPublished(dir string) (*published, error) {
	p := &published{ukis: map[string][]byte{}}
	if err := p.read(dir); err != nil {
		return nil, fmt.Errorf("cannot copy the signatures of %s: %w", dir, err)
	}
	return p, nil
}

func (p *published) read(dir string) error {
	m, err := readManifest(filepath.Join(dir, manifestName))
	if err != nil {
		return err
	}
	p.signing = m.Signing
	if p.signature, err = os.ReadFile(filepath.Join(dir, signatureName)); err != nil {
		return err
	}
	var trust bundle.Trust
	for _, text := range m.Signing.Releases {
		key, err := minisign.ParsePublicKey(text)
		if err != nil {
			return err
		}
		trust.Keys = append(trust.Keys, key)
	}
	f, err := os.Open(filepath.Join(dir, bundleName))
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := bundle.Open(f, trust)
	if err != nil {
		return err
	}
	defer b.Close()
	p.signatures = b.Signatures
	for _, slot := range slots {
		if p.ukis[slot], err = b.SlotUKI(slot); err != nil {
			return err
		}
	}
	p.ukis[live], err = os.ReadFile(filepath.Join(dir, liveName))
	if errors.Is(err, os.ErrNotExist) { // it is made on demand
		return nil
	}
	return err
}

func (p *published) describe() (Signing, error) { return p.signing, nil }

func (p *published) program(slot string, uki []byte) ([]byte, error) {
	if p.ukis[slot] == nil {
		return nil, fmt.Errorf("the published build has no UKI of slot %s", slot)
	}
	return sign.Copy(uki, p.ukis[slot])
}

func (p *published) bundle(string) bundle.Signatures {
	return func([]byte) ([][]byte, error) { return p.signatures, nil }
}

func (p *published) manifest([]byte, string) ([]byte, error) { return p.signature, nil }
