package credentials

import (
	"bytes"
	"math/big"
	"strings"
	"testing"

	"github.com/waltos/waltos/services/wire/pickle"
)

func TestExchange(t *testing.T) {
	for _, password := range []string{"", "1234567", "12345678", "pässwörd", strings.Repeat("x", 1000)} {
		e := New()
		answer, err := Seal(e.Public, "alice", password)
		if err != nil {
			t.Fatal(err)
		}
		username, got, err := e.Open(answer)
		if err != nil || username != "alice" || got != password {
			t.Errorf("%q: got %q, %q, %v", password, username, got, err)
		}
		if username, got, err := New().Open(answer); err == nil && got == password && password != "" {
			t.Errorf("another server reads %q, %q", username, got)
		}
	}
}

// TestGroup checks the constants: the prime is one, and the generator is of a subgroup
// whose order has 256 bits.
func TestGroup(t *testing.T) {
	prime, generator := group()
	if prime.BitLen() != 2048 || !prime.ProbablyPrime(20) || generator.BitLen() > 2048 {
		t.Fatal("the group is not that of RFC 5114, section 2.3")
	}
	order := number("8CF83642 A709A097 B4479976 40129DA2 99B1A47D 1EB3750B A308B0FE 64F5FBD3")
	if new(big.Int).Exp(generator, order, prime).Cmp(big.NewInt(1)) != 0 {
		t.Error("the generator is not of the subgroup")
	}
}

func TestBadAnswers(t *testing.T) {
	e := New()
	good, err := Seal(e.Public, "alice", "secret")
	if err != nil {
		t.Fatal(err)
	}
	prime, _ := group()
	with := func(key string, value any) *pickle.Dict {
		d := pickle.NewDict()
		for _, k := range []string{"username", "encrypted_password", "client_pub_key"} {
			v, _ := good.Get(k)
			if k == key {
				v = value
			}
			d.Set(k, v)
		}
		return d
	}
	for _, c := range []struct {
		answer any
		err    string
	}{
		{nil, "they are no dict"},
		{"alice", "they are no dict"},
		{pickle.NewDict(), "an item is missing"},
		{with("username", int64(1)), "an item is missing, of another type or too long"},
		{with("username", strings.Repeat("x", maxText+1)), "too long"},
		{with("encrypted_password", bytes.Repeat([]byte("x"), maxText+8)), "too long"},
		{with("encrypted_password", []byte{}), "part of a block"},
		{with("encrypted_password", []byte("1234567")), "part of a block"},
		{with("client_pub_key", int64(2)), "of another type"},
		{with("client_pub_key", big.NewInt(0)), "out of range"},
		{with("client_pub_key", new(big.Int).Neg(e.Public)), "out of range"},
		{with("client_pub_key", new(big.Int).Sub(prime, big.NewInt(1))), "out of range"},
		{with("client_pub_key", new(big.Int).Lsh(prime, 1000)), "out of range"},
	} {
		if _, _, err := e.Open(c.answer); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%v: got %v, want %q", c.answer, err, c.err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("12345678"), []byte{2})
	f.Add([]byte{}, []byte{})
	e := New()
	f.Fuzz(func(t *testing.T, sealed, key []byte) {
		_, password, err := e.Open(pickle.NewDict("username", "u", "encrypted_password", sealed, "client_pub_key", new(big.Int).SetBytes(key)))
		if err == nil && len(password) >= len(sealed) {
			t.Errorf("%d bytes hold a password of %d", len(sealed), len(password))
		}
	})
}
