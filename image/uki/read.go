package uki

import (
	"bytes"
	"debug/pe"
	"fmt"
)

// Read returns the parts of an image that Assemble has made, signed or not, without
// the stub.
func Read(image []byte) (Parts, error) {
	f, err := pe.NewFile(bytes.NewReader(image))
	if err != nil {
		return Parts{}, fmt.Errorf("cannot read UKI: %w", err)
	}
	contents := map[string][]byte{}
	for _, name := range []string{".osrel", ".cmdline", ".uname", ".initrd", ".linux"} {
		s := f.Section(name)
		if s == nil {
			return Parts{}, fmt.Errorf("cannot read UKI: no section %s", name)
		}
		content, err := s.Data()
		if err != nil {
			return Parts{}, fmt.Errorf("cannot read UKI: section %s: %w", name, err)
		}
		contents[name] = content[:min(len(content), int(s.VirtualSize))]
	}
	return Parts{
		OSRelease: contents[".osrel"], Command: string(contents[".cmdline"]), Release: string(contents[".uname"]),
		Initrd: contents[".initrd"], Linux: contents[".linux"],
	}, nil
}
