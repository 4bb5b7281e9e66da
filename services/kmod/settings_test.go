package kmod

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSettings(t *testing.T) {
	var s Settings
	s.parse("# a comment\noptions kvm-intel nested=1 \\\n  ept=Y\nblacklist snd-hda-intel\nalias a b\noptions\nsoftdep x pre: y\noptions loop max_loop=8")
	s.parseCommandLine("console=ttyS0 kvm_intel.nested=0 modprobe.blacklist=nouveau,i2c-i801 root=/dev/x.y dyndbg=\"file a.c +p\" quiet .x x. acpi.note=\"a b\" -- usbcore.x=1\n")
	for module, want := range map[string]string{
		"kvm_intel": "nested=1 ept=Y nested=0", "kvm-intel": "nested=1 ept=Y nested=0", "loop": "max_loop=8", "x": "",
		"usbcore": "", "acpi": `note="a b"`,
	} {
		if got := s.Options(module); got != want {
			t.Errorf("options of %s: %q, want %q", module, got, want)
		}
	}
	for module, want := range map[string]bool{
		"nouveau": false, "i2c_i801": false, "snd_hda_intel": false, "pcspkr": false, "e1000": true,
	} {
		if got := s.Wanted(module); got != want {
			t.Errorf("%s is wanted: %v", module, got)
		}
	}
}

func TestReadSettings(t *testing.T) {
	image, site := t.TempDir(), t.TempDir()
	for path, text := range map[string]string{
		filepath.Join(image, "walt.conf"): "options a x=1\n", filepath.Join(image, "other.txt"): "options a x=9\n",
		filepath.Join(site, "walt.conf"): "options a x=2\n", filepath.Join(site, "big.conf"): strings.Repeat("#", maxSettings+1),
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := ReadSettings(image, filepath.Join(site, "missing"), site)
	if err == nil || !strings.Contains(err.Error(), "big.conf: larger than") {
		t.Errorf("a huge file: %v", err)
	}
	if got := s.Options("a"); got != "x=1 x=2" {
		t.Errorf("options %q: the last must be the site's", got)
	}
}

func FuzzSettings(f *testing.F) {
	f.Add("options a x=1\nblacklist b\n")
	f.Add("modprobe.blacklist=a,b x.y=\"1 2")
	f.Fuzz(func(t *testing.T, text string) {
		var s Settings
		s.parse(text)
		s.parseCommandLine(text)
		for module := range s.options {
			if strings.ContainsAny(s.Options(module), "\n") && !strings.Contains(text, `"`) {
				t.Fatalf("options of %q have several lines", module)
			}
		}
	})
}
