package sign

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/image/gpt"
	"github.com/waltos/waltos/image/inputs/inputstest"
	"github.com/waltos/waltos/image/toolbox"
	"github.com/waltos/waltos/image/uki"
)

// signer makes a key with a certificate.
func signer(t testing.TB, name string) *Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now(), NotAfter: time.Now().AddDate(1, 0, 0)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &Signer{key, certificate}
}

// tools returns the programs that judge.
func tools(t *testing.T) *toolbox.Toolbox { return inputstest.Tools(t, "build") }

// write puts a file in a folder.
func write(t *testing.T, dir, name string, content []byte) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func (s *Signer) files(t *testing.T, dir, name string) (key, certificate string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(s.Key)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, dir, name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		write(t, dir, name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate.Raw}))
}

// sbverify accepts what is signed, and nothing else.
func TestProgram(t *testing.T) {
	box, dir := tools(t), t.TempDir()
	stub, err := os.ReadFile(box.Path("usr/lib/systemd/boot/efi/linuxx64.efi.stub"))
	if err != nil {
		t.Fatal(err)
	}
	kernel := bytes.Repeat([]byte("kernel "), 1000)
	program, err := uki.Assemble(uki.Parts{Stub: stub, Command: "quiet", Linux: kernel})
	if err != nil {
		t.Fatal(err)
	}
	ours, other := signer(t, "ours"), signer(t, "other")
	signed, err := ours.Program(program)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ours.Program(program); err != nil || !bytes.Equal(signed, again) {
		t.Errorf("the same key made another signature, %v", err)
	}
	verify := func(name string, program []byte, by *Signer) (string, bool) {
		t.Helper()
		_, certificate := by.files(t, dir, name)
		out, err := box.Command(t.Context(), "sbverify", "--cert", certificate, write(t, dir, name, program)).CombinedOutput()
		return string(out), err == nil && strings.Contains(string(out), "Signature verification OK")
	}
	if out, ok := verify("good", signed, ours); !ok || strings.Contains(out, "warning") {
		t.Errorf("sbverify refuses the program: %s", out)
	}
	if out, ok := verify("other", signed, other); ok {
		t.Errorf("sbverify accepts another certificate: %s", out)
	}
	if out, ok := verify("unsigned", program, ours); ok {
		t.Errorf("sbverify accepts a program without signature: %s", out)
	}
	changed := bytes.Clone(signed)
	changed[bytes.Index(changed, kernel)] ^= 1
	if out, ok := verify("changed", changed, ours); ok {
		t.Errorf("sbverify accepts a changed program: %s", out)
	}
	if _, err := ours.Program(signed); err == nil {
		t.Error("a signed program was signed")
	}
}

// What efitools makes of the same certificates and the same time is the same.
func TestVariable(t *testing.T) {
	box, dir := tools(t), t.TempDir()
	s := signer(t, "the owner")
	owner := gpt.RandomGUID()
	at := time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)
	key, certificate := s.files(t, dir, "key")
	run := func(name string, args ...string) {
		t.Helper()
		command := box.Command(t.Context(), name, args...)
		command.Env = append(command.Env, "TZ=UTC")
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	for _, name := range []string{PlatformKey, ExchangeKeys, Programs} {
		v := NewVariable(name, at, owner, s.Certificate.Raw)
		list, signed := filepath.Join(dir, "list"), filepath.Join(dir, "auth")
		run("cert-to-efi-sig-list", "-g", owner.String(), certificate, list)
		if want, err := os.ReadFile(list); err != nil || !bytes.Equal(v.Data, want) {
			t.Errorf("%s: the list is not that of cert-to-efi-sig-list, %v\n%x\n%x", name, err, v.Data, want)
		}
		run("sign-efi-sig-list", "-t", at.Format("2006-01-02 15:04:05"), "-k", key, "-c", certificate, name, list, signed)
		auth, err := s.Variable(v)
		if err != nil {
			t.Fatal(err)
		}
		if want, err := os.ReadFile(signed); err != nil || !bytes.Equal(auth, want) {
			t.Errorf("%s: the variable is not that of sign-efi-sig-list, %v\n%x\n%x", name, err, auth, want)
		}
	}
	two := NewVariable(Programs, at, owner, s.Certificate.Raw, signer(t, "another").Certificate.Raw)
	run("sig-list-to-certs", write(t, dir, "two", two.Data), filepath.Join(dir, "found"))
	if found, _ := filepath.Glob(filepath.Join(dir, "found-*.der")); len(found) != 2 {
		t.Errorf("sig-list-to-certs found %v", found)
	}
}

