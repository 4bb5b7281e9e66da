// Package bundle writes and reads upgrade bundles: one file that holds all that a slot of the
// appliance needs.
//
// A bundle is a tar archive (USTAR) in one zstd stream (RFC 8878, window of at most 8 MiB),
// read from the beginning to the end without seeking:
//
//	bundle.json          the description, with the hashes of what follows
//	bundle.json.minisig  its signature (package minisign), by the release key
//	bundle.json.previous.minisig  the same by the previous release key, if there is one
//	walt.efi             the UKI of slot a; the description tells where those of others differ
//	root                 file system and hash tree of the root, as the slot holds them
//
// So `tar -xf` and `minisign -V` look into it. Nothing after the signature is handed
// out unless the signature is good, and of the rest nothing is right until
// the method that read it has returned without an error.
//
// Refused: signatures of untrusted keys, bundles of another appliance or architecture,
// versions older than what runs, and every change, cut or addition.
package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Names of the members, in their order.
const (
	descriptionName       = "bundle.json"
	signatureName         = "bundle.json.minisig"
	previousSignatureName = "bundle.json.previous.minisig"
	ukiName               = "walt.efi"
	rootName              = "root"
)

// Limits of what is read into memory.
const (
	maxDescription = 1 << 20
	maxUKI         = 128 << 20
	maxWindow      = 8 << 20
	maxEdits       = 1 << 16 // bytes, of one slot
)

// format is the number of this form of bundles.
const format = 1

// Release says which appliance a bundle, or a running system, is.
type Release struct {
	Name         string `json:"name"`
	Version      string `json:"version"`      // numbers with dots between them
	Architecture string `json:"architecture"` // as Debian names it: "amd64"
	// Time is that of the newest package: it orders builds of one version.
	Time time.Time `json:"time"`
	// Build tells builds apart that have all else in common, as when only our programs have
	// changed: a digest of all that the build is made of. It orders nothing.
	Build string `json:"build"`
}

func (r Release) String() string {
	return fmt.Sprintf("%s %s (%s) of %s, build %.12s", r.Name, r.Version, r.Architecture, r.Time.UTC().Format("2006-01-02 15:04:05"), r.Build)
}

// Older tells whether a release is older than another one. Two builds of the same version and
// time are of the same age.
func (r Release) Older(than Release) (bool, error) {
	a, err := numbers(r.Version)
	if err != nil {
		return false, err
	}
	b, err := numbers(than.Version)
	if err != nil {
		return false, err
	}
	for i := range max(len(a), len(b)) {
		var x, y uint64
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return x < y, nil
		}
	}
	return r.Time.Before(than.Time), nil
}

func numbers(version string) ([]uint64, error) {
	var list []uint64
	for part := range strings.SplitSeq(version, ".") {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("cannot compare version %q: not numbers with dots between them", version)
		}
		list = append(list, n)
	}
	return list, nil
}

// Description is what is signed.
type Description struct {
	Format int `json:"format"`
	Release
	UKI   Content         `json:"uki"` // of the first slot
	Slots map[string]Slot `json:"slots"`
	Root  Content         `json:"root"`
}

// Content is a member of the archive.
type Content struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

func contentOf(data []byte) Content {
	sum := sha256.Sum256(data)
	return Content{int64(len(data)), hex.EncodeToString(sum[:])}
}

// Slot says how the UKI of a slot is made from the one in the archive: they differ in the
// name of the slot and in the signature.
type Slot struct {
	UKI   Content `json:"uki"`
	Edits []Edit  `json:"edits,omitempty"`
}

// Edit replaces some bytes.
type Edit struct {
	Offset int64  `json:"offset"`
	Bytes  []byte `json:"bytes"`
}

// edits returns what makes a program of another one of the same size.
func edits(from, to []byte) ([]Edit, error) {
	if len(from) != len(to) {
		return nil, fmt.Errorf("the UKIs of two slots have %d and %d bytes", len(from), len(to))
	}
	const gap = 32 // shorter runs of equal bytes do not end an edit
	var list []Edit
	total := 0
	for at := 0; at < len(from); {
		if from[at] == to[at] {
			at++
			continue
		}
		end := at + 1
		for equal := 0; end+equal < len(from) && equal < gap; {
			if from[end+equal] == to[end+equal] {
				equal++
			} else {
				end, equal = end+equal+1, 0
			}
		}
		list = append(list, Edit{int64(at), bytes.Clone(to[at:end])})
		total += end - at
		at = end
	}
	if total > maxEdits {
		return nil, fmt.Errorf("the UKIs of two slots differ in %d bytes", total)
	}
	return list, nil
}

// apply returns the UKI of a slot.
func (s Slot) apply(uki []byte) ([]byte, error) {
	out := bytes.Clone(uki)
	for _, e := range s.Edits {
		if e.Offset < 0 || e.Offset > int64(len(out)) || int64(len(e.Bytes)) > int64(len(out))-e.Offset {
			return nil, errors.New("an edit is outside of the UKI")
		}
		copy(out[e.Offset:], e.Bytes)
	}
	if contentOf(out) != s.UKI {
		return nil, errors.New("its UKI is not what was signed")
	}
	return out, nil
}
