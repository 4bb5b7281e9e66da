package debian

import (
	"bytes"
	"crypto"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// The public keys of the archive, from the package debian-archive-keyring 2025.1. They
// are data: which of them may sign is pinned by fingerprint in appliance.hcl.
//
//go:embed keys/*.asc
var shipped embed.FS

// Keyring holds the keys that may sign a Release file.
type Keyring struct{ keys openpgp.EntityList }

// Keys returns the shipped keys with the given fingerprints (hexadecimal).
func Keys(fingerprints []string) (*Keyring, error) {
	files, err := shipped.ReadDir("keys")
	if err != nil {
		return nil, err
	}
	var all openpgp.EntityList
	for _, file := range files {
		raw, err := shipped.ReadFile("keys/" + file.Name())
		if err != nil {
			return nil, err
		}
		keys, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(raw))
		if err != nil {
			return nil, fmt.Errorf("cannot read key %s: %w", file.Name(), err)
		}
		all = append(all, keys...)
	}
	return pin(all, fingerprints)
}

// ReadKeys reads armored public keys, of which those with the given fingerprints are
// kept: for an archive that Debian does not sign.
func ReadKeys(armored io.Reader, fingerprints []string) (*Keyring, error) {
	keys, err := openpgp.ReadArmoredKeyRing(armored)
	if err != nil {
		return nil, fmt.Errorf("cannot read keys: %w", err)
	}
	return pin(keys, fingerprints)
}

func pin(all openpgp.EntityList, fingerprints []string) (*Keyring, error) {
	k := &Keyring{}
	for _, wanted := range fingerprints {
		plain := strings.ToLower(strings.ReplaceAll(wanted, " ", ""))
		found := false
		for _, key := range all {
			if hex.EncodeToString(key.PrimaryKey.Fingerprint) == plain {
				k.keys, found = append(k.keys, key), true
			}
		}
		if !found {
			return nil, fmt.Errorf("cannot pin key %s: it is not among the %d keys known", wanted, len(all))
		}
	}
	if len(k.keys) == 0 {
		return nil, errors.New("cannot check signatures: no key is pinned")
	}
	return k, nil
}

// Release is a verified InRelease file.
type Release struct {
	Codename   string
	Suite      string
	Date       time.Time
	ValidUntil time.Time // zero when the archive sets none
	ByHash     bool      // indexes are kept under their hash too
	Files      map[string]Index
}

// Index is a file that a Release file lists, by its path below the suite.
type Index struct {
	Size   int64
	SHA256 string
}

// maxRelease bounds an InRelease file: those of Debian have 140 kB.
const maxRelease = 8 << 20

// ReadInRelease verifies a clear-signed Release file. One good signature of a pinned
// key suffices; now is the time at which keys and Valid-Until are judged.
func (k *Keyring) ReadInRelease(r io.Reader, now time.Time) (*Release, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxRelease+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read InRelease: %w", err)
	}
	if len(raw) > maxRelease {
		return nil, fmt.Errorf("cannot read InRelease: larger than %d bytes", maxRelease)
	}
	if !bytes.HasPrefix(raw, []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		return nil, errors.New("cannot read InRelease: it is not clear-signed")
	}
	block, rest := clearsign.Decode(raw)
	if block == nil {
		return nil, errors.New("cannot read InRelease: the signed message is damaged")
	}
	if len(bytes.TrimSpace(rest)) != 0 {
		return nil, errors.New("cannot read InRelease: text follows the signature")
	}
	config := &packet.Config{Time: func() time.Time { return now }}
	expected := []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}
	_, err = openpgp.CheckDetachedSignatureAndHash(k.keys, bytes.NewReader(block.Bytes), block.ArmoredSignature.Body, expected, config)
	if err != nil {
		return nil, fmt.Errorf("cannot trust InRelease: no good signature of a pinned key: %w", err)
	}
	release, err := parseRelease(block.Plaintext)
	if err != nil {
		return nil, fmt.Errorf("cannot read InRelease: %w", err)
	}
	if !release.ValidUntil.IsZero() && now.After(release.ValidUntil) {
		return nil, fmt.Errorf("cannot trust InRelease of %s: valid until %s, and now is %s",
			release.Codename, release.ValidUntil.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return release, nil
}

func parseRelease(text []byte) (*Release, error) {
	stanzas := NewStanzaReader(bytes.NewReader(text))
	s, err := stanzas.Next()
	if err != nil {
		return nil, err
	}
	if _, err := stanzas.Next(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one stanza")
	}
	r := &Release{Codename: s.Get("Codename"), Suite: s.Get("Suite"), ByHash: s.Get("Acquire-By-Hash") == "yes", Files: map[string]Index{}}
	if r.Date, err = parseDate(s.Get("Date")); err != nil {
		return nil, fmt.Errorf("field Date: %w", err)
	}
	if v := s.Get("Valid-Until"); v != "" {
		if r.ValidUntil, err = parseDate(v); err != nil {
			return nil, fmt.Errorf("field Valid-Until: %w", err)
		}
	}
	for line := range strings.Lines(s.Get("SHA256")) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 3 {
			return nil, fmt.Errorf("field SHA256: %.80q", line)
		}
		size, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil || size < 0 || !ValidSHA256(fields[0]) {
			return nil, fmt.Errorf("field SHA256: %.120q", line)
		}
		r.Files[fields[2]] = Index{Size: size, SHA256: fields[0]}
	}
	if len(r.Files) == 0 {
		return nil, errors.New("no SHA256 field")
	}
	return r, nil
}

// parseDate reads the dates of Release files, always in universal time.
func parseDate(s string) (time.Time, error) {
	for _, zone := range []string{" UTC", " GMT", " +0000"} {
		if bare, found := strings.CutSuffix(s, zone); found {
			return time.Parse("Mon, _2 Jan 2006 15:04:05", bare)
		}
	}
	return time.Time{}, fmt.Errorf("%.60q is not a date in UTC", s)
}

// ValidSHA256 says whether s is a hash in lower-case hexadecimal.
func ValidSHA256(s string) bool {
	if len(s) != 64 {
		return false
	}
	for i := range len(s) {
		if !digit(s[i]) && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return true
}
