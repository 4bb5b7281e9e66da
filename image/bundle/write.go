package bundle

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
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

// Write writes a bundle that is signed by one or two keys: that of releases, and the
// previous one. The same contents and keys make the same bytes.
func Write(w io.Writer, c Contents, keys []ed25519.PrivateKey) error {
	if err := write(w, c, keys); err != nil {
		return fmt.Errorf("cannot write upgrade bundle: %w", err)
	}
	return nil
}

func write(w io.Writer, c Contents, keys []ed25519.PrivateKey) error {
	first, ok := c.UKIs[firstSlot]
	if !ok || len(keys) == 0 || len(keys) > 2 {
		return errors.New("a UKI or a key is missing")
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
	for i, name := range []string{signatureName, previousSignatureName}[:len(keys)] {
		signature := minisign.Sign(keys[i], text, c.Release.String())
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
