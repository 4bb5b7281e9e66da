package images

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/waltos/waltos/services/internal/pattern"
)

// maxMetadata bounds the files of a store that are read whole; images.json of a
// thousand images is some 4 MiB.
const maxMetadata = 256 << 20

// storedImage is an element of overlay-images/images.json; raw keeps the fields that
// are not ours to know when the file is written again.
type storedImage struct {
	ID      string    `json:"id"`
	Digest  string    `json:"digest"`
	Names   []string  `json:"names"`
	Layer   string    `json:"layer"`
	Created time.Time `json:"created"`

	raw map[string]json.RawMessage
}

func (i *storedImage) UnmarshalJSON(text []byte) error {
	type plain storedImage
	if err := json.Unmarshal(text, (*plain)(i)); err != nil {
		return err
	}
	return json.Unmarshal(text, &i.raw)
}

func (i *storedImage) MarshalJSON() ([]byte, error) {
	if len(i.Names) == 0 {
		delete(i.raw, "names")
		return json.Marshal(i.raw)
	}
	names, err := json.Marshal(i.Names)
	if err != nil {
		return nil, err
	}
	i.raw["names"] = names
	return json.Marshal(i.raw)
}

// storedLayer is an element of overlay-layers/layers.json.
type storedLayer struct {
	ID     string `json:"id"`
	Parent string `json:"parent"`
	Size   int64  `json:"diff-size"`

	dir string // of the layer in its store
}

// containerStore is a folder with the layout of containers-storage.
type containerStore struct {
	dir    string
	images []*storedImage
	layers map[string]storedLayer
}

var digestHex = pattern.Lazy(`^[0-9a-f]{64}$`)

// readStore reads a store; one that does not exist is empty. Its files are replaced
// atomically by whoever changes them, and layers before the images that need them,
// so no lock is needed to read images first, then layers.
func readStore(dir string) (*containerStore, error) {
	s := &containerStore{dir: dir, layers: map[string]storedLayer{}}
	if err := readJSON(filepath.Join(dir, "overlay-images", "images.json"), &s.images); err != nil {
		return nil, err
	}
	s.images = slices.DeleteFunc(s.images, func(i *storedImage) bool { return i == nil }) // of a null
	// Layers of running containers are listed apart, in volatile-layers.json; images
	// are never made of them.
	var layers []storedLayer
	if err := readJSON(filepath.Join(dir, "overlay-layers", "layers.json"), &layers); err != nil {
		return nil, err
	}
	for _, l := range layers {
		if digestHex().MatchString(l.ID) {
			l.dir = filepath.Join(dir, "overlay", l.ID)
			s.layers[l.ID] = l
		}
	}
	return s, nil
}

// readJSON leaves v alone if there is no such file.
func readJSON(path string, v any) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the image store: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxMetadata))
	if err == nil && len(text) > 0 {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		return fmt.Errorf("cannot read the image store: %s: %w", path, err)
	}
	return nil
}

// dataPath names the file of a piece of "big data" of an image: its manifest, its
// configuration (storage, makeBigDataBaseName).
func (s *containerStore) dataPath(id, key string) string {
	name := key
	if strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789.") != "" {
		name = "=" + base64.StdEncoding.EncodeToString([]byte(key))
	}
	return filepath.Join(s.dir, "overlay-images", id, name)
}

// configuration is what the configuration of an image, of Docker's or OCI's format,
// says of it.
type configuration struct {
	Created time.Time `json:"created"`
	Config  struct {
		Labels map[string]string `json:"Labels"`
	} `json:"config"`
}

func (s *containerStore) configuration(i *storedImage) (c configuration, err error) {
	var manifest struct {
		Config struct {
			Digest string `json:"digest"`
		} `json:"config"`
	}
	if err := readJSON(s.dataPath(i.ID, "manifest"), &manifest); err != nil {
		return c, err
	}
	key := manifest.Config.Digest
	if key == "" {
		key = "sha256:" + i.ID
	}
	return c, readJSON(s.dataPath(i.ID, key), &c)
}

// catalog is what all stores hold together. It is never changed once made.
type catalog struct {
	stores []*containerStore // in order of search; the first is the writable one
	images map[string]*entry // WalT images by ID
	names  map[string]string // full name to ID
	list   []Image           // sorted by first name, then ID
}

// entry is an image with what mounting it takes.
type entry struct {
	Image
	lower []string // folders of its layers, the topmost first
}

// readCatalog reads the stores. An image that is not complete is left out and
// reported, whatever it is: another may stand under its name in the next store.
func readCatalog(dirs []string, warn func(string, ...any)) (*catalog, error) {
	c := &catalog{images: map[string]*entry{}, names: map[string]string{}}
	for _, dir := range dirs {
		s, err := readStore(dir)
		if err != nil {
			return nil, err
		}
		c.stores = append(c.stores, s)
	}
	for _, s := range c.stores {
		for _, i := range s.images {
			if _, known := c.images[i.ID]; known || !digestHex().MatchString(i.ID) {
				continue // a record of the same image in a store before counts
			}
			e, err := c.entry(s, i)
			if err != nil {
				warn("image %s of %s is not usable: %v", i.ID[:12], s.dir, err)
				continue
			}
			if e == nil {
				continue
			}
			c.images[i.ID] = e
			for _, name := range i.Names {
				if fullname, ok := strings.CutPrefix(name, "docker.io/"); ok && c.names[fullname] == "" {
					c.names[fullname] = i.ID
					e.Names = append(e.Names, fullname)
				}
			}
			slices.Sort(e.Names)
		}
	}
	for _, e := range c.images {
		c.list = append(c.list, e.Image)
	}
	slices.SortFunc(c.list, func(a, b Image) int {
		if n := slices.Compare(a.Names, b.Names); n != 0 {
			return n
		}
		return strings.Compare(a.ID, b.ID)
	})
	return c, nil
}

// modelsLabel makes an image one of WalT.
const modelsLabel = "walt.node.models"

// entry returns nil for an image that is not one of WalT.
func (c *catalog) entry(s *containerStore, i *storedImage) (*entry, error) {
	config, err := s.configuration(i)
	if err != nil {
		return nil, err
	}
	models, ok := config.Config.Labels[modelsLabel]
	if !ok {
		return nil, nil
	}
	e := &entry{Image: Image{ID: i.ID, Digest: i.Digest, Labels: config.Config.Labels, Created: config.Created}}
	if e.Created.IsZero() {
		e.Created = i.Created
	}
	for m := range strings.SplitSeq(models, ",") {
		if m = strings.TrimSpace(m); m != "" {
			e.Models = append(e.Models, m)
		}
	}
	for id := i.Layer; id != ""; {
		layer, err := c.layer(id)
		if err != nil {
			return nil, err
		}
		if e.Layers++; e.Layers > 1000 {
			return nil, errors.New("its layers are in a circle")
		}
		e.lower = append(e.lower, filepath.Join(layer.dir, "diff"))
		e.Size += layer.Size
		id = layer.Parent
	}
	if len(e.lower) == 0 {
		return nil, errors.New("it has no layer")
	}
	return e, nil
}

// layer finds a layer in any store, with its content.
func (c *catalog) layer(id string) (storedLayer, error) {
	for _, s := range c.stores {
		if l, ok := s.layers[id]; ok {
			if _, err := os.Stat(filepath.Join(l.dir, "diff")); err == nil {
				return l, nil
			}
		}
	}
	return storedLayer{}, fmt.Errorf("its layer %.12s is missing", id)
}
