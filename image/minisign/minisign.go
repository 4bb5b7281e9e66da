// Package minisign signs messages, and verifies such signatures, in the format of the
// program of that name: `minisign -Vm FILE -P KEY` accepts what Sign makes.
//
// Specification: minisign's manual, "Signature format" and "Public key format": Ed25519
// over the BLAKE2b-512 hash of the message, and over signature and trusted comment.
// Refused: signatures over the message itself (the legacy algorithm "Ed"), messages,
// signatures and comments of more than a bounded size. Secret keys are kept elsewhere: this is
// not minisign's format for them.
package minisign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/blake2b"
)

// MaxSignature bounds the text of a signature.
const MaxSignature = 2048

const (
	algorithmKey    = "Ed"
	algorithmHashed = "ED"

	untrustedComment = "untrusted comment: "
	trustedComment   = "trusted comment: "
)

// PublicKey verifies signatures.
type PublicKey struct {
	ID  [8]byte // tells keys apart; proves nothing
	Key [ed25519.PublicKeySize]byte
}

// PublicOf returns the public key of a key. Its number derives from it, where minisign
// draws one.
func PublicOf(key ed25519.PrivateKey) PublicKey {
	var p PublicKey
	copy(p.Key[:], key.Public().(ed25519.PublicKey))
	sum := sha256.Sum256(p.Key[:])
	copy(p.ID[:], sum[:])
	return p
}

// Name is the number of the key as minisign shows it.
func (p PublicKey) Name() string { return fmt.Sprintf("%016X", binary.LittleEndian.Uint64(p.ID[:])) }

// String returns the 56 letters that ParsePublicKey reads.
func (p PublicKey) String() string {
	return base64.StdEncoding.EncodeToString(append(append([]byte(algorithmKey), p.ID[:]...), p.Key[:]...))
}

// File returns the content of a file with the key.
func (p PublicKey) File() []byte {
	return fmt.Appendf(nil, "%sminisign public key %s\n%s\n", untrustedComment, p.Name(), p)
}

// ParsePublicKey reads a key from its 56 letters, or from the content of a file.
func ParsePublicKey(text string) (PublicKey, error) {
	var p PublicKey
	text = strings.TrimSpace(text)
	if comment, rest, two := strings.Cut(text, "\n"); two && strings.HasPrefix(comment, untrustedComment) {
		text = strings.TrimSpace(rest)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != len(algorithmKey)+len(p.ID)+len(p.Key) || string(raw[:2]) != algorithmKey {
		return p, errors.New("cannot read public key: not one of minisign")
	}
	copy(p.ID[:], raw[2:])
	copy(p.Key[:], raw[2+len(p.ID):])
	return p, nil
}

// Sign returns the signature of a message, a text of four lines. The comment, of one line,
// is signed too.
func Sign(key ed25519.PrivateKey, message []byte, comment string) []byte {
	hash := blake2b.Sum512(message)
	signature := ed25519.Sign(key, hash[:])
	public := PublicOf(key)
	global := ed25519.Sign(key, append(bytes.Clone(signature), comment...))
	head := append(append([]byte(algorithmHashed), public.ID[:]...), signature...)
	encode := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, "%ssignature of minisign key %s\n%s\n%s%s\n%s\n",
		untrustedComment, public.Name(), encode(head), trustedComment, comment, encode(global))
}

// Verified says who has signed a message, and the comment that was signed with it.
type Verified struct {
	Key     PublicKey
	Comment string
}

// Verify checks that one of some keys has signed a message.
func Verify(keys []PublicKey, message, text []byte) (Verified, error) {
	v, err := verify(keys, message, text)
	if err != nil {
		return Verified{}, fmt.Errorf("cannot trust the signature: %w", err)
	}
	return v, nil
}

func verify(keys []PublicKey, message, text []byte) (v Verified, err error) {
	if len(text) > MaxSignature {
		return v, fmt.Errorf("it has %d bytes", len(text))
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], untrustedComment) {
		return v, errors.New("it is not one of minisign")
	}
	comment, ok := strings.CutPrefix(lines[2], trustedComment)
	if !ok {
		return v, errors.New("it has no trusted comment")
	}
	head, err := base64.StdEncoding.Strict().DecodeString(lines[1])
	if err != nil || len(head) != 2+8+ed25519.SignatureSize {
		return v, errors.New("its second line is damaged")
	}
	if algorithm := string(head[:2]); algorithm != algorithmHashed {
		return v, fmt.Errorf("it has algorithm %q instead of %q", algorithm, algorithmHashed)
	}
	global, err := base64.StdEncoding.Strict().DecodeString(lines[3])
	if err != nil || len(global) != ed25519.SignatureSize {
		return v, errors.New("its last line is damaged")
	}
	id, signature := [8]byte(head[2:10]), head[10:]
	hash := blake2b.Sum512(message)
	var names []string
	for _, key := range keys {
		names = append(names, key.Name())
		if key.ID != id {
			continue
		}
		if !ed25519.Verify(key.Key[:], hash[:], signature) {
			return v, fmt.Errorf("key %s has signed something else", key.Name())
		}
		if !ed25519.Verify(key.Key[:], append(bytes.Clone(signature), comment...), global) {
			return v, fmt.Errorf("key %s has signed another comment", key.Name())
		}
		return Verified{key, comment}, nil
	}
	return v, fmt.Errorf("it is of key %s, trusted is %s", PublicKey{ID: id}.Name(), strings.Join(names, ", "))
}
