// Package credentials is the exchange by which a client of walt 10.0 gives its server the
// account that it has at a registry (client-api §4.5): a Diffie-Hellman key agreement in
// the 2048-bit MODP group with a 256-bit subgroup (RFC 5114, section 2.3), and Blowfish in
// ECB mode with the padding of PKCS#5 over the password.
//
// It hides the password from those who only listen, nobody being authenticated. It is what
// clients speak, and of no other use.
package credentials

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/crypto/blowfish" //lint:ignore SA1019 clients of 10.0 speak it

	"github.com/waltos/waltos/services/wire/pickle"
)

const (
	keySize = 56   // bytes: the low ones of the shared secret
	maxText = 4096 // bytes of a user name, and of a password
	// secretBits is the length of private keys: twice that of the subgroup.
	secretBits = 512
)

// group returns the prime and the generator.
var group = sync.OnceValues(func() (prime, generator *big.Int) { return number(primeText), number(generatorText) })

// RFC 5114, section 2.3.
const (
	primeText = `87A8E61D B4B6663C FFBBD19C 65195999 8CEEF608 660DD0F2 5D2CEED4 435E3B00
		E00DF8F1 D61957D4 FAF7DF45 61B2AA30 16C3D911 34096FAA 3BF4296D 830E9A7C
		209E0C64 97517ABD 5A8A9D30 6BCF67ED 91F9E672 5B4758C0 22E0B1EF 4275BF7B
		6C5BFC11 D45F9088 B941F54E B1E59BB8 BC39A0BF 12307F5C 4FDB70C5 81B23F76
		B63ACAE1 CAA6B790 2D525267 35488A0E F13C6D9A 51BFA4AB 3AD83477 96524D8E
		F6A167B5 A41825D9 67E144E5 14056425 1CCACB83 E6B486F6 B3CA3F79 71506026
		C0B857F6 89962856 DED4010A BD0BE621 C3A3960A 54E710C3 75F26375 D7014103
		A4B54330 C198AF12 6116D227 6E11715F 693877FA D7EF09CA DB094AE9 1E1A1597`
	generatorText = `3FB32C9B 73134D0B 2E775066 60EDBD48 4CA7B18F 21EF2054 07F4793A 1A0BA125
		10DBC150 77BE463F FF4FED4A AC0BB555 BE3A6C1B 0C6B47B1 BC3773BF 7E8C6F62
		901228F8 C28CBB18 A55AE313 41000A65 0196F931 C77A57F2 DDF463E5 E9EC144B
		777DE62A AAB8A862 8AC376D2 82D6ED38 64E67982 428EBC83 1D14348F 6F2F9193
		B5045AF2 767164E1 DFC967C1 FB3F2E55 A4BD1BFF E83B9C80 D052B985 D182EA0A
		DB2A3B73 13D3FE14 C8484B1E 052588B9 B7D2BBD2 DF016199 ECD06E15 57CD0915
		B3353BBB 64E0EC37 7FD02837 0DF92B52 C7891428 CDC67EB6 184B523D 1DB246C3
		2F630784 90F00EF8 D647D148 D4795451 5E2327CF EF98C582 664B4C0F 6CC41659`
)

func number(text string) *big.Int {
	n, ok := new(big.Int).SetString(strings.Join(strings.Fields(text), ""), 16)
	if !ok {
		panic("internal error: a constant is no number")
	}
	return n
}

// Exchange is the server's side of one exchange.
type Exchange struct {
	Public  *big.Int // to be sent to the client
	private *big.Int
}

// New begins an exchange.
func New() *Exchange {
	private, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), secretBits))
	if err != nil {
		panic(err) // the system has no random numbers
	}
	prime, generator := group()
	return &Exchange{Public: new(big.Int).Exp(generator, private, prime), private: private}
}

// Open reads the answer of the client: a dict of username, encrypted_password and
// client_pub_key.
func (e *Exchange) Open(answer any) (username, password string, err error) {
	dict, ok := answer.(*pickle.Dict)
	if !ok {
		return "", "", errors.New("cannot read credentials: they are no dict")
	}
	get := func(key string) any { value, _ := dict.Get(key); return value }
	username, isText := get("username").(string)
	sealed, isBytes := get("encrypted_password").([]byte)
	public, isInt := get("client_pub_key").(*big.Int)
	if !isText || !isBytes || !isInt || len(username) > maxText || len(sealed) > maxText {
		return "", "", errors.New("cannot read credentials: an item is missing, of another type or too long")
	}
	prime, _ := group()
	// A key of a small subgroup would make the secret one of few.
	if public.Cmp(big.NewInt(1)) <= 0 || public.Cmp(new(big.Int).Sub(prime, big.NewInt(1))) >= 0 {
		return "", "", errors.New("cannot read credentials: the key of the client is out of range")
	}
	plain, err := open(secret(public, e.private), sealed)
	if err != nil {
		return "", "", fmt.Errorf("cannot read credentials: %w", err)
	}
	return username, string(plain), nil
}

// Seal makes the answer to a server whose public key is given: the client's side.
func Seal(server *big.Int, username, password string) (*pickle.Dict, error) {
	e := New()
	sealed, err := seal(secret(server, e.private), []byte(password))
	if err != nil {
		return nil, fmt.Errorf("cannot give credentials: %w", err)
	}
	return pickle.NewDict("username", username, "encrypted_password", sealed, "client_pub_key", e.Public), nil
}

// secret is the key of the cipher: the low bytes of the shared number.
func secret(public, private *big.Int) []byte {
	prime, _ := group()
	shared := new(big.Int).Exp(public, private, prime)
	low := shared.Mod(shared, new(big.Int).Lsh(big.NewInt(1), 8*keySize))
	return low.FillBytes(make([]byte, keySize))
}

func seal(key, plain []byte) ([]byte, error) {
	cipher, err := blowfish.NewCipher(key)
	if err != nil {
		return nil, err
	}
	n := blowfish.BlockSize - len(plain)%blowfish.BlockSize
	text := append(plain[:len(plain):len(plain)], strings.Repeat(string(rune(n)), n)...)
	for at := 0; at < len(text); at += blowfish.BlockSize {
		cipher.Encrypt(text[at:], text[at:])
	}
	return text, nil
}

func open(key, sealed []byte) ([]byte, error) {
	if len(sealed) == 0 || len(sealed)%blowfish.BlockSize != 0 {
		return nil, errors.New("the password has a part of a block")
	}
	cipher, err := blowfish.NewCipher(key)
	if err != nil {
		return nil, err
	}
	text := make([]byte, len(sealed))
	for at := 0; at < len(sealed); at += blowfish.BlockSize {
		cipher.Decrypt(text[at:], sealed[at:])
	}
	n := int(text[len(text)-1])
	if n == 0 || n > blowfish.BlockSize || strings.Trim(string(text[len(text)-n:]), string(rune(n))) != "" {
		return nil, errors.New("the password was sealed with another key")
	}
	text = text[:len(text)-n]
	if !utf8.Valid(text) {
		return nil, errors.New("the password is no text")
	}
	return text, nil
}
