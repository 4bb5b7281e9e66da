package deb

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Data iterates over the entries of a package, like a tar.Reader.
type Data struct {
	tar     *tar.Reader
	entries int
	copy    string // file that OpenCopy has opened
	end     func() error
}

// NewData reads a plain tar stream by the rules of this package.
func NewData(r io.Reader) *Data {
	return &Data{tar: tar.NewReader(&bounded{r, maxData})}
}

// Next returns the next entry, io.EOF after the last. Names and the targets of hard
// links are cleaned and relative to the root ("usr/bin/tool"; "." is the root itself);
// targets of symbolic links are as the package wrote them.
func (d *Data) Next() (*tar.Header, error) {
	h, err := d.tar.Next()
	if errors.Is(err, io.EOF) && d.copy != "" && d.entries == 0 {
		err = io.ErrUnexpectedEOF // as after a power cut: every package has its root at least
	}
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	if err != nil {
		return nil, d.damaged(err)
	}
	if d.entries++; d.entries > maxEntries {
		return nil, fmt.Errorf("cannot read entry: more than %d entries", maxEntries)
	}
	if h.Name, err = cleanPath(h.Name); err != nil {
		return nil, err
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > maxPath || strings.ContainsRune(h.Linkname, 0) {
			return nil, fmt.Errorf("entry %q: bad link target", h.Name)
		}
	case tar.TypeLink:
		if h.Linkname, err = cleanPath(h.Linkname); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("entry %q: type %q is not known", h.Name, h.Typeflag)
	}
	return h, nil
}

// Read reads the content of the current entry.
func (d *Data) Read(p []byte) (int, error) {
	n, err := d.tar.Read(p)
	if err != nil && err != io.EOF {
		err = d.damaged(err)
	}
	return n, err
}

func (d *Data) damaged(err error) error {
	if d.copy != "" {
		return fmt.Errorf("%s is damaged; remove it, and it is made again: %w", d.copy, err)
	}
	return fmt.Errorf("cannot read entry: %w", err)
}

// Close frees what OpenData or OpenCopy opened.
func (d *Data) Close() error {
	if d.end == nil {
		return nil
	}
	end := d.end
	d.end = nil
	return end()
}

// OpenData opens the data of the package file at path.
func OpenData(path string) (*Data, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	p, err := Open(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	d := p.Data()
	d.end = func() error {
		p.Close()
		return f.Close()
	}
	return d, nil
}

// WriteCopy writes the data of a package in a form that is quick to read again: the
// tar stream under light zstd with a checksum. xz decodes at about 20 MB/s, this at
// more than 500.
func WriteCopy(ctx context.Context, w io.Writer, p *Package) error {
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
	if err != nil {
		return err
	}
	if _, err := io.Copy(z, &cancelled{ctx, p.Tar()}); err != nil {
		z.Close()
		return fmt.Errorf("cannot decode data: %w", err)
	}
	return z.Close()
}

// OpenCopy opens what WriteCopy wrote.
func OpenCopy(path string) (*Data, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	d := NewData(z)
	d.copy = path
	d.end = func() error {
		z.Close()
		return f.Close()
	}
	return d, nil
}

// cleanPath makes a name of an archive relative to the root and refuses escapes.
func cleanPath(name string) (string, error) {
	if name == "" || len(name) > maxPath || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("entry %.80q: bad name", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("entry %.80q: name leaves the tree", name)
		}
	}
	if clean := path.Clean("/" + name)[1:]; clean != "" {
		return clean, nil
	}
	return ".", nil
}

type cancelled struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
