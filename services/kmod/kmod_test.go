package kmod

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// tree is a small module folder in the forms that depmod writes.
func tree() fstest.MapFS {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	return fstest.MapFS{
		"modules.dep": file("kernel/fs/erofs/erofs.ko.xz: kernel/lib/libcrc32c.ko.xz kernel/fs/netfs/netfs.ko.xz\n" +
			"kernel/lib/libcrc32c.ko.xz:\n" +
			"kernel/fs/netfs/netfs.ko.xz:\n" +
			"kernel/crypto/crc32c_generic.ko.xz:\n" +
			"kernel/arch/x86/crypto/crc32c-intel.ko.xz:\n" +
			"kernel/drivers/net/virtio_net.ko.xz: kernel/net/core/failover.ko.xz\n" +
			"kernel/net/core/failover.ko.xz:\n" +
			"kernel/a.ko.xz:\nkernel/b.ko.xz:\n"),
		"modules.alias": file("# Aliases\nalias fs-erofs erofs\nalias crc32c crc32c_intel\nalias crc32c crc32c_generic\n" +
			"alias virtio:d00000001v* virtio_net\nalias acpi*:PNP0C0C:* button\nalias dmi*:bvnSome Vendor:* spacy\n"),
		"modules.softdep": file("# Soft\nsoftdep libcrc32c pre: crc32c\nsoftdep a post: b\nsoftdep b pre: a absent\n"),
		"modules.builtin": file("kernel/drivers/virtio/virtio.ko\nkernel/fs/ext4/ext4.ko\n"),
	}
}

func names(steps []Step) string {
	var out []string
	for _, s := range steps {
		name := s.Name
		if s.Soft {
			name += "?"
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

func TestClosure(t *testing.T) {
	catalog, err := Open(tree())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ ask, want string }{
		{"erofs", "netfs crc32c_intel? crc32c_generic? libcrc32c erofs"},
		{"fs-erofs", "netfs crc32c_intel? crc32c_generic? libcrc32c erofs"},
		{"virtio-net", "failover virtio_net"},
		{"ext4", ""},
		{"a", "a b?"},
		{"b", "a? b"},
		{"a b", "a b"},
		{"crc32c", "crc32c_intel? crc32c_generic?"},
		{"crc32c_generic erofs", "crc32c_generic netfs crc32c_intel? libcrc32c erofs"},
	} {
		steps, err := catalog.Closure(strings.Fields(c.ask)...)
		if err != nil {
			t.Errorf("%s: %v", c.ask, err)
		}
		if got := names(steps); got != c.want {
			t.Errorf("closure of %s: %s; want %s", c.ask, got, c.want)
		}
	}
	if _, err := catalog.Closure("nothing"); err == nil {
		t.Error("an unknown module was found")
	}
	if !catalog.Builtin("ext4") || catalog.Builtin("erofs") || catalog.Path("crc32c_intel") == "" {
		t.Error("wrong answers about single modules")
	}
}

func TestMatch(t *testing.T) {
	catalog, err := Open(tree())
	if err != nil {
		t.Fatal(err)
	}
	found, err := catalog.Match([]string{"virtio:d00000001v00001AF4", "acpi:PNP0C0C:", "dmi:bvnSome Vendor:x", "pci:none", ""})
	if err != nil {
		t.Fatal(err)
	}
	for alias, want := range map[string]string{
		"virtio:d00000001v00001AF4": "virtio_net", "acpi:PNP0C0C:": "button", "dmi:bvnSome Vendor:x": "spacy",
	} {
		if !slices.Equal(found[alias], []string{want}) {
			t.Errorf("%s: %v, want %s", alias, found[alias], want)
		}
	}
	if len(found) != 3 {
		t.Errorf("found %v", found)
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"abc", "abc", true}, {"abc", "abd", false}, {"a*c", "abbbc", true}, {"a*c", "abbb", false},
		{"a?c", "abc", true}, {"[a-c]x", "bx", true}, {"[a-c]x", "dx", false}, {"[!a-c]x", "dx", true},
		{"*", "", true}, {"", "", true}, {"", "a", false}, {"a*b*c", "a-b-b-c", true},
		{"usb:v0BDAp*d*dc*dsc*dp*icFFiscFFip00in*", "usb:v0BDAp8153d3000dc00dsc00dp00icFFiscFFip00in00", true},
		{"cpu:type:x86,ven*fam*mod*:feature:*00E1*", "cpu:type:x86,ven0002fam0019mod0001:feature:,0000,00E1,0100", true},
		{"[", "[", true}, {"[]", "[]", true},
	} {
		if got := glob(c.pattern, c.name); got != c.want {
			t.Errorf("glob(%q, %q) = %v", c.pattern, c.name, got)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, dep := range map[string]string{
		"no colon": "kernel/a.ko\n", "outside": "../a.ko:\n", "absolute": "/a.ko:\n",
		"long line": "a.ko: " + strings.Repeat("b.ko ", maxLine) + "\n",
	} {
		if _, err := Open(fstest.MapFS{"modules.dep": {Data: []byte(dep)}}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := Open(fstest.MapFS{}); err == nil {
		t.Error("a folder without modules.dep was accepted")
	}
}

func TestModaliases(t *testing.T) {
	dir := t.TempDir()
	for path, text := range map[string]string{"a/modalias": "pci:1\n", "b/c/modalias": "pci:1\n", "d/modalias": "acpi:X:\n", "e/modalias": "\n"} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := Modaliases(dir); !slices.Equal(got, []string{"acpi:X:", "pci:1"}) {
		t.Errorf("modaliases %q", got)
	}
}

func FuzzIndexes(f *testing.F) {
	for _, file := range tree() {
		f.Add(file.Data)
	}
	f.Add([]byte("softdep a pre: b\nalias [ x\nalias ** y\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if modules, err := parseDep(bytes.NewReader(data)); err == nil {
			for _, m := range modules {
				if !fs.ValidPath(m.path) {
					t.Fatalf("accepted the path %q", m.path)
				}
			}
		}
		_, _ = parseBuiltin(bytes.NewReader(data))
		_, _ = parseSoftdep(bytes.NewReader(data))
		matchAliases(data, []string{"pci:v1", "fs-ext4", "x", ""})
		// Whatever the four files say, a closure ends and names each module once.
		file := &fstest.MapFile{Data: data}
		c, err := Open(fstest.MapFS{"modules.dep": file, "modules.alias": file, "modules.softdep": file, "modules.builtin": {}})
		if err != nil {
			return
		}
		steps, err := c.Closure(c.Names()...)
		if err == nil && len(steps) > len(c.modules) {
			t.Fatalf("%d steps for %d modules", len(steps), len(c.modules))
		}
	})
}

func FuzzGlob(f *testing.F) {
	f.Add("a*[b-d]?", "axxc1")
	f.Add("[", "[")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		glob(pattern, name)
		if !strings.ContainsAny(name, "*?[") && !glob(name, name) {
			t.Fatalf("%q does not match itself", name)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	var text strings.Builder
	for i := range 27000 {
		fmt.Fprintf(&text, "alias pci:v%08Xd%08Xsv*sd*bc*sc*i* module%d\n", i%50, i, i)
	}
	var names []string
	for i := range 60 {
		names = append(names, fmt.Sprintf("pci:v%08Xd%08Xsv00001AF4sd00000001bc02sc00i00", i, i))
	}
	for b.Loop() {
		matchAliases([]byte(text.String()), names)
	}
}
