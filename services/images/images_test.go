package images

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// id makes an image or layer ID that begins with two given digits.
func id(start string) string { return start + strings.Repeat("0", 62) }

// addLayer puts a layer of files in a store; content beginning with "->" is a link.
func addLayer(t testing.TB, store, layer, parent string, files map[string]string) {
	t.Helper()
	diff := filepath.Join(store, "overlay", layer, "diff")
	must(t, os.MkdirAll(diff, 0o755))
	for name, content := range files {
		path := filepath.Join(diff, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if target, ok := strings.CutPrefix(content, "->"); ok {
			must(t, os.Symlink(target, path))
		} else {
			must(t, os.WriteFile(path, []byte(content), 0o644))
		}
	}
	appendJSON(t, filepath.Join(store, "overlay-layers", "layers.json"), map[string]any{"id": layer, "parent": parent, "diff-size": 2048})
}

func addImage(t testing.TB, store, image, layer string, labels map[string]string, names ...string) {
	t.Helper()
	dir := filepath.Join(store, "overlay-images", image)
	must(t, os.MkdirAll(dir, 0o755))
	config, err := json.Marshal(map[string]any{"created": "2026-01-02T03:04:05Z", "config": map[string]any{"Labels": labels}})
	must(t, err)
	key := "sha256:" + image
	must(t, os.WriteFile(filepath.Join(dir, "="+base64.StdEncoding.EncodeToString([]byte(key))), config, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "manifest"), []byte(`{"config": {"digest": "`+key+`"}}`), 0o600))
	appendJSON(t, filepath.Join(store, "overlay-images", "images.json"), map[string]any{
		"id": image, "names": names, "layer": layer, "digest": "sha256:" + id("dd"), "created": "2026-01-02T03:04:06Z", "metadata": "kept"})
}

func appendJSON(t testing.TB, path string, v any) {
	t.Helper()
	var all []any
	must(t, readJSON(path, &all))
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	text, err := json.Marshal(append(all, v))
	must(t, err)
	must(t, os.WriteFile(path, text, 0o600))
}

type warnings struct {
	mu  sync.Mutex
	all []string
}

func (w *warnings) add(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, fmt.Sprintf(format, args...))
}

func (w *warnings) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.all, "\n")
}

// site is a configuration in a temporary folder, with a read-only store that holds
// the default image, and a writable one.
func site(t testing.TB) (Config, *warnings) {
	t.Helper()
	dir := t.TempDir()
	w := &warnings{}
	c := Config{
		Store:     filepath.Join(dir, "store"),
		ReadOnly:  []string{filepath.Join(dir, "shipped")},
		State:     filepath.Join(dir, "walt"),
		Exports:   filepath.Join(dir, "exports.d"),
		ServerSSH: filepath.Join(dir, "ssh"),
		NodeTool:  filepath.Join(dir, "walt-node"),
		Spec:      filepath.Join(dir, "server.spec"),
		Zone:      "Europe/Paris",
		ServerMAC: "52:54:00:00:00:01",
		Network:   netip.MustParsePrefix("192.168.152.1/29"),
		Grace:     time.Hour,
		Warn:      w.add,
	}
	must(t, os.WriteFile(c.NodeTool, []byte("node program"), 0o755))
	shipped := c.ReadOnly[0]
	addLayer(t, shipped, id("a1"), "", map[string]string{
		"etc/hostname": "image", "etc/resolv.conf": "->/run/resolv.conf", "bin": "->usr/bin", "usr/bin/sh": "", "usr/share/zoneinfo/Europe/Paris": "",
		"boot/pc-x86-64/kernel": "->/boot/common/kernel", "boot/common/kernel": "->vmlinuz", "boot/common/vmlinuz": "linux"})
	addLayer(t, shipped, id("a2"), id("a1"), map[string]string{"etc/motd": "hello"})
	addImage(t, shipped, id("1a"), id("a2"), map[string]string{modelsLabel: "pc-x86-64, pc-x86-32"}, "docker.io/waltplatform/pc-x86-64-default:latest")
	addImage(t, shipped, id("2b"), id("a1"), nil, "docker.io/other/thing:latest")
	return c, w
}

func open(t testing.TB, c Config) *Manager {
	t.Helper()
	m, err := New(c)
	must(t, err)
	return m
}

