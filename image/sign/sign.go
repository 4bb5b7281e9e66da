// Package sign signs for UEFI firmware: programs, and the variables that hold the keys
// of Secure Boot.
//
// Specification: Microsoft "Windows Authenticode Portable Executable Signature Format"
// (1.0) and "PE Format"; UEFI 2.10 §8.2.2 (authenticated variables), §32.4 (signature
// lists); RFC 2315 (PKCS #7). One signature with RSA and SHA-256, without a time, so that the
// same key makes the same bytes. Refused: keys that are not RSA of 2048 to 4096 bits, which is
// what firmware knows; programs that are signed already, are no PE32+, or hold
// bytes that the signature would not cover.
package sign

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// Signer is a key with its certificate.
type Signer struct {
	Key         *rsa.PrivateKey
	Certificate *x509.Certificate
}

// Check tells whether firmware can use the key, and whether the certificate is its.
func (s *Signer) Check() error {
	if bits := s.Key.N.BitLen(); bits < 2048 || bits > 4096 {
		return fmt.Errorf("cannot sign for firmware with an RSA key of %d bits; use 2048", bits)
	}
	if public, ok := s.Certificate.PublicKey.(*rsa.PublicKey); !ok || !public.Equal(&s.Key.PublicKey) {
		return errors.New("cannot sign: the certificate is not that of the key")
	}
	return nil
}

var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
)

// contextTag is the tag [n] of a constructed element.
func contextTag(n uint8) tag.Tag { return tag.Tag(n).ContextSpecific().Constructed() }

// algorithm appends an AlgorithmIdentifier without parameters.
func algorithm(b *cryptobyte.Builder, id asn1.ObjectIdentifier) {
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(id)
		b.AddASN1NULL()
	})
}

// detached returns the SignedData of a message that is not in it, with nothing signed
// but the message: the form of authenticated variables.
func (s *Signer) detached(message []byte) ([]byte, error) {
	return s.signedData(oidData, nil, nil, sha256.Sum256(message))
}

// enclosed returns the SignedData of a content that is in it: the DER of a SEQUENCE,
// whose tag and length are not hashed (RFC 2315 §9.3).
func (s *Signer) enclosed(kind asn1.ObjectIdentifier, content []byte) ([]byte, error) {
	var inner cryptobyte.String
	if outer := cryptobyte.String(content); !outer.ReadASN1(&inner, tag.SEQUENCE) || !outer.Empty() {
		return nil, errors.New("cannot sign: the content is not one SEQUENCE")
	}
	digest := sha256.Sum256(inner)
	var list cryptobyte.Builder
	for _, attribute := range []struct {
		id    asn1.ObjectIdentifier
		value func(*cryptobyte.Builder)
	}{ // in the order of their encodings, as DER wants
		{oidContentType, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(kind) }},
		{oidMessageDigest, func(b *cryptobyte.Builder) { b.AddASN1OctetString(digest[:]) }},
	} {
		list.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(attribute.id)
			b.AddASN1(tag.SET, attribute.value)
		})
	}
	attributes, err := list.Bytes()
	if err != nil {
		return nil, err
	}
	// What is signed is the SET itself, not its form [0] in the message.
	var set cryptobyte.Builder
	set.AddASN1(tag.SET, func(b *cryptobyte.Builder) { b.AddBytes(attributes) })
	signed, err := set.Bytes()
	if err != nil {
		return nil, err
	}
	return s.signedData(kind, content, attributes, sha256.Sum256(signed))
}

func (s *Signer) signedData(kind asn1.ObjectIdentifier, content, attributes []byte, digest [sha256.Size]byte) ([]byte, error) {
	signature, err := rsa.SignPKCS1v15(nil, s.Key, crypto.SHA256, digest[:])
	if err != nil {
		return nil, fmt.Errorf("cannot sign: %w", err)
	}
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1(tag.SET, func(b *cryptobyte.Builder) { algorithm(b, oidSHA256) })
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(kind)
			if content != nil {
				b.AddASN1(contextTag(0), func(b *cryptobyte.Builder) { b.AddBytes(content) })
			}
		})
		b.AddASN1(contextTag(0), func(b *cryptobyte.Builder) { b.AddBytes(s.Certificate.Raw) })
		b.AddASN1(tag.SET, func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(1)
				b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddBytes(s.Certificate.RawIssuer)
					b.AddASN1BigInt(s.Certificate.SerialNumber)
				})
				algorithm(b, oidSHA256)
				if attributes != nil {
					b.AddASN1(contextTag(0), func(b *cryptobyte.Builder) { b.AddBytes(attributes) })
				}
				algorithm(b, oidRSA)
				b.AddASN1OctetString(signature)
			})
		})
	})
	return b.Bytes()
}
