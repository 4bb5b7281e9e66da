package bundle

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/waltos/waltos/image/minisign"
)

// Contents are what a bundle is made of.
type Contents struct {
	Release
	UKIs map[string][]byte // by slot; that of slot "a" is stored
	// Root is read once; RootHash is its SHA-256 in hexadecimal.
	Root     io.Reader
	RootSize int64
	RootHash string
}

// firstSlot is the one whose UKI is stored as it is.
const firstSlot = "a"

// Signatures returns one or two signatures of a message: by the release key, and by the
// previous one.
type Signatures func(message []byte) ([][]byte, error)

// SignedBy signs with keys, and with a comment.
func SignedBy(keys []ed25519.PrivateKey, comment string) Signatures {
	return func(message []byte) (all [][]byte, err error) {
		for _, key := range keys {
			all = append(all, minisign.Sign(key, message, comment))
		}
		return all, nil
	}
}

// Write writes a bundle. The same contents and signatures make the same bytes.
func Write(w io.Writer, c Contents, sign Signatures) error {
	if err := write(w, c, sign); err != nil {
		return fmt.Errorf("cannot write upgrade bundle: %w", err)
	}
	return nil
}

func write(w io.Writer, c Contents, sign Signatures) error {
	first, ok := c.UKIs[firstSlot]
	if !ok {
		return fmt.Errorf("there is no UKI of slot %s", firstSlot)
	}
	c.Time = c.Time.UTC()
	d := Description{
		Format: format, Release: c.Release, UKI: contentOf(first), Slots: map[string]Slot{},
		Root: Content{c.RootSize, c.RootHash},
	}
	for name, uki := range c.UKIs {
		changes, err := edits(first, uki)
		if err != nil {
			return err
		}
		d.Slots[name] = Slot{contentOf(uki), changes}
	}
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	signatures, err := sign(text)
	if err != nil {
		return err
	}
	if len(signatures) < 1 || len(signatures) > 2 {
		return fmt.Errorf("there are %d signatures", len(signatures))
	}

	// One thread, so that the output does not depend on the number of processors. Most of it
	// is compressed already.
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(maxWindow))
	if err != nil {
		return err
	}
	archive := tar.NewWriter(z)
	add := func(name string, size int64, content io.Reader) error {
		header := &tar.Header{Name: name, Size: size, Mode: 0o644, ModTime: c.Time, Format: tar.FormatUSTAR}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err := io.Copy(archive, content)
		return err
	}
	if err := add(descriptionName, int64(len(text)), bytes.NewReader(text)); err != nil {
		return err
	}
	for i, signature := range signatures {
		name := []string{signatureName, previousSignatureName}[i]
		if err := add(name, int64(len(signature)), bytes.NewReader(signature)); err != nil {
			return err
		}
	}
	if err := add(ukiName, int64(len(first)), bytes.NewReader(first)); err != nil {
		return err
	}
	if err := add(rootName, c.RootSize, c.Root); err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return z.Close()
}