const defaultName = "waltplatform/pc-x86-64-default:latest"

func names(m *Manager) map[string][]string {
	found := map[string][]string{}
	for _, i := range m.List() {
		found[i.ID[:2]] = i.Names
	}
	return found
}

func TestList(t *testing.T) {
	c, w := site(t)
	addLayer(t, c.Store, id("b1"), id("a2"), nil) // on top of layers of the other store
	addImage(t, c.Store, id("3c"), id("b1"), map[string]string{modelsLabel: "pc-x86-64"}, "docker.io/u/mine:latest", "localhost/walt/x:1")
	addImage(t, c.Store, id("4d"), id("ee"), map[string]string{modelsLabel: "pc-x86-64"}, "docker.io/u/broken:latest", "docker.io/"+defaultName)
	m := open(t, c)
	want := []Image{
		{ID: id("3c"), Names: []string{"u/mine:latest"}, Labels: map[string]string{modelsLabel: "pc-x86-64"}, Models: []string{"pc-x86-64"},
			Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Size: 6144, Layers: 3, Digest: "sha256:" + id("dd")},
		{ID: id("1a"), Names: []string{defaultName}, Labels: map[string]string{modelsLabel: "pc-x86-64, pc-x86-32"}, Models: []string{"pc-x86-64", "pc-x86-32"},
			Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Size: 4096, Layers: 2, Digest: "sha256:" + id("dd")},
	}
	if diff := cmp.Diff(want, m.List()); diff != "" {
		t.Error(diff)
	}
	if i, ok := m.ByName(defaultName); !ok || i.ID != id("1a") {
		t.Errorf("default image: %v, %v", i.ID, ok)
	}
	if _, ok := m.ByName("other/thing:latest"); ok {
		t.Error("an image without models was found")
	}
	if !strings.Contains(w.text(), "is not usable: its layer ee0000000000 is missing") {
		t.Error(w.text())
	}
}

