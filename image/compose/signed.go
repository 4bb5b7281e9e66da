package compose

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"github.com/waltos/waltos/image/bundle"
	"github.com/waltos/waltos/image/keys"
	"github.com/waltos/waltos/image/minisign"
	"github.com/waltos/waltos/image/sign"
	"github.com/waltos/waltos/image/uki"
)

// slots are those that a UKI is made for.
var slots = []string{"a", "b"}

// signer signs a build: with the keys of the builder, or with the signatures of a build that
// was published.
type signer interface {
	describe() (Signing, error)
	// program signs the UKI of a slot.
	program(slot string, uki []byte) ([]byte, error)
	// bundle and manifest sign descriptions, with a comment.
	bundle(comment string) bundle.Signatures
	manifest(message []byte, comment string) ([]byte, error)
}

// owner signs with keys.
type owner struct{ *keys.Store }

// describe needs nothing secret: a build that is current asks for no passphrase.
func (o owner) describe() (Signing, error) {
	var s Signing
	trusted, err := o.Trusted()
	if err != nil {
		return s, err
	}
	for _, key := range trusted {
		s.Releases = append(s.Releases, key.String())
	}
	certificate, err := o.Certificate(sign.Programs)
	if err != nil {
		return s, err
	}
	s.Certificate = keys.Fingerprint(certificate.Raw)
	s.Development, err = o.Development()
	return s, err
}

func (o owner) program(_ string, uki []byte) ([]byte, error) {
	by, err := o.Signer(sign.Programs)
	if err != nil {
		return nil, err
	}
	return by.Program(uki)
}

func (o owner) bundle(comment string) bundle.Signatures {
	return func(message []byte) ([][]byte, error) {
		releases, err := o.Releases()
		if err != nil {
			return nil, err
		}
		return bundle.SignedBy(releases, comment)(message)
	}
}

func (o owner) manifest(message []byte, comment string) ([]byte, error) {
	releases, err := o.Releases()
	if err != nil {
		return nil, err
	}
	return minisign.Sign(releases[0], message, comment), nil
}

// ukis makes the UKIs of all slots and signs them.
func (b *builder) ukis(k *kernel, initrd []byte, system *rootSlot) (map[string][]byte, error) {
	signed := map[string][]byte{}
	for _, slot := range slots {
		unified, err := uki.Assemble(uki.Parts{
			Stub: k.stub, OSRelease: b.osRelease(), Command: b.command(slot, system), Release: k.release, Initrd: initrd, Linux: k.image,
		})
		if err != nil {
			return nil, err
		}
		if signed[slot], err = b.signer.program(slot, unified); err != nil {
			return nil, err
		}
	}
	return signed, nil
}

// command is the kernel command line of a slot. As the UKI is signed, it says what to
// trust: the root by its hash, and upgrades by the key of their signature.
func (b *builder) command(slot string, system *rootSlot) string {
	return fmt.Sprintf("%s walt.slot=%s walt.root=root-%s walt.verity=%s walt.release=%s",
		b.Inputs.Appliance.Boot.Command, slot, slot, system.verity(), b.manifest.Signing.Releases[0])
}

// release is what upgrades are compared by.
func (b *builder) release() bundle.Release {
	a := b.Inputs.Appliance
	return bundle.Release{Name: a.Name, Version: a.Version, Architecture: a.Debian.Architecture, Time: b.time, Build: b.manifest.Build}
}

// bundle writes the upgrade bundle.
func (b *builder) bundle(name string, ukis map[string][]byte, system *rootSlot) error {
	root, err := os.Open(system.file)
	if err != nil {
		return err
	}
	defer root.Close()
	h := sha256.New()
	size, err := io.Copy(h, root)
	if err != nil {
		return err
	}
	if _, err := root.Seek(0, io.SeekStart); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	err = bundle.Write(f, bundle.Contents{
		Release: b.release(), UKIs: ukis, Root: root, RootSize: size, RootHash: hex.EncodeToString(h.Sum(nil)),
	}, b.signer.bundle(b.release().String()))
	if err != nil {
		return err
	}
	return f.Close()
}
