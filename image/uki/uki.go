// Package uki assembles unified kernel images: one UEFI program that holds the
// kernel, its initial root file system and its command line.
//
// Specification: UAPI group, "Unified Kernel Image"; PE/COFF, PE32+ only. The stub
// (systemd-stub) comes from a package; sections are appended to it. Refused: a stub
// that has no room for the headers of the new sections, or has such sections
// already. Signing the image is package sign's.
package uki

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Parts are the contents of an image; Stub, Linux and Command are required.
type Parts struct {
	Stub      []byte // linuxx64.efi.stub of systemd, or that of another architecture
	OSRelease []byte // os-release(5)
	Command   string // kernel command line
	Release   string // of the kernel, as uname -r says
	Initrd    []byte
	Linux     []byte // a kernel that is a UEFI program itself
}

// suffixes are what UEFI calls architectures (UEFI 2.10 §3.5.1.1), by Debian's names.
var suffixes = map[string]string{"amd64": "x64", "arm64": "aa64"}

// StubName is the file of the stub in Debian's package, for an architecture of Debian.
func StubName(architecture string) string {
	return "usr/lib/systemd/boot/efi/linux" + suffixes[architecture] + ".efi.stub"
}

// BootName is the file that firmware looks for on an ESP.
func BootName(architecture string) string {
	return "/EFI/BOOT/BOOT" + strings.ToUpper(suffixes[architecture]) + ".EFI"
}

// LoaderName is the file of systemd-boot, which comes with the stub.
func LoaderName(architecture string) string {
	return "usr/lib/systemd/boot/efi/systemd-boot" + suffixes[architecture] + ".efi"
}

// Offsets in a PE file. The optional header follows the 24 bytes of signature and file header.
const (
	lfanewAt          = 0x3c
	machineX64        = 0x8664
	machineARM64      = 0xaa64
	magicPE32Plus     = 0x20b
	optionalAt        = 24
	sectionAlignAt    = optionalAt + 32
	fileAlignAt       = optionalAt + 36
	sizeOfImageAt     = optionalAt + 56
	sizeOfHeadersAt   = optionalAt + 60
	checksumAt        = optionalAt + 64
	sectionHeaderSize = 40
	initializedData   = 0x40
	readable          = 0x40000000
)

// section is the on-disk form of a section header.
type section struct {
	Name                                      [8]byte
	VirtualSize, VirtualAddress, Size, Offset uint32
	Relocations, Lines                        uint32
	RelocationCount, LineCount                uint16
	Flags                                     uint32
}

// Assemble returns the image.
func Assemble(p Parts) ([]byte, error) {
	if len(p.Linux) == 0 || p.Command == "" {
		return nil, errors.New("cannot assemble UKI: no kernel or no command line")
	}
	image, err := assemble(p)
	if err != nil {
		return nil, fmt.Errorf("cannot assemble UKI: %w", err)
	}
	return image, nil
}

func assemble(p Parts) ([]byte, error) {
	stub := p.Stub
	if len(stub) < 64 || stub[0] != 'M' || stub[1] != 'Z' {
		return nil, errors.New("the stub is not a PE file")
	}
	pe := int(binary.LittleEndian.Uint32(stub[lfanewAt:]))
	if pe < 64 || pe > len(stub)-optionalAt-112 || string(stub[pe:pe+4]) != "PE\x00\x00" {
		return nil, errors.New("the stub has no PE header")
	}
	u16 := func(at int) int { return int(binary.LittleEndian.Uint16(stub[pe+at:])) }
	u32 := func(at int) int { return int(binary.LittleEndian.Uint32(stub[pe+at:])) }
	if machine := u16(4); machine != machineX64 && machine != machineARM64 || u16(optionalAt) != magicPE32Plus {
		return nil, fmt.Errorf("the stub is for machine %#x, format %#x", u16(4), u16(optionalAt))
	}
	sectionAlign, fileAlign := u32(sectionAlignAt), u32(fileAlignAt)
	if !powerOfTwo(sectionAlign) || !powerOfTwo(fileAlign) {
		return nil, fmt.Errorf("the stub has alignments %d and %d", sectionAlign, fileAlign)
	}

	count, table := u16(6), pe+optionalAt+u16(20)
	if table+count*sectionHeaderSize > len(stub) {
		return nil, errors.New("the section table of the stub is cut off")
	}
	present, end, firstData := map[string]bool{}, 0, len(stub)
	for i := range count {
		var s section
		if _, err := binary.Decode(stub[table+i*sectionHeaderSize:], binary.LittleEndian, &s); err != nil {
			return nil, err
		}
		present[string(bytes.TrimRight(s.Name[:], "\x00"))] = true
		end = max(end, int(s.VirtualAddress)+int(s.VirtualSize))
		if s.Size > 0 {
			firstData = min(firstData, int(s.Offset))
		}
	}

	image := bytes.Clone(stub)
	headers := table + count*sectionHeaderSize
	for _, part := range []struct {
		name    string
		content []byte
	}{
		{".osrel", p.OSRelease},
		{".cmdline", []byte(p.Command)},
		{".uname", []byte(p.Release)},
		{".initrd", p.Initrd},
		{".linux", p.Linux}, // last: it may be unpacked in place
	} {
		if len(part.content) == 0 {
			continue
		}
		if present[part.name] {
			return nil, fmt.Errorf("the stub has a section %s already", part.name)
		}
		if headers+sectionHeaderSize > min(firstData, u32(sizeOfHeadersAt)) {
			return nil, fmt.Errorf("the stub has no room for the header of section %s", part.name)
		}
		image = append(image, make([]byte, align(len(image), fileAlign)-len(image))...)
		address := align(end, sectionAlign)
		end = address + len(part.content)
		s := section{
			VirtualSize: uint32(len(part.content)), VirtualAddress: uint32(address),
			Size: uint32(align(len(part.content), fileAlign)), Offset: uint32(len(image)),
			Flags: initializedData | readable,
		}
		copy(s.Name[:], part.name)
		if _, err := binary.Encode(image[headers:], binary.LittleEndian, &s); err != nil {
			return nil, err
		}
		headers += sectionHeaderSize
		count++
		image = append(image, part.content...)
	}
	image = append(image, make([]byte, align(len(image), fileAlign)-len(image))...)
	binary.LittleEndian.PutUint16(image[pe+6:], uint16(count))
	binary.LittleEndian.PutUint32(image[pe+sizeOfImageAt:], uint32(align(end, sectionAlign)))
	binary.LittleEndian.PutUint32(image[pe+checksumAt:], 0) // only drivers need it
	return image, nil
}

func align(n, to int) int { return (n + to - 1) / to * to }

// powerOfTwo also bounds what an alignment may add.
func powerOfTwo(n int) bool { return n > 0 && n <= 1<<16 && n&(n-1) == 0 }
