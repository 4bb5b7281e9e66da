package gpt

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// GUID is an identifier in its on-disk form, where the first three groups are little-endian.
type GUID [16]byte

// order[i] is the position on disk of byte i of the text form.
var order = [16]int{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15}

// ParseGUID decodes the form 01234567-89ab-cdef-0123-456789abcdef.
func ParseGUID(text string) (GUID, error) {
	var g GUID
	raw, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(raw) != len(g) || len(text) != 36 {
		return g, fmt.Errorf("cannot parse GUID %q", text)
	}
	for i, b := range raw {
		g[order[i]] = b
	}
	return g, nil
}

// MustGUID is ParseGUID for constants.
func MustGUID(text string) GUID {
	g, err := ParseGUID(text)
	if err != nil {
		panic(err)
	}
	return g
}

// String returns the form that ParseGUID reads.
func (g GUID) String() string {
	var raw [16]byte
	for i := range raw {
		raw[i] = g[order[i]]
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", raw[0:4], raw[4:6], raw[6:8], raw[8:10], raw[10:])
}

// DerivedGUID returns an identifier that depends on the seed only (RFC 9562
// version 8), for reproducible images.
func DerivedGUID(seed string) GUID {
	sum := sha256.Sum256([]byte(seed))
	return fromRaw(sum[:16], 8)
}

// RandomGUID returns a new identifier (RFC 9562 version 4).
func RandomGUID() GUID {
	var raw [16]byte
	rand.Read(raw[:])
	return fromRaw(raw[:], 4)
}

func fromRaw(raw []byte, version byte) GUID {
	var g GUID
	for i, b := range raw {
		g[order[i]] = b
	}
	g[order[6]] = g[order[6]]&0x0f | version<<4
	g[order[8]] = g[order[8]]&0x3f | 0x80
	return g
}
