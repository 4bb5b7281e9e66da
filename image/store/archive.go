package store

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/waltos/waltos/image/tree"
)

// saved is an element of manifest.json in an archive.
type saved struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// WriteArchive writes images as `docker save` and `podman save` do, for `load` of either
// (format docker-archive of containers-transports(5)). Digests and ids are those of the
// store.
func WriteArchive(w io.Writer, images []Image) error {
	out := &archiveWriter{tar: tar.NewWriter(w)}
	var list []saved
	for _, image := range images {
		d, err := describe(image)
		if err != nil {
			return fmt.Errorf("cannot save image %s: %w", image.Name, err)
		}
		s := saved{d.id() + ".json", []string{strings.TrimPrefix(image.Name, "docker.io/")}, []string{d.layer() + ".tar"}}
		out.add(s.Config, d.config, image)
		out.add(s.Layers[0], d.archive, image)
		list = append(list, s)
	}
	index, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if len(images) > 0 {
		out.add("manifest.json", index, images[0])
	}
	if out.err == nil {
		out.err = out.tar.Close()
	}
	if out.err != nil {
		return fmt.Errorf("cannot save images: %w", out.err)
	}
	return nil
}

type archiveWriter struct {
	tar   *tar.Writer
	names []string
	err   error
}

// add writes a file once.
func (a *archiveWriter) add(name string, content []byte, of Image) {
	if a.err != nil || slices.Contains(a.names, name) {
		return
	}
	a.names = append(a.names, name)
	a.err = a.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: of.Created, Format: tar.FormatUSTAR})
	if a.err == nil {
		_, a.err = a.tar.Write(content)
	}
}

// description is what an image is made of.
type description struct {
	archive []byte // its one layer
	diff    string // digest of that
	config  []byte
}

func (d *description) id() string    { return digest(d.config)[len("sha256:"):] }
func (d *description) layer() string { return d.diff[len("sha256:"):] }

func describe(image Image) (*description, error) {
	var archive bytes.Buffer
	entries := 0
	image.Root.Walk(func(string, *tree.File) error { entries++; return nil })
	archive.Grow(int(image.Root.Size()) + 2048*entries) // growing by doubling would cost its size again
	if err := image.Root.WriteTar(&archive, image.Created); err != nil {
		return nil, err
	}
	d := &description{archive: archive.Bytes(), diff: digest(archive.Bytes())}
	var err error
	d.config, err = json.Marshal(config{
		Architecture: image.Architecture, OS: "linux", Created: image.Created.UTC(),
		Config:  container{Cmd: image.Command, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, Labels: image.Labels},
		History: []history{{image.Created.UTC(), "walt image build"}},
		RootFS:  rootfs{"layers", []string{d.diff}},
	})
	return d, err
}
