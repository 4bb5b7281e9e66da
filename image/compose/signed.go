package compose

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/waltos/waltos/image/bundle"
	"github.com/waltos/waltos/image/sign"
	"github.com/waltos/waltos/image/uki"
)

// slots are those that a UKI is made for.
var slots = []string{"a", "b"}

// signed is what the keys have made, and those that sign the rest.
type signed struct {
	ukis     map[string][]byte // by slot
	releases []ed25519.PrivateKey
}

// newSigned makes the UKIs of all slots and signs them.
func (b *builder) newSigned(k *kernel, initrd []byte, system *rootSlot) (*signed, error) {
	signer, err := b.Keys.Signer(sign.Programs)
	if err != nil {
		return nil, err
	}
	s := &signed{ukis: map[string][]byte{}}
	if s.releases, err = b.Keys.Releases(); err != nil {
		return nil, err
	}
	stub, err := b.stub()
	if err != nil {
		return nil, err
	}
	for _, slot := range slots {
		unified, err := uki.Assemble(uki.Parts{
			Stub: stub, OSRelease: b.osRelease(), Command: b.command(slot, system), Release: k.release, Initrd: initrd, Linux: k.image,
		})
		if err != nil {
			return nil, err
		}
		if s.ukis[slot], err = signer.Program(unified); err != nil {
			return nil, err
		}
	}
	return s, nil
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
	return bundle.Release{Name: a.Name, Version: a.Version, Architecture: a.Debian.Architecture, Time: b.time}
}

// bundle writes the upgrade bundle.
func (b *builder) bundle(name string, s *signed, system *rootSlot) error {
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
		Release: b.release(), UKIs: s.ukis, Root: root, RootSize: size, RootHash: hex.EncodeToString(h.Sum(nil)),
	}, s.releases)
	if err != nil {
		return err
	}
	return f.Close()
}

// firmware names what UEFI calls architectures (UEFI 2.10 §3.5.1.1), by Debian's name.
var firmware = map[string]string{"amd64": "x64", "arm64": "aa64"}

// bootName is where firmware looks on an ESP unless it is told otherwise.
func (b *builder) bootName() string {
	return "/EFI/BOOT/BOOT" + strings.ToUpper(firmware[b.Inputs.Appliance.Debian.Architecture]) + ".EFI"
}

// stub reads the program that unified kernel images begin with.
func (b *builder) stub() ([]byte, error) {
	content, err := os.ReadFile(b.toolbox.Path("usr/lib/systemd/boot/efi/linux" + firmware[b.Inputs.Appliance.Debian.Architecture] + ".efi.stub"))
	if err != nil {
		return nil, fmt.Errorf("cannot find the stub of unified kernel images: %w", err)
	}
	return content, nil
}
