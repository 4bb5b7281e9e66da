package tests

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/image/bundle"
	"github.com/waltos/waltos/image/esp"
	"github.com/waltos/waltos/image/gpt"
	"github.com/waltos/waltos/image/inputs"
	"github.com/waltos/waltos/image/keys"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/image/minisign"
	"github.com/waltos/waltos/image/qcow2"
	"github.com/waltos/waltos/image/sign"
	"github.com/waltos/waltos/image/tree"
	"github.com/waltos/waltos/image/uki"
	"github.com/waltos/waltos/qemu/machine"
	"github.com/waltos/waltos/qemu/provision"
	"github.com/waltos/waltos/tests/supplies"
)

// Lines of the console.
var (
	refusedProgram = regexp.MustCompile(`BdsDxe: failed to load Boot.*: (Access Denied|Security Violation)`)
	secureBootIsOn = regexp.MustCompile(`walt: Secure Boot is on`)
	startingUnits  = regexp.MustCompile(`walt: starting \d+ units`)
)

// TestSecureBoot boots the appliance with a firmware that trusts the keys of the builder
// only: it boots what they have signed, and nothing else.
func TestSecureBoot(t *testing.T) {
	s := &secure{T: t, Supplies: supplies.Get(t)}
	for _, test := range []struct {
		name string
		run  func(*secure)
	}{
		{"changed UKIs are refused, the real one boots", changedUKIs},
		{"a changed root is refused", changedRoot},
		{"a firmware without keys takes those of the stick", stickOfKeys},
		{"a changed bundle is refused", changedBundle},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(&secure{t, s.Supplies}) })
	}
}

// secure is a test with what the machines are made of.
type secure struct {
	*testing.T
	*provision.Supplies
}

// boot starts a machine with some disks, the first one to be tried first.
func (s *secure) boot(memory int, trust []sign.Variable, tables []string, disks ...string) *machine.Machine {
	s.Helper()
	dir := s.TempDir()
	firmware, err := s.Tools.SecureBoot(dir, trust)
	if err != nil {
		s.Fatal(err)
	}
	spec := machine.Spec{Name: "secure", Memory: memory, Accelerator: machine.TCG, Serial: true, Firmware: firmware, Strings: tables}
	for i, raw := range disks {
		info, err := os.Stat(raw)
		if err != nil {
			s.Fatal(err)
		}
		var overlay bytes.Buffer
		if err := qcow2.Write(&overlay, qcow2.Image{Size: info.Size() + 1<<30, Backing: raw}); err != nil { // with room for the data
			s.Fatal(err)
		}
		spec.Disks = append(spec.Disks, machine.Disk{File: s.write(dir, fmt.Sprintf("disk%d", i), overlay.Bytes())})
	}
	return s.start(spec)
}

// start starts a machine that ends with the test, whose failure shows its console.
func (s *secure) start(spec machine.Spec) *machine.Machine {
	s.Helper()
	m, err := machine.Start(s.Context(), s.Tools.QEMU, spec, nil)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		m.Kill()
		if s.Failed() {
			s.Logf("the console ends with\n%s", strings.Join(m.Console.Lines(60), "\n"))
		}
	})
	return m
}

func (s *secure) write(dir, name string, content []byte) string {
	s.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		s.Fatal(err)
	}
	return file
}

func (s *secure) read(file string) []byte {
	s.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		s.Fatal(err)
	}
	return content
}

// await returns the place after the first line that matches.
func (s *secure) await(m *machine.Machine, from machine.Position, pattern *regexp.Regexp) machine.Position {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	_, next, err := m.Console.Wait(ctx, from, pattern)
	if err != nil {
		s.Fatal(err)
	}
	return next
}

// esp makes a disk that has an EFI system partition only.
func (s *secure) esp(content *tree.Tree) string {
	s.Helper()
	file := filepath.Join(s.TempDir(), "esp")
	if err := esp.Write(file, 64<<20, "TEST", time.Unix(1e9, 0), content); err != nil {
		s.Fatal(err)
	}
	return file
}

// add adds a file.
func (s *secure) add(to *tree.Tree, name string, content []byte) {
	s.Helper()
	if err := to.Add(name, &tree.File{Mode: 0o644, Content: content}); err != nil {
		s.Fatal(err)
	}
}

// changedUKIs offers four disks to one machine; it boots the last one. The tables of the
// firmware ask for another root meanwhile.
func changedUKIs(s *secure) {
	signed := s.read(s.Build.UKI)
	unsigned := withoutSignature(signed)
	changed := bytes.Clone(signed)
	changed[len(unsigned)-1000] ^= 1 // in the kernel
	foreign, err := stranger(s.T).Program(unsigned)
	if err != nil {
		s.Fatal(err)
	}
	var disks []string
	for _, program := range [][]byte{unsigned, changed, foreign} {
		content := tree.New()
		s.add(content, uki.BootName(s.Build.Manifest.Architecture), program)
		disks = append(disks, s.esp(content))
	}
	m := s.boot(512, s.Build.Trust, []string{"io.systemd.stub.kernel-cmdline-extra=walt.root=evil walt.verity=00"}, append(disks, s.Build.Disk)...)
	at := machine.Position(0)
	for range disks {
		at = s.await(m, at, refusedProgram)
	}
	at = s.await(m, at, regexp.MustCompile(`walt: the command line says walt.verity= again: 00; ignored`))
	at = s.await(m, at, secureBootIsOn)
	s.await(m, at, startingUnits)
	for _, line := range m.Console.Lines(1 << 20) {
		if strings.Contains(line, "walt: FAILED") {
			s.Error(line)
		}
	}
}

