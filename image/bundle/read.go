package bundle

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/waltos/waltos/image/minisign"
)

// Trust says which bundles are accepted.
type Trust struct {
	Keys []minisign.PublicKey
	// Running is what runs: its name and architecture are demanded, and nothing older than
	// it; nil accepts all that is signed, as for looking into a bundle.
	Running *Release
	// Downgrade allows what is older than what runs.
	Downgrade bool
}

// Reader reads a bundle whose description is trusted.
type Reader struct {
	Description
	Signatures [][]byte
	Signer     minisign.Verified

	from    *position
	zstd    *zstd.Decoder
	archive *tar.Reader
	uki     []byte // that of the archive
	done    bool
}

// position counts what has been read of the file.
type position struct {
	io.Reader
	bytes int64
}

func (p *position) Read(into []byte) (int, error) {
	n, err := p.Reader.Read(into)
	p.bytes += int64(n)
	return n, err
}

// Open reads a bundle as far as its description, and verifies that.
func Open(r io.Reader, t Trust) (*Reader, error) {
	from := &position{Reader: r}
	z, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow*4))
	if err != nil {
		return nil, fmt.Errorf("cannot read upgrade bundle: %w", err)
	}
	b := &Reader{from: from, zstd: z, archive: tar.NewReader(z)}
	if err := b.open(t); err != nil {
		z.Close()
		return nil, fmt.Errorf("cannot accept upgrade bundle: %w", err)
	}
	return b, nil
}

// Close frees what reading takes. It does not close the underlying reader.
func (b *Reader) Close() { b.zstd.Close() }

func (b *Reader) open(t Trust) error {
	text, err := b.small(descriptionName, maxDescription)
	if err != nil {
		return err
	}
	signature, err := b.small(signatureName, minisign.MaxSignature)
	if err != nil {
		return err
	}
	b.Signatures = [][]byte{signature}
	signer, untrusted := minisign.Verify(t.Keys, text, signature)
	next, err := b.next()
	if err != nil {
		return err
	}
	if next.Name == previousSignatureName {
		if signature, err = b.read(next, minisign.MaxSignature); err != nil {
			return err
		}
		b.Signatures = append(b.Signatures, signature)
		if untrusted != nil {
			signer, untrusted = minisign.Verify(t.Keys, text, signature)
		}
		if next, err = b.next(); err != nil {
			return err
		}
	}
	if untrusted != nil {
		return untrusted
	}
	b.Signer = signer
	if err := json.Unmarshal(text, &b.Description); err != nil {
		return fmt.Errorf("cannot read its description: %w", err)
	}
	if b.Format != format {
		return fmt.Errorf("it has format %d, this system knows %d; upgrade to a version between first", b.Format, format)
	}
	if t.Running != nil {
		if err := b.accept(*t.Running, t.Downgrade); err != nil {
			return err
		}
	}
	if next.Name != ukiName || next.Size != b.UKI.Size {
		return fmt.Errorf("it has %s with %d bytes where a UKI of %d bytes is expected", next.Name, next.Size, b.UKI.Size)
	}
	if b.uki, err = b.read(next, maxUKI); err != nil {
		return err
	}
	if contentOf(b.uki) != b.UKI {
		return errors.New("its UKI is not what was signed")
	}
	return nil
}

// accept compares the description with what runs.
func (b *Reader) accept(running Release, downgrade bool) error {
	if b.Name != running.Name {
		return fmt.Errorf("it is for appliance %q, this is %q", b.Name, running.Name)
	}
	if b.Architecture != running.Architecture {
		return fmt.Errorf("it is for architecture %s, this machine is %s", b.Architecture, running.Architecture)
	}
	older, err := b.Older(running)
	if err != nil {
		return err
	}
	if older && !downgrade {
		return fmt.Errorf("it is %v, older than what runs, %v", b.Release, running)
	}
	return nil
}

// next begins the next member.
func (b *Reader) next() (*tar.Header, error) {
	header, err := b.archive.Next()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("it is damaged or cut off%s: %w", b.near(), err)
	}
	if header.Typeflag != tar.TypeReg {
		return nil, fmt.Errorf("its member %q is not a file", header.Name)
	}
	return header, nil
}

// near tells where in the file reading has come to an end.
func (b *Reader) near() string { return fmt.Sprintf(", near byte %d of the file", b.from.bytes) }

// small reads the next member, of a known name and bounded size.
func (b *Reader) small(name string, limit int64) ([]byte, error) {
	header, err := b.next()
	if err != nil {
		return nil, err
	}
	if header.Name != name {
		return nil, fmt.Errorf("it has %q where %s is expected; is it an upgrade bundle?", header.Name, name)
	}
	return b.read(header, limit)
}

func (b *Reader) read(header *tar.Header, limit int64) ([]byte, error) {
	if header.Size > limit {
		return nil, fmt.Errorf("its member %s has %d bytes, more than %d", header.Name, header.Size, limit)
	}
	content, err := io.ReadAll(b.archive)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged or cut off%s: %w", header.Name, b.near(), err)
	}
	return content, nil
}

// SlotUKI returns the unified kernel image of a slot.
func (b *Reader) SlotUKI(slot string) ([]byte, error) {
	s, ok := b.Slots[slot]
	if !ok {
		return nil, fmt.Errorf("cannot upgrade slot %q: the bundle has none of that name", slot)
	}
	uki, err := s.apply(b.uki)
	if err != nil {
		return nil, fmt.Errorf("cannot accept upgrade bundle: %w", err)
	}
	return uki, nil
}

// CopyRoot writes the content of a root slot. What has been written is right only if there is
// no error.
func (b *Reader) CopyRoot(w io.Writer) error {
	if b.done {
		return errors.New("cannot read upgrade bundle: its root was read already")
	}
	b.done = true
	if err := b.copyRoot(w); err != nil {
		return fmt.Errorf("cannot accept upgrade bundle: %w", err)
	}
	return nil
}

func (b *Reader) copyRoot(w io.Writer) error {
	header, err := b.next()
	if err != nil {
		return err
	}
	if header.Name != rootName || header.Size != b.Root.Size {
		return fmt.Errorf("it has %q with %d bytes where a root of %d bytes is expected", header.Name, header.Size, b.Root.Size)
	}
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, h), b.archive); err != nil {
		return fmt.Errorf("its root is damaged or cut off%s, or cannot be written: %w", b.near(), err)
	}
	if hex.EncodeToString(h.Sum(nil)) != b.Root.SHA256 {
		return errors.New("its root is not what was signed")
	}
	switch _, err := b.archive.Next(); {
	case err == nil:
		return errors.New("something follows its root")
	case err != io.EOF:
		return fmt.Errorf("its end is damaged%s: %w", b.near(), err)
	}
	// The checksum at the end of the stream is still to be read, and nothing else.
	switch n, err := io.Copy(io.Discard, io.LimitReader(b.zstd, 1)); {
	case err != nil:
		return fmt.Errorf("its end is damaged%s: %w", b.near(), err)
	case n > 0:
		return errors.New("something follows its end")
	}
	return nil
}

// Verify reads all that follows the description, and keeps nothing of it.
func (b *Reader) Verify() error {
	for slot := range b.Slots {
		if _, err := b.SlotUKI(slot); err != nil {
			return err
		}
	}
	return b.CopyRoot(io.Discard)
}

// Verify reads a whole bundle and returns what it is.
func Verify(r io.Reader, t Trust) (Description, error) {
	b, err := Open(r, t)
	if err != nil {
		return Description{}, err
	}
	defer b.Close()
	return b.Description, b.Verify()
}
