package tftp

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"
)

// Operations and error codes of RFC 1350, 2347.
const (
	opRead    = 1
	opWrite   = 2
	opData    = 3
	opAck     = 4
	opError   = 5
	opOptions = 6

	codeOther    = 0 // see the text
	codeNotFound = 1
	codeAccess   = 2
	codeIllegal  = 4
)

// Limits of the options that clients may choose (RFC 2348, 2349, 7440).
const (
	minBlock, maxBlock     = 8, 65464
	minTimeout, maxTimeout = 1, 255
	maxWindow              = 64
	// maxInFlight bounds what one transfer keeps in memory.
	maxInFlight = 512 << 10
	// maxRequest is more than any request of a file name that can exist.
	maxRequest = 5000
)

var errIllegal = errors.New("illegal TFTP operation")

// request is a decoded RRQ or WRQ.
type request struct {
	write    bool
	name     string
	netascii bool
	options  []option // in the order of the client, names in lower case
}

type option struct{ name, value string }

// parseRequest decodes the first packet of a client.
func parseRequest(p []byte) (*request, error) {
	if len(p) < 2 || len(p) > maxRequest {
		return nil, errIllegal
	}
	op := binary.BigEndian.Uint16(p)
	if op != opRead && op != opWrite {
		return nil, errIllegal
	}
	fields := strings.Split(string(p[2:]), "\x00")
	// The last string must be ended too; some firmware adds bytes after it.
	fields = fields[:len(fields)-1]
	if len(fields) < 2 || fields[0] == "" {
		return nil, errIllegal
	}
	r := &request{write: op == opWrite, name: fields[0]}
	switch strings.ToLower(fields[1]) {
	case "octet":
	case "netascii":
		r.netascii = true
	default:
		return nil, errIllegal
	}
	for rest := fields[2:]; len(rest) >= 2 && rest[0] != ""; rest = rest[2:] {
		r.options = append(r.options, option{strings.ToLower(rest[0]), rest[1]})
	}
	return r, nil
}

// terms are what a transfer was agreed on.
type terms struct {
	block   int
	window  int
	timeout time.Duration
	options []option // acknowledged; none: no OACK is sent
}

// negotiate accepts the options that it knows and ignores the others, as RFC 2347
// wants. size is that of the file.
func (r *request) negotiate(size int64) terms {
	t := terms{block: 512, window: 1, timeout: time.Second}
	seen := map[string]bool{}
	for _, o := range r.options {
		n, err := strconv.Atoi(o.value)
		if err != nil || seen[o.name] {
			continue
		}
		seen[o.name] = true
		switch {
		case o.name == "blksize" && n >= minBlock:
			t.block = min(n, maxBlock)
			o.value = strconv.Itoa(t.block)
		case o.name == "timeout" && n >= minTimeout && n <= maxTimeout:
			t.timeout = time.Duration(n) * time.Second
			o.value = strconv.Itoa(n)
		case o.name == "windowsize" && n >= 1:
			t.window = min(n, maxWindow)
		case o.name == "tsize" && !r.netascii: // the size of a translated file is not known
			o.value = strconv.FormatInt(size, 10)
		default:
			continue
		}
		t.options = append(t.options, o)
	}
	t.window = max(1, min(t.window, maxInFlight/t.block))
	for i, o := range t.options {
		if o.name == "windowsize" {
			t.options[i].value = strconv.Itoa(t.window)
		}
	}
	return t
}

func optionsPacket(options []option) []byte {
	p := []byte{0, opOptions}
	for _, o := range options {
		p = append(append(p, o.name...), 0)
		p = append(append(p, o.value...), 0)
	}
	return p
}

func errorPacket(code uint16, text string) []byte {
	p := []byte{0, opError}
	p = binary.BigEndian.AppendUint16(p, code)
	return append(append(p, text...), 0)
}
