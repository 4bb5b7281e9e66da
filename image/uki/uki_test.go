package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"testing"
)

// stub makes the smallest PE32+ file with one section and room for more headers.
func stub(t testing.TB, room int) []byte {
	t.Helper()
	const peAt, optional = 64, 240
	headers := (peAt + optionalAt + optional + (1+room)*sectionHeaderSize + 511) / 512 * 512
	out := make([]byte, headers+512)
	copy(out, "MZ")
	le := binary.LittleEndian
	le.PutUint32(out[lfanewAt:], peAt)
	copy(out[peAt:], "PE\x00\x00")
	le.PutUint16(out[peAt+4:], machineX64)
	le.PutUint16(out[peAt+6:], 1)
	le.PutUint16(out[peAt+20:], optional)
	le.PutUint16(out[peAt+optionalAt:], magicPE32Plus)
	le.PutUint32(out[peAt+sectionAlignAt:], 4096)
	le.PutUint32(out[peAt+fileAlignAt:], 512)
	le.PutUint32(out[peAt+sizeOfHeadersAt:], uint32(headers))
	le.PutUint32(out[peAt+optionalAt+108:], 16) // data directories
	s := section{VirtualSize: 100, VirtualAddress: 4096, Size: 512, Offset: uint32(headers)}
	copy(s.Name[:], ".text")
	if _, err := binary.Encode(out[peAt+optionalAt+optional:], le, &s); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAssemble(t *testing.T) {
	want := map[string]string{
		".osrel": "NAME=x\n", ".cmdline": "console=ttyS0", ".uname": "6.12",
		".initrd": string(bytes.Repeat([]byte("i"), 5000)), ".linux": "kernel",
	}
	image, err := Assemble(Parts{
		Stub: stub(t, 5), OSRelease: []byte(want[".osrel"]), Command: want[".cmdline"], Release: want[".uname"],
		Initrd: []byte(want[".initrd"]), Linux: []byte(want[".linux"]),
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := pe.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	end := uint32(0)
	for _, s := range f.Sections {
		if s.VirtualAddress < end || s.VirtualAddress%4096 != 0 || s.Offset%512 != 0 {
			t.Errorf("section %s at %#x, file offset %#x, after %#x", s.Name, s.VirtualAddress, s.Offset, end)
		}
		end = s.VirtualAddress + s.VirtualSize
		content, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		if w, ok := want[s.Name]; ok && string(content[:s.VirtualSize]) != w {
			t.Errorf("section %s has wrong content", s.Name)
		}
		delete(want, s.Name)
	}
	if len(want) > 0 {
		t.Errorf("sections %v are missing", want)
	}
	if size := f.OptionalHeader.(*pe.OptionalHeader64).SizeOfImage; size < end || size%4096 != 0 {
		t.Errorf("SizeOfImage %#x, sections end at %#x", size, end)
	}
}

func TestMachines(t *testing.T) {
	for machine, accepted := range map[uint16]bool{machineX64: true, machineARM64: true, 0x14c: false, 0x1c0: false} {
		p := Parts{Stub: stub(t, 5), Command: "c", Linux: []byte("l")}
		binary.LittleEndian.PutUint16(p.Stub[64+4:], machine)
		if _, err := Assemble(p); err == nil != accepted {
			t.Errorf("machine %#x: %v", machine, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	whole := Parts{Stub: stub(t, 5), Command: "c", Linux: []byte("l")}
	for name, change := range map[string]func(*Parts){
		"no kernel":  func(p *Parts) { p.Linux = nil },
		"no command": func(p *Parts) { p.Command = "" },
		"empty stub": func(p *Parts) { p.Stub = nil },
		"not PE":     func(p *Parts) { p.Stub = make([]byte, 4096) },
		"cut off":    func(p *Parts) { p.Stub = p.Stub[:340] },
		"twice":      func(p *Parts) { p.Stub, _ = Assemble(whole) },
		"no room":    func(p *Parts) { p.Stub = crowded(t) },
	} {
		p := whole
		p.Stub = bytes.Clone(whole.Stub)
		change(&p)
		if _, err := Assemble(p); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// crowded is a stub whose headers end right after its section table.
func crowded(t *testing.T) []byte {
	out := stub(t, 0)
	binary.LittleEndian.PutUint32(out[64+sizeOfHeadersAt:], 64+optionalAt+240+sectionHeaderSize)
	return out
}

func FuzzAssemble(f *testing.F) {
	f.Add(stub(f, 5))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Assemble(Parts{Stub: data, Command: "c", Linux: []byte("l")}); err != nil {
			return
		}
	})
}

// Whatever is read, it is no panic, and what has been assembled is read.
func FuzzRead(f *testing.F) {
	good, err := Assemble(Parts{Stub: stub(f, 5), OSRelease: []byte("o"), Command: "c", Release: "r", Initrd: []byte("i"), Linux: []byte("l")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Read(data)
		if bytes.Equal(data, good) && (err != nil || p.Command != "c" || string(p.Linux) != "l") {
			t.Errorf("%+v, %v", p, err)
		}
	})
}
