// Package machinetest has guests of some bytes, to test machines without an image.
package machinetest

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// Kernel makes a kernel file (Multiboot Specification 0.6.96 §3.1) that writes a text
// on COM1 and then resets the machine, or with stay set halts.
func Kernel(t testing.TB, text string, stay bool) string {
	t.Helper()
	const load, magic, flags, header = 0x100000, 0x1badb002, 1 << 16, 8 * 4
	code := []byte{
		0xbe, 0, 0, 0, 0, // 00 mov esi, text
		0xac,       // 05 lodsb
		0x84, 0xc0, // 06 test al, al
		0x74, 0x07, // 08 jz 0x11
		0x66, 0xba, 0xf8, 0x03, // 0a mov dx, 0x3f8
		0xee,       // 0e out dx, al
		0xeb, 0xf4, // 0f jmp 0x05
		0xb0, 0xfe, // 11 mov al, 0xfe
		0xe6, 0x64, // 13 out 0x64, al
		0xf4,       // 15 hlt
		0xeb, 0xfd, // 16 jmp 0x15
	}
	if stay {
		code[0x13], code[0x14] = 0x90, 0x90 // nop
	}
	binary.LittleEndian.PutUint32(code[1:], uint32(load+header+len(code)))
	var image []byte
	for _, field := range []uint32{magic, flags, 1<<32 - magic - flags, load, load, 0, 0, load + header} {
		image = binary.LittleEndian.AppendUint32(image, field)
	}
	return write(t, "kernel", append(append(append(image, code...), text...), 0))
}

// EchoDisk makes a raw disk of 1 MiB with a boot sector that writes "hello" and a
// prompt on COM1, then back what it reads there.
func EchoDisk(t testing.TB) string {
	t.Helper()
	code := []byte{
		0x31, 0xc0, // 00 xor ax, ax
		0x8e, 0xd8, // 02 mov ds, ax
		0xbe, 0x23, 0x7c, // 04 mov si, 0x7c23
		0xac,       // 07 lodsb
		0x84, 0xc0, // 08 test al, al
		0x74, 0x06, // 0a jz 0x12
		0xba, 0xf8, 0x03, // 0c mov dx, 0x3f8
		0xee,       // 0f out dx, al
		0xeb, 0xf5, // 10 jmp 0x07
		0xba, 0xfd, 0x03, // 12 mov dx, 0x3fd
		0xec,       // 15 in al, dx
		0xa8, 0x01, // 16 test al, 1
		0x74, 0xf8, // 18 jz 0x12
		0xba, 0xf8, 0x03, // 1a mov dx, 0x3f8
		0xec,       // 1d in al, dx
		0xee,       // 1e out dx, al
		0xeb, 0xf1, // 1f jmp 0x12
		0x90, 0x90, // 21 nop
	}
	disk := make([]byte, 1<<20)
	copy(disk, append(code, "hello\r\n$ \x00"...)) // at 23
	disk[510], disk[511] = 0x55, 0xaa
	return write(t, "disk.raw", disk)
}

func write(t testing.TB, name string, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