func TestTags(t *testing.T) {
	c, _ := site(t)
	addLayer(t, c.Store, id("b1"), "", nil)
	addImage(t, c.Store, id("3c"), id("b1"), map[string]string{modelsLabel: "pc-x86-64"}, "docker.io/u/mine:latest")
	m := open(t, c)
	ctx := t.Context()
	check := func(what string, want map[string][]string) {
		t.Helper()
		for _, reader := range []*Manager{m, open(t, c)} {
			if diff := cmp.Diff(want, names(reader)); diff != "" {
				t.Errorf("after %s: %s", what, diff)
			}
		}
	}
	must(t, m.Tag(ctx, id("1a"), "u/pc:latest"))
	must(t, m.Tag(ctx, id("1a"), "u/pc:latest"))
	check("a second name for a read-only image", map[string][]string{"1a": {"u/pc:latest", defaultName}, "3c": {"u/mine:latest"}})
	must(t, m.Tag(ctx, id("3c"), defaultName))
	check("a name moved from a read-only image", map[string][]string{"1a": {"u/pc:latest"}, "3c": {"u/mine:latest", defaultName}})
	must(t, m.Untag(ctx, "u/mine:latest"))
	must(t, m.Untag(ctx, "u/none:latest"))
	check("a name removed", map[string][]string{"1a": {"u/pc:latest"}, "3c": {defaultName}})
	must(t, m.Remove(ctx, id("3c")))
	must(t, m.Remove(ctx, id("1a")))
	check("removals", map[string][]string{"1a": nil})
	if _, err := os.Stat(filepath.Join(c.Store, "overlay", id("b1"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the layer of a removed image: %v", err)
	}
	for _, name := range []string{"", "x", "u/x", "u/x:", "../x:1", "u/x:1/2", "u x/y:1", "u/.x:1"} {
		if m.Tag(ctx, id("1a"), name) == nil {
			t.Errorf("tag %q: no error", name)
		}
	}
	if m.Tag(ctx, id("77"), "u/x:1") == nil {
		t.Error("tag of an unknown image: no error")
	}
	var raw []map[string]any
	must(t, readJSON(filepath.Join(c.Store, "overlay-images", "images.json"), &raw))
	if raw[0]["metadata"] != "kept" {
		t.Errorf("unknown fields were lost: %v", raw)
	}
}

// TestLock: a lock held by another program is waited for, until the context ends.
func TestLock(t *testing.T) {
	c, _ := site(t)
	m := open(t, c)
	lock, err := lockStore(t.Context(), filepath.Join(c.Store, "overlay-images", "images.lock"))
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.Tag(ctx, id("1a"), "u/x:1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("tag while the store is locked: %v", err)
	}
	lock.release()
	must(t, m.Tag(t.Context(), id("1a"), "u/x:1"))
}

// TestPodman has podman make a store, and read it after a change.
func TestPodman(t *testing.T) {
	podman, err := exec.LookPath("podman")
	if err != nil || os.Getuid() != 0 {
		t.Skip("needs podman and root")
	}
	c, w := site(t)
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(podman, append([]string{"--root", c.Store, "--runroot", filepath.Join(c.State, "run"), "--storage-driver", "overlay",
			"--storage-opt", "additionalimagestore=" + filepath.Join(c.State, "none")}, args...)...)
		out, err := cmd.Output()
		if err != nil {
			var exit *exec.ExitError
			errors.As(err, &exit)
			t.Skipf("podman does not work here: %v: %s", err, exit.Stderr)
		}
		return string(out)
	}
	must(t, os.MkdirAll(filepath.Join(c.State, "none"), 0o755))
	must(t, os.WriteFile(filepath.Join(c.State, "Containerfile"), []byte("FROM scratch\nCOPY f /f\nLABEL "+modelsLabel+"=pc-x86-64\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(c.State, "f"), []byte("x"), 0o644))
	built := strings.TrimSpace(run("build", "-q", "-t", "docker.io/u/built:latest", c.State))
	m := open(t, c)
	i, ok := m.ByName("u/built:latest")
	if !ok || i.ID != built || !slices.Equal(i.Models, []string{"pc-x86-64"}) || i.Created.IsZero() || i.Size == 0 {
		t.Fatalf("image %+v, %v\n%s", i, ok, w.text())
	}
	must(t, m.Tag(t.Context(), i.ID, "v/tagged:1"))
	must(t, m.Untag(t.Context(), "u/built:latest"))
	if got := run("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}", "--no-trunc"); !strings.Contains(got, "docker.io/v/tagged:1 sha256:"+built) || strings.Contains(got, "u/built") {
		t.Errorf("podman sees %s", got)
	}
	must(t, m.Remove(t.Context(), i.ID))
	if got := run("images", "-a", "--format", "{{.ID}}", "--no-trunc"); strings.Contains(got, built) {
		t.Errorf("podman still sees %s", got)
	}
}

// serverOf returns the public key of the server.
func serverOf(t *testing.T, m *Manager) string {
	t.Helper()
	key, err := m.keys.server()
	must(t, err)
	return key
}

func TestKeys(t *testing.T) {
	c, _ := site(t)
	m := open(t, c)
	again := open(t, c)
	if string(m.keys.host) != string(again.keys.host) || serverOf(t, m) != serverOf(t, again) {
		t.Error("keys changed at the second start")
	}
	text, err := os.ReadFile(filepath.Join(c.State, "ssh", "known_hosts.nodes"))
	must(t, err)
	if !strings.HasPrefix(string(text), "walt.node ecdsa-sha2-nistp256 AAAA") || strings.Contains(string(text), "\n") {
		t.Errorf("known_hosts.nodes: %q", text)
	}
	// The format of dropbear: key type, curve, point, secret.
	public, _, _, _, err := ssh.ParseAuthorizedKey(m.keys.hostPublic)
	must(t, err)
	if !strings.HasPrefix(string(m.keys.dropbear), string(public.Marshal())) {
		t.Error("dropbear's key does not begin with the public key")
	}
	rest := m.keys.dropbear[len(public.Marshal()):]
	if n := len(rest) - 4; rest[3] != byte(n) || n > 33 {
		t.Errorf("dropbear's secret has %d bytes", n)
	}
	for _, name := range []string{"keys/ssh_host_ecdsa_key", "keys/dropbear_ecdsa_host_key"} {
		if info, err := os.Stat(filepath.Join(c.State, name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	must(t, os.WriteFile(filepath.Join(c.State, "keys", "ssh_host_ecdsa_key"), []byte("damaged"), 0o600))
	if _, err := New(c); err == nil {
		t.Error("a damaged key was accepted")
	}
}

// TestKeygen has ssh-keygen read the keys.
func TestKeygen(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("no ssh-keygen on this machine")
	}
	c, _ := site(t)
	serverOf(t, open(t, c))
	for _, path := range []string{filepath.Join(c.State, "keys", "ssh_host_ecdsa_key"), filepath.Join(c.ServerSSH, "id_rsa")} {
		out, err := exec.Command(keygen, "-y", "-f", path).CombinedOutput()
		must(t, err)
		public, err := os.ReadFile(path + ".pub")
		must(t, err)
		if strings.TrimSpace(string(out)) != strings.TrimSpace(string(public)) {
			t.Errorf("%s: ssh-keygen says %q, the file %q", path, out, public)
		}
	}
}

// TestDefectN12LinksOfImages: the links of an image lead nowhere but into it.
func TestDefectN12LinksOfImages(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	root := filepath.Join(dir, "root")
	must(t, os.MkdirAll(filepath.Join(root, "usr", "bin"), 0o755))
	must(t, os.MkdirAll(outside, 0o755))
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644))
	for name, target := range map[string]string{
		"bin": "usr/bin", "abs": "/usr/bin", "up": "../../../usr/bin", "loop": "loop", "out": outside, "file": outside + "/secret", "dangling": "/none/x",
	} {
		must(t, os.Symlink(target, filepath.Join(root, name)))
	}
	r, err := openRoot(root)
	must(t, err)
	defer r.root.Close()
	for name, want := range map[string]string{
		"/": ".", "/bin/x": "usr/bin/x", "/abs/x": "usr/bin/x", "/up/x": "usr/bin/x", "/../../bin": "usr/bin", "/dangling": "none/x", "/a/../b": "b",
	} {
		if got, err := r.resolve(name, true); err != nil || got != want {
			t.Errorf("resolve(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
	if _, err := r.resolve("/loop/x", true); err == nil {
		t.Error("a circle of links: no error")
	}
	// Writing through links that leave the root stays inside.
	for _, name := range []string{"/out/secret", "/file", "/dangling", "/bin/f", "/abs/g"} {
		must(t, r.write(name, []byte("new"), 0o644))
		if got, err := r.read(name); err != nil || string(got) != "new" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if got, _ := os.ReadFile(filepath.Join(outside, "secret")); string(got) != "secret" {
		t.Errorf("a file outside was changed: %q", got)
	}
	must(t, syscall.Mkfifo(filepath.Join(root, "pipe"), 0o644))
	if _, err := r.read("/pipe"); err == nil {
		t.Error("a pipe was read")
	}
	must(t, r.write("/pipe", []byte("x"), 0o644))
	if err := r.write("/usr", nil, 0o644); err == nil {
		t.Error("a folder was replaced")
	}
}

func TestRelative(t *testing.T) {
	for _, c := range [][3]string{{"a/b", "a/c", "../c"}, {".", "a", "a"}, {"a", ".", ".."}, {"a/b", "a/b", "."}, {"a", "a/b/c", "b/c"}} {
		if got := relative(c[0], c[1]); got != c[2] {
			t.Errorf("relative(%q, %q) = %q, want %q", c[0], c[1], got, c[2])
		}
	}
}

func TestExpand(t *testing.T) {
	values := map[string]string{"server_ip": "192.168.152.1"}
	for text, want := range map[string]string{
		"": "", "set ip %(server_ip)s\n": "set ip 192.168.152.1\n", "100%%": "100%", "%%(server_ip)s": "%(server_ip)s", "a%(server_ip)s%%%(server_ip)sb": "a192.168.152.1%192.168.152.1b",
	} {
		if got, err := expand(text, values); err != nil || got != want {
			t.Errorf("expand(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"%", "100% sure", "%(server_ip)", "%(other)s", "%(server_ip)d", "%s"} {
		if _, err := expand(text, values); err == nil {
			t.Errorf("expand(%q): no error", text)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("set ip %(server_ip)s 100%%")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := expand(text, map[string]string{"server_ip": "x"})
		if err == nil && !strings.Contains(text, "%") && got != text {
			t.Errorf("%q became %q", text, got)
		}
	})
}

// fakeMount gives the manager an image as if it were mounted.
func fakeMount(t testing.TB, m *Manager, image string) *entry {
	t.Helper()
	e := m.catalog.Load().images[image]
	must(t, os.MkdirAll(filepath.Dir(m.mountPoint(image)), 0o755))
	for i := len(e.lower) - 1; i >= 0; i-- {
		out, err := exec.Command("cp", "-a", e.lower[i]+"/.", m.mountPoint(image)).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return e
}

// state lists all files below a folder with their content or target, and the time of
// their last change.
func state(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		info, err := d.Info()
		if err != nil {
			return err
		}
		inode := info.Sys().(*syscall.Stat_t).Ino
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(p)
			found[name] = fmt.Sprintf("-> %s #%d", target, inode)
			return err
		}
		text, err := os.ReadFile(p)
		found[name] = fmt.Sprintf("%v %s #%d %v", info.Mode(), text, inode, info.ModTime())
		return err
	}))
	return found
}

// TestDefectN12Preparation: what is hostile or wrong in an image is left aside, the rest is
// done, and doing it again changes nothing.
func TestDefectN12Preparation(t *testing.T) {
	c, w := site(t)
	must(t, os.WriteFile(c.Spec, []byte("features: [ptp, nbfs2]\n"), 0o644))
	victim := t.TempDir()
	addLayer(t, c.Store, id("b1"), id("a2"), map[string]string{
		"etc/ssh":                   "->" + victim,
		"root/.ssh/authorized_keys": "ssh-rsa AAAA user@laptop",
		"etc/hosts":                 "->" + victim + "/hosts",
		"etc/ptpd.conf":             "ptpengine:ip_mode=multicast\nptpengine:log_delayreq_interval=-1\n",
		"etc/walt/image.spec":       "templates: [/boot/common/params.ipxe, /none, relative, /bad]\nfeatures: {other: /bin/false}\n",
		"boot/common/params.ipxe":   "set server_mac %(server_mac)s\nset image %(walt_image_id)s\n",
		"bad":                       "100% sure",
		"usr/local/bin/walt-echo":   "old",
	})
	addImage(t, c.Store, id("3c"), id("b1"), map[string]string{modelsLabel: "pc-x86-64"}, "docker.io/u/mine:latest")
	m := open(t, c)
	e := fakeMount(t, m, id("3c"))
	m.prepare(t.Context(), e)
	root := m.mountPoint(e.ID)
	for name, want := range map[string]string{
		"etc/hosts":                    hostsFile,
		"etc/ssh/ssh_host_ecdsa_key":   string(m.keys.host),
		"etc/resolv.conf":              "\ndomain walt\nsearch walt.\nnameserver 192.168.152.1\n",
		"root/.ssh/authorized_keys":    "ssh-rsa AAAA user@laptop\n" + serverOf(t, m) + "\n",
		"etc/ptpd.conf":                "ptpengine:ip_mode=hybrid\nptpengine:log_delayreq_interval=3\n",
		"boot/common/params.ipxe":      "set server_mac 52:54:00:00:00:01\nset image " + e.ID + "\n",
		"bad":                          "100% sure",
		"bin/walt-init":                "node program",
		"bin/walt-log-echo":            "node program", // through its link
		"bin/_walt_internal_/walt-rpc": "node program",
		"boot/pc-x86-64/kernel":        "linux",
		"etc/walt/server.spec":         "features: [ptp, nbfs2]\n",
	} {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	for name, want := range map[string]string{
		"boot/pc-x86-64/kernel": "../common/vmlinuz", "etc/resolv.conf.saved": "/run/resolv.conf", "etc/localtime": "/usr/share/zoneinfo/Europe/Paris", "boot/common/kernel": "vmlinuz",
	} {
		if got, _ := os.Readlink(filepath.Join(root, name)); got != want {
			t.Errorf("link %s -> %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"etc/hostname", "usr/local/bin/walt-echo"} {
		if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	env, err := os.ReadFile(filepath.Join(root, "bin/walt-env"))
	if err != nil || !strings.Contains(string(env), "export walt_server_ip='192.168.152.1'\n") || !strings.Contains(string(env), "export walt_image_size_kib='6'\n") {
		t.Errorf("walt-env: %s, %v", env, err)
	}
	if entries, _ := os.ReadDir(victim); len(entries) > 0 {
		t.Errorf("files outside of the image were written: %v", entries)
	}
	for _, part := range []string{"template /none", "template relative: not an absolute path", "template /bad: a % that begins no known"} {
		if !strings.Contains(w.text(), part) {
			t.Errorf("no warning with %q in:\n%s", part, w.text())
		}
	}
	// Again: nothing is written.
	before := state(t, root)
	m.prepare(t.Context(), e)
	if diff := cmp.Diff(before, state(t, root)); diff != "" {
		t.Errorf("a second preparation changed (-before +after):\n%s", diff)
	}
}

var (
	serverDevice = Device{MAC: "52:54:00:00:00:01", IP: "192.168.152.1", Name: "walt-server", Type: "server"}
	nodeDevice   = Device{MAC: "52:54:00:00:00:02", IP: "192.168.152.2", Name: "pc", Type: "node", Image: defaultName, Model: "pc-x86-64", Persist: true}
)

func links(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for name, text := range state(t, dir) {
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			found[name], _, _ = strings.Cut(target, " #")
		} else {
			found[name] = "file"
		}
	}
	return found
}

func TestTree(t *testing.T) {
	c, _ := site(t)
	m := open(t, c)
	nodes := m.nodes()
	mac, mac2 := nodeDevice.MAC, "52:54:00:00:00:03"
	other := Device{MAC: mac2, IP: "192.168.152.3", Name: "pc2", Type: "node", Image: defaultName, Model: "pc-x86-64"}
	unknown := Device{MAC: "b8:27:eb:00:00:04", IP: "192.168.152.4", Name: "unknown-000004", Type: "unknown"}
	evil := Device{MAC: "52:54:00:00:00:05", IP: "10.0.0.1", Name: "../../x", Type: "node", Image: defaultName, Model: "m"}
	tricky := Device{MAC: "52:54:00:00:00:06", IP: "192.168.152.6", Name: "../x", Type: "node", Image: "../x:1", Model: "../m"}
	// What very old versions left.
	must(t, os.MkdirAll(filepath.Join(nodes, mac, "persist"), 0o755))
	must(t, os.WriteFile(filepath.Join(nodes, mac, "persist", "old"), nil, 0o644))
	must(t, os.Symlink("elsewhere", filepath.Join(nodes, "stale")))
	devices := []Device{serverDevice, nodeDevice, other, unknown, evil, tricky, {MAC: "52:54:00:00:00:07", IP: "192.168.152.5", Name: "sw", Type: "switch"}}
	must(t, m.writeTree(devices))
	fsLink := "../../images/" + id("1a") + "/fs"
	want := map[string]string{
		"52-54-00-00-00-02": mac, "192.168.152.2": mac, "pc": mac,
		mac + "/fs": fsLink, mac + "/tftp": fsLink + "/boot/pc-x86-64", mac + "/persist": "persist_dirs/waltplatform", mac + "/persist_dirs/waltplatform/old": "file",
		"52-54-00-00-00-03": mac2, "192.168.152.3": mac2, "pc2": mac2,
		mac2 + "/fs": fsLink, mac2 + "/tftp": fsLink + "/boot/pc-x86-64", mac2 + "/persist": "forbidden_dir",
		unknown.MAC: "probing", "b8-27-eb-00-00-04": "probing", "192.168.152.4": "probing", "unknown-000004": "probing",
		"52-54-00-00-00-06": tricky.MAC, "192.168.152.6": tricky.MAC, tricky.MAC + "/persist": "forbidden_dir",
		"probing/tftp": "../../tftp-static",
	}
	if diff := cmp.Diff(want, links(t, nodes)); diff != "" {
		t.Error(diff)
	}
	before := state(t, nodes)
	must(t, m.writeTree(devices))
	if diff := cmp.Diff(before, state(t, nodes)); diff != "" {
		t.Errorf("the second time:\n%s", diff)
	}
	// Nodes gone: what they stored stays until they are forgotten.
	must(t, os.MkdirAll(filepath.Join(nodes, mac, "disks"), 0o755))
	must(t, os.WriteFile(filepath.Join(nodes, mac, "disks", "disk_0.dd"), nil, 0o644))
	known := unknown
	known.Type, known.Image, known.Model = "node", defaultName, "rpi"
	must(t, m.writeTree([]Device{serverDevice, known}))
	want = map[string]string{
		mac + "/persist_dirs/waltplatform/old": "file", mac + "/disks/disk_0.dd": "file", "probing/tftp": "../../tftp-static",
		"b8-27-eb-00-00-04": known.MAC, "192.168.152.4": known.MAC, "unknown-000004": known.MAC,
		known.MAC + "/fs": fsLink, known.MAC + "/tftp": fsLink + "/boot/rpi", known.MAC + "/persist": "forbidden_dir",
	}
	for _, n := range []string{"2", "3", "5", "6"} {
		want["192.168.152."+n] = "probing"
	}
	if diff := cmp.Diff(want, links(t, nodes)); diff != "" {
		t.Error(diff)
	}
	must(t, m.Forget(t.Context(), mac))
	if _, err := os.Lstat(filepath.Join(nodes, mac)); err == nil {
		t.Error("a forgotten node is still there")
	}
	for _, bad := range []string{"", "..", "../images", "probing"} {
		if m.Forget(t.Context(), bad) == nil {
			t.Errorf("Forget(%q): no error", bad)
		}
	}
}

// TestDefectS7MissingImage: a node whose image is nowhere keeps nothing of the others back.
func TestDefectS7MissingImage(t *testing.T) {
	c, _ := site(t)
	m := open(t, c)
	lost := nodeDevice
	lost.Image = "u/lost:latest"
	for range 2 {
		if err := m.Reconcile(t.Context(), []Device{serverDevice, lost}); err == nil || !strings.Contains(err.Error(), `cannot mount image "u/lost:latest" of node pc: no store has it`) {
			t.Errorf("Reconcile: %v", err)
		}
	}
	if target, err := os.Readlink(filepath.Join(m.nodes(), "pc")); err != nil || target != lost.MAC {
		t.Errorf("the tree of nodes was not made: %q, %v", target, err)
	}
}

func TestExports(t *testing.T) {
	c, _ := site(t)
	log := filepath.Join(t.TempDir(), "log")
	must(t, os.WriteFile(log, nil, 0o644))
	c.Exportfs = []string{"/bin/sh", "-c", "echo applied >> " + log}
	m := open(t, c)
	apply := func(ids []string, want int) {
		t.Helper()
		must(t, m.writeExports(t.Context(), ids, []Device{serverDevice, nodeDevice}))
		text, err := os.ReadFile(log)
		must(t, err)
		if n := strings.Count(string(text), "applied"); n != want {
			t.Errorf("applied %d times, want %d", n, want)
		}
	}
	apply([]string{id("1a")}, 1)
	apply([]string{id("1a")}, 1)
	got, err := os.ReadFile(filepath.Join(c.Exports, "walt.exports"))
	must(t, err)
	want := exportsHeader + c.State + "/nodes 192.168.152.0/29(ro,sync,no_root_squash,no_subtree_check)\n" +
		c.State + "/images/" + id("1a") + "/fs 192.168.152.0/29(fsid=" + id("1a")[:32] + ",ro,sync,no_root_squash,no_subtree_check)\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	got, err = os.ReadFile(filepath.Join(c.Exports, "walt-persist.exports"))
	must(t, err)
	want = exportsHeader + c.State + "/nodes/52:54:00:00:00:02/persist_dirs/waltplatform 192.168.152.0/29(rw,sync,no_root_squash,no_subtree_check)\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	apply(nil, 2)
	if got, err := os.ReadFile(filepath.Join(c.Exports, "walt.exports")); err != nil || string(got) != exportsHeader {
		t.Errorf("without image: %q, %v", got, err)
	}
	// A failure is tried again, though the files have not changed.
	m.config.Exportfs = []string{"/bin/sh", "-c", "echo no server >&2; exit 1"}
	m.exported = false
	if err := m.writeExports(t.Context(), nil, nil); err == nil || !strings.Contains(err.Error(), "no server") {
		t.Errorf("failure: %v", err)
	}
	m.config.Exportfs = c.Exportfs
	must(t, m.writeExports(t.Context(), nil, nil))
}
