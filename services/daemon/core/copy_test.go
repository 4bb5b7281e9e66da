package core

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waltos/waltos/services/daemon/core/remote"
	"github.com/waltos/waltos/services/daemon/core/text"
)

// withNode lets nodes be reached: what ssh would do there is done here, in a home of
// their own with some files. A node whose address ends with 11 does not answer.
func withNode(t *testing.T) (home string, change func(*Config)) {
	t.Helper()
	dir := t.TempDir()
	home = filepath.Join(dir, "home")
	for _, folder := range []string{"folder/sub", "it's here"} {
		if err := os.MkdirAll(filepath.Join(home, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(home, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "ssh")
	script := "#!/bin/sh\necho >>" + dir + "/calls\nfor last; do case $last in *.11) exit 255;; esac; done\ncd " + home + "\nexec sh -c \"$last\"\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return home, func(c *Config) {
		c.SSH = remote.Default()
		c.SSH.Program = program
	}
}

func TestValidateNodeCp(t *testing.T) {
	home, change := withNode(t)
	p := start(t, change)
	p.populate(t)
	u := newUser("alice")
	client := map[string]any{"./file": "f", "./folder": "d", ".": "d", "./.": "d", "./socket": "o", "/tmp": "d", "/": "d", "./..": "d", "./": "d"}
	u.hooks = func(path string, args []any) any {
		if path != "filesystem.get_file_type" {
			t.Errorf("callback %s", path)
		}
		return client[args[0].(string)]
	}
	ok := func(index int, dir, name, src string) string {
		return fmt.Sprintf("{client_operand_index: %d, node_name: pc, node_ip: 192.168.152.10, node_image: waltplatform/pc-x86-64-default:latest, "+
			"node_ownership: free, status: OK, valid: true, dst_dir: %s, dst_name: %s, src_path: %s}", index, dir, name, src)
	}
	const failed = "{status: FAILED}"
	refused := func(message string) []string { return []string{failed, "err:" + message} }
	for _, test := range []struct {
		src, dst string
		want     []string // result, output
	}{
		// to the node
		{"file", "pc:new", []string{ok(0, ".", "new", "./file"), ""}},
		{"file", "pc:" + home + "/new", []string{ok(0, home, "new", "./file"), ""}},
		{"file", "pc:folder", []string{ok(0, "./folder", "file", "./file"), ""}},
		{"file", "pc:folder///", []string{ok(0, "./folder", "file", "./file"), ""}},
		{"file", "pc:", []string{ok(0, "./", "file", "./file"), ""}},
		{"file", "pc:/", []string{ok(0, "/", "file", "./file"), ""}}, // CN-24
		{"file", "pc:file", []string{ok(0, ".", "file", "./file"), ""}},
		{"file", "pc:it's here", []string{ok(0, "./it's here", "file", "./file"), ""}},
		{"folder/", "pc:folder/sub", []string{ok(0, "./folder/sub", "folder", "./folder"), ""}},
		{"folder", "pc:new", []string{ok(0, ".", "new", "./folder"), ""}},
		{".", "pc:folder", []string{ok(0, ".", "folder", "./."), ""}},
		{"..", "pc:folder", []string{ok(0, ".", "folder", "./.."), ""}},
		{".", "pc:", []string{ok(0, "./", ".", "./."), ""}},
		{"none", "pc:folder", refused("No such file or directory: ./none\n")},
		{"file", "pc:none/new", refused("No such file or directory: ./none/new\n")},
		{"file", "pc:file/new", refused("No such file or directory: ./file/new\n")},
		{"folder", "pc:file", refused("Invalid request. Overwriting regular file ./file with directory ./folder is not allowed.\n")},
		{"file", "pc:a\x00b", refused("No such file or directory: ./a\x00b\n")},
		// from the node
		{"pc:file", ".", []string{ok(1, "./.", "file", "./file"), ""}},
		{"pc:file", "/tmp", []string{ok(1, "/tmp", "file", "./file"), ""}},
		{"pc:file", "/tmp/new", []string{ok(1, "/tmp", "new", "./file"), ""}},
		{"pc:file", "new", []string{ok(1, ".", "new", "./file"), ""}},
		{"pc:it's here", "folder", []string{ok(1, "./folder", "it's here", "./it's here"), ""}},
		{"pc:/", "folder", []string{ok(1, ".", "folder", "/"), ""}}, // CN-24
		{"pc:", "folder", []string{ok(1, ".", "folder", "./"), ""}}, // CN-24
		{"pc:none", "/tmp", refused("No such file or directory: ./none\n")},
		{"pc:file", "none/new", refused("No such file or directory: ./none/new\n")},
		{"pc:folder", "file", refused("Invalid request. Overwriting regular file ./file with directory ./folder is not allowed.\n")},
		// operands
		{"x:file", "/tmp", refused("No device with name 'x' found.\n")},
		{"/tmp", "sw:file", refused("sw is not a node, it is a switch.\n")},
		{":file", "/tmp", refused("No device with name '' found.\n")},
		{"pc:a:b", "/tmp", refused("No device with name 'pc:a' found.\n")},
		{"pc:file", "rpi:file", refused(text.NodeCopyUsage)},
		{"file", "/tmp", refused(text.NodeCopyUsage)},
		{"booted-image", "pc:file", refused("Keyword 'booted-image' can only be used as destination, not source.\n")},
		{"file", "booted-image", refused(text.NodeCopyUsage)},
		{"pc:file", "booted-image", refused("Cannot proceed because the booted image does not belong to you.\n")},
		{"rpi:file", "/tmp", refused("Could not reach this node. Try again later.\n")},
		{"file", "rpi:x", refused("Could not reach this node. Try again later.\n")},
	} {
		got, err := p.do(t, u, "validate_node_cp", test.src, test.dst)
		if said := u.said(); err != nil || show(got) != test.want[0] || said != test.want[1] {
			t.Errorf("%q to %q: %s, %v, says %q\nwant %s, %q", test.src, test.dst, show(got), err, said, test.want[0], test.want[1])
		}
	}
	// A user without name is given up silently.
	if got, err := p.do(t, newUser(""), "validate_node_cp", "file", "pc:new"); err != nil || show(got) != failed {
		t.Errorf("without user: %v, %v", show(got), err)
	}
}

// A node that does not answer is asked once more, and no oftener.
func TestValidateNodeCpTriesTwice(t *testing.T) {
	home, change := withNode(t)
	p := start(t, change)
	p.populate(t)
	u := newUser("alice")
	p.do(t, u, "validate_node_cp", "rpi:file", "/tmp")
	if calls, err := os.ReadFile(filepath.Join(filepath.Dir(home), "calls")); string(calls) != "\n\n" {
		t.Errorf("ssh was started %d times, %v", len(calls), err)
	}
}

// CN-25: to copy to the booted image it is the node that must answer, but first the image
// must be the user's.
func TestCN25BootedImage(t *testing.T) {
	_, change := withNode(t)
	p := start(t, change)
	p.populate(t)
	u := newUser("alice")
	p.do(t, u, "show_images", "alice", false, true, false)
	p.do(t, u, "set_image", "pc", "pc-x86-64-default")
	u.said()
	got, err := p.do(t, u, "validate_node_cp", "pc:file", "booted-image")
	if said := u.said(); err != nil || show(got) != "{status: FAILED}" || said != "err:Sorry, copying to images is not available on this server yet.\n" {
		t.Errorf("%s, %v, says %q", show(got), err, said)
	}
}

func TestValidateImageCp(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	u := newUser("alice")
	p.do(t, u, "show_images", "alice", false, true, false)
	u.said()
	for _, test := range []struct{ src, dst, want string }{
		{"booted-image", "x", "Keyword 'booted-image' is only available with command 'walt node cp'.\n"},
		{"pc-x86-64-default:file", "booted-image", "Keyword 'booted-image' is only available with command 'walt node cp'.\n"},
		{"none:file", "x", "Error: No such image 'none'. (tip: walt image show)\n"},
		{"x", "none:tag:file", "Error: No such image 'none:tag'. (tip: walt image show)\n"},
		{"x", "y", text.ImageCopyUsage},
		{"pc-x86-64-default:x", "pc-x86-64-default:latest:y", text.ImageCopyUsage},
		{"pc-x86-64-default:latest:x", "y", "Sorry, copying from images is not available on this server yet.\n"},
		{"x", "pc-x86-64-default:y", "Sorry, copying to images is not available on this server yet.\n"},
	} {
		got, err := p.do(t, u, "validate_image_cp", test.src, test.dst)
		if said := u.said(); err != nil || show(got) != "{status: FAILED}" || said != "err:"+test.want {
			t.Errorf("%q to %q: %s, %v, says %q, want %q", test.src, test.dst, show(got), err, said, test.want)
		}
	}
}

func TestCN24Paths(t *testing.T) {
	for path, want := range map[string]string{
		"/": "/", "///": "/", "": "./", "a": "./a", "a/": "./a", "/a//": "/a", "./a": "././a", "~": "./~", "-n": "./-n", "a/b": "./a/b",
	} {
		if got := copyPath(path); got != want {
			t.Errorf("%q becomes %q, want %q", path, got, want)
		}
	}
	for path, want := range map[string][2]string{
		"/": {"/", ""}, "./": {".", ""}, "/a": {"/", "a"}, "./a": {".", "a"}, "./a/b": {"./a", "b"}, "/a//b": {"/a", "b"}, "./.": {".", "."},
	} {
		if dir, base := splitPath(path); [2]string{dir, base} != want {
			t.Errorf("%q is %q and %q, want %q", path, dir, base, want)
		}
	}
}

// FuzzCopyPath: what a client gives as a path cannot be taken for an option, and names
// one file.
func FuzzCopyPath(f *testing.F) {
	for _, path := range []string{"", "/", "-a", "a/", "..//"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got := copyPath(path)
		if !strings.HasPrefix(got, "/") && !strings.HasPrefix(got, "./") {
			t.Fatalf("%q becomes %q", path, got)
		}
		dir, base := splitPath(got)
		if dir == "" || strings.Contains(base, "/") {
			t.Fatalf("%q is %q and %q", got, dir, base)
		}
	})
}
