package store

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/waltos/waltos/image/tree"
)

const imageName = "docker.io/waltplatform/test-default:latest"

func sample(t *testing.T) Image {
	t.Helper()
	root := tree.New()
	for name, f := range map[string]*tree.File{
		"/etc/hostname": {Mode: 0o644, Content: []byte("node\n")},
		"/bin/tool":     {Mode: fs.ModeSetuid | 0o755, Content: bytes.Repeat([]byte("tool"), 1000)},
		"/bin/alias":    {Mode: fs.ModeSymlink | 0o777, Target: "tool"},
		"/root/secret":  {Mode: 0o600},
	} {
		if err := root.Add(name, f); err != nil {
			t.Fatal(err)
		}
	}
	return Image{Name: imageName, Labels: map[string]string{"walt.node.models": "pc-x86-64"},
		Architecture: "amd64", Created: time.Unix(1e9, 0), Command: []string{"/sbin/init"}, Root: root}
}

// unpack writes a tree to a folder of the host.
func unpack(t *testing.T, tr *tree.Tree, dir string) {
	t.Helper()
	err := tr.Walk(func(name string, f *tree.File) error {
		host := filepath.Join(dir, name)
		switch {
		case f.IsDir():
			return os.MkdirAll(host, 0o755)
		case f.Target != "":
			return os.Symlink(f.Target, host)
		}
		return os.WriteFile(host, f.Content, 0o755)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPodmanReads(t *testing.T) {
	podman, err := exec.LookPath("podman")
	if err != nil {
		t.Skip("not judged: podman is not on this machine")
	}
	if os.Getuid() != 0 {
		t.Skip("not judged: podman would use another store for this user")
	}
	store, err := Build([]Image{sample(t)})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	unpack(t, store, filepath.Join(dir, "images"))
	conf := filepath.Join(dir, "storage.conf")
	text := "[storage]\ndriver=\"overlay\"\nrunroot=\"" + dir + "/run\"\ngraphroot=\"" + dir + "/graph\"\n" +
		"[storage.options]\nadditionalimagestores=[\"" + dir + "/images\"]\n"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	// podman keeps its folder mounted on itself.
	t.Cleanup(func() { syscall.Unmount(filepath.Join(dir, "graph/overlay"), syscall.MNT_DETACH) })
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(podman, args...)
		cmd.Env = append(os.Environ(), "CONTAINERS_STORAGE_CONF="+conf)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("podman %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
		}
		return strings.TrimSpace(string(out))
	}
	var listed []struct {
		Names    []string
		ReadOnly bool
		Labels   map[string]string
	}
	if err := json.Unmarshal([]byte(run("image", "list", "--format=json")), &listed); err != nil {
		t.Fatal(err)
	}
	if len(listed) != 1 || listed[0].Names[0] != imageName || listed[0].Labels["walt.node.models"] != "pc-x86-64" || !listed[0].ReadOnly {
		t.Fatalf("podman lists %+v", listed)
	}

	// The layer given back through tar-split has the digest of the manifest.
	saved := filepath.Join(dir, "saved.tar")
	run("image", "save", "--format=docker-archive", "-o", saved, imageName)

	// Not "image mount", which in old versions knows the writable store only.
	container := run("create", "--network=none", imageName)
	mounted := run("mount", container)
	defer run("rm", "--force", container)
	got, err := os.ReadFile(filepath.Join(mounted, "etc/hostname"))
	if err != nil || string(got) != "node\n" {
		t.Errorf("mounted image: %q, %v", got, err)
	}
}

func TestSplit(t *testing.T) {
	image := sample(t)
	var archive bytes.Buffer
	if err := image.Root.WriteTar(&archive, image.Created); err != nil {
		t.Fatal(err)
	}
	split, err := splitTar(archive.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	plain, err := gzip.NewReader(bytes.NewReader(split))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	reader := tar.NewReader(bytes.NewReader(archive.Bytes()))
	for h, err := reader.Next(); err == nil; h, err = reader.Next() {
		if files[h.Name], err = io.ReadAll(reader); err != nil {
			t.Fatal(err)
		}
	}
	var rebuilt bytes.Buffer
	decoder := json.NewDecoder(plain)
	for decoder.More() {
		var e splitEntry
		if err := decoder.Decode(&e); err != nil {
			t.Fatal(err)
		}
		if e.Type == splitSegment {
			rebuilt.Write(e.Payload)
		} else {
			rebuilt.Write(files[e.Name])
		}
	}
	if !bytes.Equal(rebuilt.Bytes(), archive.Bytes()) {
		t.Error("the archive put together again is another one")
	}
}

// A reader of such archives finds the image, with the ids that the store has.
func TestArchive(t *testing.T) {
	image := sample(t)
	var out bytes.Buffer
	if err := WriteArchive(&out, []Image{image, image}); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("waltplatform/test-default:latest")
	if err != nil {
		t.Fatal(err)
	}
	got, err := tarball.Image(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(out.Bytes())), nil }, &tag)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
	id, err := got.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	tr, err := Build([]Image{image})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Get("/overlay-images/" + id.Hex); err != nil {
		t.Errorf("the store has another id: %v", err)
	}
}