// withoutSignature returns a program as it was before it was signed.
func withoutSignature(signed []byte) []byte {
	directory := int(binary.LittleEndian.Uint32(signed[0x3c:])) + 24 + 112 + 4*8
	out := bytes.Clone(signed[:binary.LittleEndian.Uint32(signed[directory:])])
	clear(out[directory : directory+8])
	return out
}

// stranger is a key that nobody trusts.
func stranger(t *testing.T) *sign.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().AddDate(1, 0, 0)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &sign.Signer{Key: key, Certificate: certificate}
}

// changedRoot changes one byte of the root's super block.
func changedRoot(s *secure) {
	disk := copyDisk(s)
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		s.Fatal(err)
	}
	defer f.Close()
	table, err := gpt.Read(f, s.Build.Manifest.Outputs["walt.img"].Size)
	if err != nil {
		s.Fatal(err)
	}
	_, root := table.Find("root-a")
	const inSuperBlock = 1024 + 100
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, root.Offset()+inSuperBlock); err != nil {
		s.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, root.Offset()+inSuperBlock); err != nil {
		s.Fatal(err)
	}
	m := s.boot(512, s.Build.Trust, nil, disk)
	m.Console.Allow(regexp.MustCompile(`verity.* corrupted|Kernel panic - not syncing: dm-verity`)) // it is what is expected
	at := s.await(m, 0, secureBootIsOn)
	s.await(m, at, regexp.MustCompile(`verity: .*data block 0 is corrupted`))
	s.await(m, at, regexp.MustCompile(`Kernel panic - not syncing: dm-verity device corrupted`))
	for _, line := range m.Console.Lines(1 << 20) {
		if startingUnits.MatchString(line) {
			s.Error("the changed root was booted")
		}
	}
}

// copyDisk copies the disk image, holes left out.
func copyDisk(s *secure) string {
	s.Helper()
	from, err := os.Open(s.Build.Disk)
	if err != nil {
		s.Fatal(err)
	}
	defer from.Close()
	to, err := os.Create(filepath.Join(s.TempDir(), "disk"))
	if err != nil {
		s.Fatal(err)
	}
	defer to.Close()
	size := s.Build.Manifest.Outputs["walt.img"].Size
	if err := to.Truncate(size); err != nil {
		s.Fatal(err)
	}
	chunk, hole := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(chunk)) {
		n, err := from.ReadAt(chunk, at)
		if err != nil && err != io.EOF {
			s.Fatal(err)
		}
		if bytes.Equal(chunk[:n], hole[:n]) {
			continue
		}
		if _, err := to.WriteAt(chunk[:n], at); err != nil {
			s.Fatal(err)
		}
	}
	return to.Name()
}

// stickOfKeys starts a firmware that has no keys from the stick of `image keys stick`:
// systemd-boot writes the keys, the machine starts again with Secure Boot, and boots the UKI
// with the command line that is in it, whatever options the boot loader passes.
func stickOfKeys(s *secure) {
	in, err := inputs.Open(inputs.Options{Appliance: "../image/appliance.hcl", Override: true})
	if err != nil {
		s.Fatal(err)
	}
	box, err := in.Toolbox(s.Context(), lock.ToolSet("build"))
	if err != nil {
		s.Fatal(err)
	}
	dir, err := keys.DefaultFolder()
	if err != nil {
		s.Fatal(err)
	}
	architecture := s.Build.Manifest.Architecture
	content, err := (&keys.Store{Dir: dir}).Stick(s.read(box.Path(uki.LoaderName(architecture))), uki.BootName(architecture))
	if err != nil {
		s.Fatal(err)
	}
	s.add(content, "/walt.efi", s.read(s.Build.UKI))
	s.add(content, "/loader/entries/walt.conf", []byte("title walt\nefi /walt.efi\noptions walt.root=evil walt.verity=00\n"))
	s.add(content, "/loader/loader.conf", []byte("timeout 0\n"))
	m := s.boot(512, nil, nil, s.esp(content))
	at := s.await(m, 0, regexp.MustCompile(`Command line: .*walt.root=root-a `))
	s.await(m, at, secureBootIsOn)
}

// changedBundle shows each way in which the real bundle is refused.
func changedBundle(s *secure) {
	key, err := minisign.ParsePublicKey(s.Build.Manifest.Signing.Releases[0])
	if err != nil {
		s.Fatal(err)
	}
	trust := bundle.Trust{Keys: []minisign.PublicKey{key}, Running: &bundle.Release{Name: "walt", Version: "0", Architecture: "amd64"}}
	file := s.read(s.Build.Bundle)
	d, err := bundle.Verify(bytes.NewReader(file), trust)
	if err != nil {
		s.Fatal(err)
	}
	refuse := func(what string, file []byte, change func(*bundle.Trust)) {
		s.Helper()
		running := *trust.Running
		trust := bundle.Trust{Keys: []minisign.PublicKey{key}, Running: &running}
		if change != nil {
			change(&trust)
		}
		if _, err := bundle.Verify(bytes.NewReader(file), trust); err == nil {
			s.Errorf("%s: accepted", what)
		} else {
			s.Logf("%s: %v", what, err)
		}
	}
	file[len(file)/2] ^= 1
	refuse("a changed byte", file, nil)
	file[len(file)/2] ^= 1
	refuse("a cut", file[:len(file)-1], nil)
	refuse("another key", file, func(t *bundle.Trust) { t.Keys[0].Key[0] ^= 1 })
	refuse("a downgrade", file, func(t *bundle.Trust) {
		*t.Running = d.Release
		t.Running.Time = d.Time.Add(time.Second)
	})
	refuse("another processor", file, func(t *bundle.Trust) { t.Running.Architecture = "arm64" })
	refuse("another appliance", file, func(t *bundle.Trust) { t.Running.Name = "other" })
}
