// Package store lays out container images as a containers-storage folder with the
// overlay driver: what podman, buildah and our image manager read in place, without
// pulling or unpacking.
//
// Specification: go.podman.io/storage (github.com/containers/storage) 1.5x: overlay
// driver, layers.json, images.json, tar-split of each layer. The store is meant as a
// read-only additional image store: one layer per image, no containers. Manifests
// and configurations have the Docker format (image manifest version 2, schema 2),
// and an image's id is the SHA-256 of its configuration.
package store

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"time"

	"github.com/waltos/waltos/image/tree"
)

const (
	manifestType = "application/vnd.docker.distribution.manifest.v2+json"
	configType   = "application/vnd.docker.container.image.v1+json"
	layerType    = "application/vnd.docker.image.rootfs.diff.tar"
)

// Image is a container image to store.
type Image struct {
	Name         string // with registry, as "docker.io/waltplatform/pc-x86-64-default:latest"
	Labels       map[string]string
	Architecture string // as Go names it
	Created      time.Time
	Command      []string
	Root         *tree.Tree
}

type config struct {
	Architecture string    `json:"architecture"`
	Config       container `json:"config"`
	Created      time.Time `json:"created"`
	History      []history `json:"history"`
	OS           string    `json:"os"`
	RootFS       rootfs    `json:"rootfs"`
}

type container struct {
	Cmd    []string          `json:"Cmd,omitempty"`
	Env    []string          `json:"Env"`
	Labels map[string]string `json:"Labels"`
}

type history struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

type rootfs struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type manifest struct {
	SchemaVersion int       `json:"schemaVersion"`
	MediaType     string    `json:"mediaType"`
	Config        content   `json:"config"`
	Layers        []content `json:"layers"`
}

type content struct {
	MediaType string `json:"mediaType"`
	Size      int    `json:"size"`
	Digest    string `json:"digest"`
}

// storedLayer is an element of overlay-layers/layers.json.
type storedLayer struct {
	ID               string    `json:"id"`
	Created          time.Time `json:"created"`
	CompressedDigest string    `json:"compressed-diff-digest"`
	CompressedSize   int       `json:"compressed-size"`
	DiffDigest       string    `json:"diff-digest"`
	DiffSize         int       `json:"diff-size"`
	UIDs             []int     `json:"uidset"`
	GIDs             []int     `json:"gidset"`
}

// storedImage is an element of overlay-images/images.json.
type storedImage struct {
	ID         string            `json:"id"`
	Digest     string            `json:"digest"`
	Names      []string          `json:"names"`
	Layer      string            `json:"layer"`
	Metadata   string            `json:"metadata"`
	DataNames  []string          `json:"big-data-names"`
	DataSizes  map[string]int    `json:"big-data-sizes"`
	DataDigest map[string]string `json:"big-data-digests"`
	Created    time.Time         `json:"created"`
}

// Build returns the store as a tree; the files of the images are shared with it.
func Build(images []Image) (*tree.Tree, error) {
	b := &builder{tree: tree.New()}
	for _, image := range images {
		if err := b.add(image); err != nil {
			return nil, fmt.Errorf("cannot store image %s: %w", image.Name, err)
		}
	}
	if err := b.finish(); err != nil {
		return nil, fmt.Errorf("cannot store images: %w", err)
	}
	return b.tree, nil
}

type builder struct {
	tree   *tree.Tree
	layers []storedLayer
	images []storedImage
}

func (b *builder) add(image Image) error {
	d, err := describe(image)
	if err != nil {
		return err
	}
	manifestData, err := json.Marshal(manifest{
		SchemaVersion: 2, MediaType: manifestType,
		Config: content{configType, len(d.config), digest(d.config)},
		Layers: []content{{layerType, len(d.archive), d.diff}},
	})
	if err != nil {
		return err
	}
	if err := b.addLayer(d.layer(), image, d.archive); err != nil {
		return err
	}

	id := d.id()
	stored := storedImage{
		ID: id, Digest: digest(manifestData), Names: []string{image.Name}, Layer: d.layer(), Metadata: "{}",
		DataSizes: map[string]int{}, DataDigest: map[string]string{}, Created: image.Created.UTC(),
	}
	for _, data := range []struct {
		name    string
		content []byte
	}{
		{"manifest-" + digest(manifestData), manifestData},
		{"manifest", manifestData},
		{"sha256:" + id, d.config},
	} {
		stored.DataNames = append(stored.DataNames, data.name)
		stored.DataSizes[data.name] = len(data.content)
		stored.DataDigest[data.name] = digest(data.content)
		if err := b.file(path.Join("/overlay-images", id, dataFile(data.name)), data.content); err != nil {
			return err
		}
	}
	b.images = append(b.images, stored)
	return nil
}

func (b *builder) addLayer(id string, image Image, archive []byte) error {
	for _, known := range b.layers {
		if known.ID == id {
			return nil
		}
	}
	uids, gids := map[int]bool{}, map[int]bool{}
	image.Root.Walk(func(_ string, f *tree.File) error {
		uids[f.UID], gids[f.GID] = true, true
		return nil
	})
	b.layers = append(b.layers, storedLayer{
		ID: id, Created: image.Created.UTC(),
		CompressedDigest: digest(archive), CompressedSize: len(archive),
		DiffDigest: digest(archive), DiffSize: len(archive), UIDs: sorted(uids), GIDs: sorted(gids),
	})
	split, err := splitTar(archive)
	if err != nil {
		return err
	}
	// A short name, because the option lowerdir of a mount has to fit into a page.
	sum := sha256.Sum256([]byte("link " + id))
	short := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16])
	dir := path.Join("/overlay", id)
	for name, content := range map[string][]byte{
		path.Join(dir, "link"):                           []byte(short),
		path.Join("/overlay-layers", id+".tar-split.gz"): split,
	} {
		if err := b.file(name, content); err != nil {
			return err
		}
	}
	for _, name := range []string{"work", "merged", "empty"} {
		if err := b.tree.Dir(path.Join(dir, name), 0o700, 0, 0, "store"); err != nil {
			return err
		}
	}
	link := &tree.File{Mode: fs.ModeSymlink | 0o777, Target: path.Join("..", id, "diff"), Origin: "store"}
	if err := b.tree.Add(path.Join("/overlay/l", short), link); err != nil {
		return err
	}
	return b.tree.Graft(path.Join(dir, "diff"), image.Root)
}

func (b *builder) finish() error {
	layers, err := json.Marshal(append([]storedLayer{}, b.layers...))
	if err != nil {
		return err
	}
	images, err := json.Marshal(append([]storedImage{}, b.images...))
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"/overlay-layers/layers.json": layers,
		"/overlay-images/images.json": images,
		// Readers open these to lock them, and cannot make them here.
		"/overlay-layers/layers.lock": {},
		"/overlay-images/images.lock": {},
		"/storage.lock":               {},
	} {
		if err := b.file(name, content); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/", "/overlay", "/overlay/l", "/overlay-layers", "/overlay-images"} {
		if err := b.tree.Dir(dir, 0o755, 0, 0, "store"); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) file(name string, content []byte) error {
	return b.tree.Add(name, &tree.File{Mode: 0o644, Content: content, Origin: "store"})
}

// dataFile returns the file name of a datum of an image: its own name if that is
// plain, else an encoded one.
func dataFile(name string) string {
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '.' && r != '-' {
			return "=" + base64.StdEncoding.EncodeToString([]byte(name))
		}
	}
	return name
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func compress(data []byte) ([]byte, error) {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
