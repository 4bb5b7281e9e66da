// Package deb reads Debian binary packages, format 2.0 (deb(5)): an ar archive of
// debian-binary, control.tar and data.tar.
//
// Maintainer scripts are never run; the control files are only handed out. Accepted
// are tar members that are plain or compressed by gzip, xz or zstd. Refused are paths
// that leave the package's tree, other versions of the format, and archives that pass
// the limits below: a package is decoded only after its hash was compared, but a
// decoder must not trust that.
package deb

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Limits of what one package may hold. The largest packages of Debian hold about
// 1 GB and 60,000 entries.
const (
	maxControl = 16 << 20
	maxData    = 8 << 30
	maxEntries = 500_000
	maxPath    = 4096
	maxWindow  = 128 << 20 // of the decompressors
)

// Package is an opened package: the control files have been read, the data is next.
type Package struct {
	// Control holds the control files by name, as "control", "conffiles", "postinst".
	Control map[string][]byte

	data io.Reader // data.tar, decompressed
	end  func()
}

// Open reads a package up to its data. The caller closes it.
func Open(r io.Reader) (*Package, error) {
	a, err := newArchive(r)
	if err != nil {
		return nil, err
	}
	name, member, err := a.next()
	if err != nil {
		return nil, err
	}
	if name != "debian-binary" {
		return nil, fmt.Errorf("cannot read package: the first member is %q, not debian-binary", name)
	}
	version, err := io.ReadAll(io.LimitReader(member, 16))
	if err != nil {
		return nil, fmt.Errorf("cannot read package: %w", err)
	}
	if !bytes.HasPrefix(version, []byte("2.")) {
		return nil, fmt.Errorf("cannot read package: format %q, want 2.0", bytes.TrimSpace(version))
	}

	name, member, err = a.next()
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(name, "control.tar") {
		return nil, fmt.Errorf("cannot read package: the second member is %q, not control.tar", name)
	}
	p := &Package{}
	if p.Control, err = readControl(name, member); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}

	// Members whose name starts with an underscore may stand before the data (deb(5)).
	for {
		if name, member, err = a.next(); err != nil {
			return nil, err
		}
		if !strings.HasPrefix(name, "_") {
			break
		}
	}
	if !strings.HasPrefix(name, "data.tar") {
		return nil, fmt.Errorf("cannot read package: the third member is %q, not data.tar", name)
	}
	if p.data, p.end, err = decompress(name, member); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	return p, nil
}

// Data returns the entries of the package. It can be called once.
func (p *Package) Data() *Data { return NewData(p.data) }

// Tar returns the data member as a plain tar stream, bounded. It can be called once,
// and not beside Data.
func (p *Package) Tar() io.Reader { return &bounded{p.data, maxData} }

// Close frees the decompressor.
func (p *Package) Close() {
	if p.end != nil {
		p.end()
		p.end = nil
	}
}

func readControl(name string, member io.Reader) (map[string][]byte, error) {
	plain, end, err := decompress(name, member)
	if err != nil {
		return nil, err
	}
	defer end()
	files := map[string][]byte{}
	data := NewData(&bounded{plain, maxControl})
	for {
		h, err := data.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if files[h.Name], err = io.ReadAll(data); err != nil {
			return nil, err
		}
	}
}

// decompress chooses by the suffix of the member's name.
func decompress(name string, r io.Reader) (io.Reader, func(), error) {
	nothing := func() {}
	switch suffix := name[strings.LastIndexByte(name, '.'):]; suffix {
	case ".tar":
		return r, nothing, nil
	case ".gz":
		z, err := gzip.NewReader(r)
		return z, nothing, err
	case ".xz":
		z, err := newXZ(r)
		return z, nothing, err
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	default:
		return nil, nil, fmt.Errorf("compression %q is not known", suffix)
	}
}

// newXZ refuses a first block with a huge dictionary, because the decoder reserves
// what the header asks for.
func newXZ(r io.Reader) (io.Reader, error) {
	head := make([]byte, 64)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	head = head[:n]
	// Stream header (12 bytes), block header: size, flags, optional sizes, and
	// filter 0x21 (LZMA2) with one byte of properties.
	if len(head) > 13 {
		block := head[12:min(len(head), 12+4*(int(head[12])+1))]
		if i := bytes.Index(block, []byte{0x21, 0x01}); i >= 0 && i+2 < len(block) {
			bits := block[i+2]
			// 29 codes 3<<25 = 96 MiB, 30 codes 128 MiB.
			if bits > 30 {
				return nil, fmt.Errorf("the xz dictionary is larger than %d MiB", maxWindow>>20)
			}
		}
	}
	// The decoder takes single bytes: unbuffered, that is a system call each.
	return xz.NewReader(bufio.NewReaderSize(io.MultiReader(bytes.NewReader(head), r), 64<<10))
}

// bounded fails, instead of ending, when more than left bytes are read.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("archive is larger than allowed")
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	return n, err
}

// archive walks an ar archive (ar(5), common format without long names: deb(5) uses
// none).
type archive struct {
	r      io.Reader
	member *io.LimitedReader
	pad    int64
}

func newArchive(r io.Reader) (*archive, error) {
	var magic [8]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil {
		return nil, fmt.Errorf("cannot read package: %w", err)
	}
	if string(magic[:]) != "!<arch>\n" {
		return nil, errors.New("cannot read package: not an ar archive")
	}
	return &archive{r: r}, nil
}

func (a *archive) next() (string, io.Reader, error) {
	if a.member != nil {
		if _, err := io.CopyN(io.Discard, a.r, a.member.N+a.pad); err != nil {
			return "", nil, fmt.Errorf("cannot read package: %w", err)
		}
	}
	var header [60]byte
	if _, err := io.ReadFull(a.r, header[:]); err != nil {
		return "", nil, fmt.Errorf("cannot read package: member missing: %w", err)
	}
	if header[58] != '`' || header[59] != '\n' {
		return "", nil, errors.New("cannot read package: ar header is damaged")
	}
	size, err := strconv.ParseInt(strings.TrimRight(string(header[48:58]), " "), 10, 64)
	if err != nil || size < 0 {
		return "", nil, fmt.Errorf("cannot read package: member size %q", header[48:58])
	}
	name := strings.TrimSuffix(strings.TrimRight(string(header[:16]), " "), "/")
	if !strings.Contains(name, ".") && name != "debian-binary" && !strings.HasPrefix(name, "_") {
		return "", nil, fmt.Errorf("cannot read package: unknown member %q", name)
	}
	a.member, a.pad = &io.LimitedReader{R: a.r, N: size}, size&1
	return name, a.member, nil
}