func TestCheck(t *testing.T) {
	one, two := signer(t, "one"), signer(t, "two")
	if err := one.Check(); err != nil {
		t.Error(err)
	}
	if err := (&Signer{one.Key, two.Certificate}).Check(); err == nil {
		t.Error("the certificate of another key is accepted")
	}
}

// minimal is the smallest program: headers and one section.
func minimal() []byte {
	const headers, lfanew, optional = 512, 64, 240
	out := make([]byte, headers+512)
	le := binary.LittleEndian
	copy(out, "MZ")
	le.PutUint32(out[0x3c:], lfanew)
	copy(out[lfanew:], "PE\x00\x00")
	le.PutUint16(out[lfanew+4:], 0x8664)
	le.PutUint16(out[lfanew+6:], 1)
	le.PutUint16(out[lfanew+20:], optional)
	le.PutUint16(out[lfanew+24:], 0x20b)
	le.PutUint32(out[lfanew+24+60:], headers)
	le.PutUint32(out[lfanew+24+108:], 16)
	section := out[lfanew+24+optional:]
	copy(section, ".text")
	le.PutUint32(section[16:], 512)
	le.PutUint32(section[20:], headers)
	return out
}

func TestRefusals(t *testing.T) {
	s := signer(t, "ours")
	if _, err := s.Program(minimal()); err != nil {
		t.Fatal(err)
	}
	const optional = 64 + 24
	for want, change := range map[string]func(program []byte) []byte{
		"not a PE file":       func(p []byte) []byte { return p[1:] },
		"not in the format":   func(p []byte) []byte { p[optional+1], p[optional+92], p[64+20], p[64+6] = 1, 16, 224, 0; return p },
		"no room":             func(p []byte) []byte { p[optional+108], p[64+20] = 4, 112+4*8; return p },
		"signed already":      func(p []byte) []byte { p[64+certificatesAt] = 1; return p },
		"begins at":           func(p []byte) []byte { p[optional+240+21]++; return p },
		"its sections end at": func(p []byte) []byte { return append(p, 0) },
	} {
		if _, err := s.Program(change(minimal())); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestCopy(t *testing.T) {
	program := append(minimal(), 1, 2, 3) // of a size that is filled up
	le := binary.LittleEndian
	le.PutUint32(program[64+24+240+16:], 515)
	signed, err := signer(t, "ours").Program(program)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Copy(program, signed); err != nil || !bytes.Equal(got, signed) {
		t.Errorf("the copy differs, %v", err)
	}
	for name, pair := range map[string][2][]byte{"to a signed one": {signed, signed}, "from none": {program, program}, "from nothing": {program, nil}, "cut off": {program, signed[:len(signed)-1]}} {
		if _, err := Copy(pair[0], pair[1]); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzCopy(f *testing.F) {
	signed, err := signer(f, "ours").Program(minimal())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Fuzz(func(t *testing.T, from []byte) {
		if out, err := Copy(minimal(), from); err == nil && len(out) > len(minimal())+len(from) {
			t.Errorf("%d bytes became %d", len(from), len(out))
		}
	})
}

// What is signed is covered: the signature is where the header says, at the end.
func FuzzProgram(f *testing.F) {
	f.Add(minimal())
	s := signer(f, "ours")
	f.Fuzz(func(t *testing.T, program []byte) {
		signed, err := s.Program(program)
		if err != nil {
			return
		}
		at := int(binary.LittleEndian.Uint32(program[0x3c:])) + certificatesAt
		start, size := binary.LittleEndian.Uint32(signed[at:]), binary.LittleEndian.Uint32(signed[at+4:])
		if int(start) < len(program) || int(start+size) != len(signed) {
			t.Errorf("a signature of %d bytes at %d, in a file of %d bytes that had %d", size, start, len(signed), len(program))
		}
	})
}
