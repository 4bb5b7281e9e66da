// Package firmware writes the variables of the UEFI that QEMU runs: a machine that trusts
// given keys of Secure Boot from its first start.
//
// Specification: EDK II, MdeModulePkg/Include/Guid/VariableFormat.h (authenticated
// variables), in a firmware volume (UEFI PI 1.8, volume 3, §3.2.1). Given is an empty
// store of the firmware's package, such as OVMF_VARS_4M.fd. Refused: what is none, and what
// does not fit.
package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"

	"github.com/waltos/waltos/image/gpt"
	"github.com/waltos/waltos/image/sign"
)

var authenticated = gpt.MustGUID("aaf32c78-947b-439a-a180-2e144ec37792")

const (
	volumeSignatureAt = 40
	volumeHeaderAt    = 48 // its length
	storeHeader       = 28 // GUID, size, format, state, reserved
	align             = 4

	startOfVariable = 0x55aa
	variableAdded   = 0x3f
	variableHeader  = 60
)

// header is the on-disk form of the header of a variable.
type header struct {
	Start              uint16
	State, _           uint8
	Attributes         uint32
	Count              uint64 // of changes that are authenticated by a count
	Time               [16]byte
	Key                uint32
	NameSize, DataSize uint32
	Vendor             gpt.GUID
}

// Enrol returns a store that holds more variables.
func Enrol(store []byte, variables []sign.Variable) ([]byte, error) {
	out, err := enrol(bytes.Clone(store), variables)
	if err != nil {
		return nil, fmt.Errorf("cannot write firmware variables: %w", err)
	}
	return out, nil
}

func enrol(out []byte, variables []sign.Variable) ([]byte, error) {
	le := binary.LittleEndian
	if len(out) < volumeHeaderAt+2 || string(out[volumeSignatureAt:volumeSignatureAt+4]) != "_FVH" {
		return nil, errors.New("not a firmware volume")
	}
	begin := int(le.Uint16(out[volumeHeaderAt:]))
	if len(out) < begin+storeHeader || gpt.GUID(out[begin:begin+16]) != authenticated {
		return nil, errors.New("the firmware volume has no authenticated variables")
	}
	end := begin + int(le.Uint32(out[begin+16:]))
	if end > len(out) {
		return nil, errors.New("the store of variables is cut off")
	}
	at := begin + storeHeader
	for at+variableHeader <= end && le.Uint16(out[at:]) == startOfVariable {
		var h header
		if _, err := binary.Decode(out[at:], le, &h); err != nil {
			return nil, err
		}
		size := int64(variableHeader) + int64(h.NameSize) + int64(h.DataSize)
		if size > int64(end-at) {
			return nil, errors.New("a variable is cut off")
		}
		at = aligned(at + int(size))
	}
	for _, v := range variables {
		var name []byte
		for _, unit := range append(utf16.Encode([]rune(v.Name)), 0) {
			name = le.AppendUint16(name, unit)
		}
		record, err := binary.Append(nil, le, &header{
			Start: startOfVariable, State: variableAdded, Attributes: v.Attributes, Time: sign.Time(v.Time),
			NameSize: uint32(len(name)), DataSize: uint32(len(v.Data)), Vendor: v.Vendor,
		})
		if err != nil {
			return nil, err
		}
		record = append(append(record, name...), v.Data...)
		if at+len(record) > end {
			return nil, fmt.Errorf("there is no room for %s", v.Name)
		}
		at = aligned(at + copy(out[at:], record))
	}
	return out, nil
}

func aligned(n int) int { return (n + align - 1) &^ (align - 1) }
