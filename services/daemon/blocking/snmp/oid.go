package snmp

import (
	"slices"
	"strconv"
	"strings"
)

// OID is the name of an object, or the part of it that follows a column.
type OID []uint32

// maxOID is the number of parts that no name exceeds (RFC 2578 §3.5).
const maxOID = 128

// oid returns the OID of a constant.
func oid(s string) OID {
	o, ok := parseOID(s)
	if !ok {
		panic("internal error: " + s + " is no object identifier")
	}
	return o
}

func parseOID(s string) (OID, bool) {
	s = strings.TrimPrefix(s, ".")
	if strings.Count(s, ".") >= maxOID {
		return nil, false
	}
	o := make(OID, 0, strings.Count(s, ".")+1)
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return nil, false
		}
		o = append(o, uint32(n))
	}
	return o, true
}

func (o OID) String() string {
	var b strings.Builder
	for _, n := range o {
		b.WriteByte('.')
		b.WriteString(strconv.FormatUint(uint64(n), 10))
	}
	return b.String()
}

func (o OID) compare(p OID) int { return slices.Compare(o, p) }

// with returns an object of a column.
func (o OID) with(index ...uint32) OID { return append(o[:len(o):len(o)], index...) }

// below returns the index of an object of a column.
func (o OID) below(column OID) (OID, bool) {
	if len(o) <= len(column) || !slices.Equal(o[:len(column)], column) {
		return nil, false
	}
	return o[len(column):], true
}

// mac reads the six bytes of an address, as in the index of a forwarding table.
func (o OID) mac() (string, bool) {
	if len(o) != 6 {
		return "", false
	}
	var b [6]byte
	for i, n := range o {
		if n > 255 {
			return "", false
		}
		b[i] = byte(n)
	}
	return formatMAC(b[:])
}
