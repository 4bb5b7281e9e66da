package sign

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/pe"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidIndirectData = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
	oidPEImage      = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15}
)

// Offsets in a PE32+ file, from its signature "PE".
const (
	checksumAt    = 24 + 64
	directoriesAt = 24 + 112
	// The directory of certificates holds a position in the file and a size.
	certificatesAt = directoriesAt + pe.IMAGE_DIRECTORY_ENTRY_SECURITY*8
)

// WIN_CERTIFICATE: length, revision, type.
const (
	certificateHeader   = 8
	certificateRevision = 0x0200
	typePKCS            = 0x0002
	certificateAlign    = 8
)

// Program returns an UEFI program with a signature.
func (s *Signer) Program(program []byte) ([]byte, error) {
	signed, err := s.program(program)
	if err != nil {
		return nil, fmt.Errorf("cannot sign program: %w", err)
	}
	return signed, nil
}

func (s *Signer) program(program []byte) ([]byte, error) {
	at, err := inspect(program)
	if err != nil {
		return nil, err
	}
	// The signature begins at a multiple of 8; what fills the gap is hashed.
	signed := append(bytes.Clone(program), make([]byte, -len(program)&(certificateAlign-1))...)
	digest := hash(signed, at)
	content, err := indirectData(digest)
	if err != nil {
		return nil, err
	}
	data, err := s.enclosed(oidIndirectData, content)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidSignedData)
		b.AddASN1(contextTag(0), func(b *cryptobyte.Builder) { b.AddBytes(data) })
	})
	message, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	message = append(message, make([]byte, -len(message)&(certificateAlign-1))...)
	le := binary.LittleEndian
	certificate := le.AppendUint32(nil, uint32(certificateHeader+len(message)))
	certificate = le.AppendUint16(certificate, certificateRevision)
	certificate = le.AppendUint16(certificate, typePKCS)
	return attach(signed, at, append(certificate, message...)), nil
}

// attach appends certificates to a program and tells its header.
func attach(program []byte, at int, certificates []byte) []byte {
	binary.LittleEndian.PutUint32(program[at+certificatesAt:], uint32(len(program)))
	binary.LittleEndian.PutUint32(program[at+certificatesAt+4:], uint32(len(certificates)))
	return append(program, certificates...)
}

// Copy gives a program the signature of another one. Firmware accepts it if the programs are
// equal: whoever builds a program again gets the same file without the key.
func Copy(program, from []byte) ([]byte, error) {
	at, err := inspect(program)
	if err != nil {
		return nil, fmt.Errorf("cannot sign program: %w", err)
	}
	f, err := pe.NewFile(bytes.NewReader(from))
	if err != nil {
		return nil, fmt.Errorf("cannot copy signature: %w", err)
	}
	header, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return nil, errors.New("cannot copy signature: it is not in the format PE32+")
	}
	directory := header.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY]
	start, size := uint64(directory.VirtualAddress), uint64(directory.Size)
	if size == 0 || start+size > uint64(len(from)) {
		return nil, errors.New("cannot copy signature: there is none")
	}
	padded := append(bytes.Clone(program), make([]byte, -len(program)&(certificateAlign-1))...)
	return attach(padded, at, from[start:start+size]), nil
}

// inspect returns where the PE header is, after it has made sure that headers and
// sections are the whole file.
func inspect(program []byte) (at int, err error) {
	if !bytes.HasPrefix(program, []byte("MZ")) {
		return 0, errors.New("it is not a PE file")
	}
	f, err := pe.NewFile(bytes.NewReader(program))
	if err != nil {
		return 0, err
	}
	header, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return 0, errors.New("it is not in the format PE32+")
	}
	if header.NumberOfRvaAndSizes <= pe.IMAGE_DIRECTORY_ENTRY_SECURITY {
		return 0, errors.New("it has no room for a signature")
	}
	if header.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY] != (pe.DataDirectory{}) {
		return 0, errors.New("it is signed already")
	}
	sections := slices.DeleteFunc(slices.Clone(f.Sections), func(s *pe.Section) bool { return s.Size == 0 })
	slices.SortFunc(sections, func(a, b *pe.Section) int { return cmp.Compare(a.Offset, b.Offset) })
	end := uint64(header.SizeOfHeaders)
	for _, s := range sections {
		// A gap would be loaded by nobody, and overlapping sections be hashed twice.
		if uint64(s.Offset) != end {
			return 0, fmt.Errorf("section %s begins at %d, but what is before it ends at %d", s.Name, s.Offset, end)
		}
		end += uint64(s.Size)
	}
	if end != uint64(len(program)) {
		return 0, fmt.Errorf("its sections end at %d, but it has %d bytes", end, len(program))
	}
	return int(binary.LittleEndian.Uint32(program[0x3c:])), nil
}

// hash leaves out what signing changes. As headers and sections follow each other without
// gaps, the rest in the order of the file is what Authenticode asks for.
func hash(program []byte, at int) (digest [sha256.Size]byte) {
	h := sha256.New()
	h.Write(program[:at+checksumAt])
	h.Write(program[at+checksumAt+4 : at+certificatesAt])
	h.Write(program[at+certificatesAt+8:])
	h.Sum(digest[:0])
	return digest
}

// indirectData returns the SpcIndirectDataContent of a program: what kind of file it is,
// and its hash. The file's name is an empty string.
func indirectData(digest [sha256.Size]byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidPEImage)
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(tag.BIT_STRING, func(b *cryptobyte.Builder) { b.AddUint8(0) })
				b.AddASN1(contextTag(0), func(b *cryptobyte.Builder) {
					b.AddASN1(contextTag(2), func(b *cryptobyte.Builder) {
						b.AddASN1(tag.Tag(0).ContextSpecific(), func(*cryptobyte.Builder) {})
					})
				})
			})
		})
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			algorithm(b, oidSHA256)
			b.AddASN1OctetString(digest[:])
		})
	})
	return b.Bytes()
}
