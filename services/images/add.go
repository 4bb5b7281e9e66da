package images

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"
	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/atomicfile"
)

// Source is an image that is to be added to the store.
type Source struct {
	Manifest, Config []byte // of Docker's or OCI's format
	// Layer opens a layer by its place in the manifest, as an uncompressed tar archive.
	// It is called only for layers that no store has.
	Layer func(ctx context.Context, n int) (io.ReadCloser, error)
}

// parts is what the documents of an image say of it.
type parts struct {
	id, digest string // of configuration (hex) and manifest
	created    time.Time
	layers     []part
}

// part is a layer.
type part struct {
	id, parent string // chain of digests, hex
	diff       string // digest of the uncompressed archive
	compressed string // digest in the manifest
	size       int64  // in the manifest
}

const maxParts = 500

// parseParts checks the documents of an image. The ID of a layer is made of the contents
// of all layers below (containers-storage, as in Docker's ChainID).
func parseParts(manifest, config []byte) (p parts, err error) {
	var m struct {
		Config struct {
			Digest string `json:"digest"`
		} `json:"config"`
		Layers []struct {
			Digest string `json:"digest"`
			Size   int64  `json:"size"`
		} `json:"layers"`
	}
	if err := json.Unmarshal(manifest, &m); err != nil {
		return p, fmt.Errorf("its manifest: %w", err)
	}
	var c struct {
		Created time.Time `json:"created"`
		RootFS  struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
		Config struct {
			Labels map[string]string `json:"Labels"`
		} `json:"config"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return p, fmt.Errorf("its configuration: %w", err)
	}
	p.id, p.digest, p.created = hexSum(config), "sha256:"+hexSum(manifest), c.Created
	switch _, walt := c.Config.Labels[modelsLabel]; {
	case m.Config.Digest != "sha256:"+p.id:
		return p, errors.New("its configuration is not that of its manifest")
	case len(m.Layers) == 0 || len(m.Layers) > maxParts || len(m.Layers) != len(c.RootFS.DiffIDs):
		return p, fmt.Errorf("it has %d layers, and describes %d", len(m.Layers), len(c.RootFS.DiffIDs))
	case !walt:
		return p, fmt.Errorf("it has no label %s", modelsLabel)
	}
	parent := ""
	for n, diff := range c.RootFS.DiffIDs {
		sum, ok := strings.CutPrefix(diff, "sha256:")
		if !ok || !digestHex().MatchString(sum) {
			return p, fmt.Errorf("its layer %d has digest %.80q, which is none", n, diff)
		}
		l := part{id: sum, parent: parent, diff: diff, compressed: m.Layers[n].Digest, size: m.Layers[n].Size}
		if parent != "" {
			l.id = hexSum([]byte(parent + "+" + sum))
		}
		p.layers = append(p.layers, l)
		parent = l.id
	}
	return p, nil
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// incoming begins the names of folders of layers that are being unpacked.
const incoming = "walt-incoming-"

// Add stores an image under a full name, which is taken from the image that had it. All
// of the image is there, or nothing; layers are checked against the configuration. Images
// are added one at a time; all else goes on meanwhile.
func (m *Manager) Add(ctx context.Context, fullname string, source Source) error {
	fail := func(err error) error { return fmt.Errorf("cannot store image %s: %w", fullname, err) }
	p, err := parseParts(source.Manifest, source.Config)
	if err != nil {
		return fail(err)
	}
	select {
	case m.adding <- struct{}{}:
	case <-ctx.Done():
		return fail(ctx.Err())
	}
	defer func() { <-m.adding }()
	if err := m.Refresh(ctx); err != nil {
		return fail(err)
	}
	if err := m.removeIncoming(); err != nil {
		return fail(err)
	}
	defer m.removeIncoming() // the next Add does what this cannot
	received := map[string]*receivedLayer{}
	c := m.catalog.Load()
	for n, l := range p.layers {
		if _, err := c.layer(l.id); err == nil {
			continue
		}
		if received[l.id], err = m.receive(ctx, source, n, l); err != nil {
			return fail(fmt.Errorf("layer %d: %w", n, err))
		}
	}
	if err := m.exclusive(ctx, func() error { return m.record(ctx, p, source, received) }); err != nil {
		return fail(err)
	}
	return m.Tag(ctx, p.id, fullname)
}

// receivedLayer is a layer that is unpacked and yet to be recorded.
type receivedLayer struct {
	dir        string // holds diff
	split      []byte // what gives the archive back, with the files
	size       int64  // of the archive
	uids, gids []int
}

func (m *Manager) overlay() string { return filepath.Join(m.config.Store, "overlay") }

// removeIncoming deletes what is left of layers that were not recorded.
func (m *Manager) removeIncoming() error {
	left, err := filepath.Glob(filepath.Join(m.overlay(), incoming+"*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// receive unpacks a layer.
func (m *Manager) receive(ctx context.Context, source Source, n int, l part) (*receivedLayer, error) {
	if err := os.MkdirAll(m.overlay(), 0o700); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(m.overlay(), incoming)
	if err != nil {
		return nil, err
	}
	diff := filepath.Join(dir, "diff")
	if err := os.Mkdir(diff, 0o755); err != nil {
		return nil, err
	}
	archive, err := source.Layer(ctx, n)
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	u, err := newUnpacking(diff)
	if err != nil {
		return nil, err
	}
	defer u.close()

	var split strings.Builder
	packed := gzip.NewWriter(&split)
	sum := sha256.New()
	count := &counter{w: sum}
	described, done, err := asm.NewInputTarStreamWithDone(io.TeeReader(archive, count), storage.NewJSONPacker(packed), nil)
	if err != nil {
		return nil, err
	}
	if err = u.unpack(described); err == nil {
		_, err = io.Copy(io.Discard, described) // what follows the end of the archive is of the digest too
	}
	if err != nil {
		archive.Close() // or what describes it would wait for the rest
		described.Close()
		<-done
		return nil, err
	}
	if err := <-done; err != nil {
		return nil, err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != l.diff {
		return nil, fmt.Errorf("its digest is %.19s, not %.19s", got, l.diff)
	}
	if err := packed.Close(); err != nil {
		return nil, err
	}
	return &receivedLayer{dir: dir, split: []byte(split.String()), size: count.n,
		uids: slices.Sorted(maps.Keys(u.uids)), gids: slices.Sorted(maps.Keys(u.gids))}, nil
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// record makes received layers, and an image of them, those of the store.
func (m *Manager) record(ctx context.Context, p parts, source Source, received map[string]*receivedLayer) error {
	if err := m.read(); err != nil {
		return err
	}
	for n, l := range p.layers {
		if _, err := m.catalog.Load().layer(l.id); err != nil && received[l.id] == nil {
			return fmt.Errorf("layer %d was just removed", n)
		}
	}
	if len(received) > 0 {
		if err := m.recordLayers(ctx, p, received); err != nil {
			return err
		}
	}
	err := m.changeImages(ctx, func(s *containerStore) error {
		if slices.ContainsFunc(s.images, func(i *storedImage) bool { return i.ID == p.id }) {
			return nil
		}
		i, err := s.newImage(p, source)
		s.images = append(s.images, i)
		return err
	})
	return errors.Join(err, m.read())
}

// storedLayerRecord is an element of layers.json as it is written.
type storedLayerRecord struct {
	ID               string    `json:"id"`
	Parent           string    `json:"parent,omitempty"`
	Created          time.Time `json:"created"`
	CompressedDigest string    `json:"compressed-diff-digest,omitempty"`
	CompressedSize   int64     `json:"compressed-size,omitempty"`
	DiffDigest       string    `json:"diff-digest"`
	DiffSize         int64     `json:"diff-size"`
	UIDs             []int     `json:"uidset,omitempty"`
	GIDs             []int     `json:"gidset,omitempty"`
}

func (m *Manager) recordLayers(ctx context.Context, p parts, received map[string]*receivedLayer) error {
	lock, err := lockStore(ctx, filepath.Join(m.config.Store, "overlay-layers", "layers.lock"))
	if err != nil {
		return err
	}
	defer lock.release()
	file := filepath.Join(m.config.Store, "overlay-layers", "layers.json")
	var records []json.RawMessage
	if err := readJSON(file, &records); err != nil {
		return err
	}
	for _, l := range p.layers {
		r := received[l.id]
		if r == nil {
			continue
		}
		if err := m.place(l, r); err != nil {
			return err
		}
		delete(received, l.id) // a layer may come twice
		record, err := json.Marshal(storedLayerRecord{l.id, l.parent, time.Now().UTC(), l.compressed, l.size, l.diff, r.size, r.uids, r.gids})
		if err != nil {
			return err
		}
		records = append(records, record)
	}
	// The records must not come to the disk before what they say.
	dir, err := os.Open(m.overlay())
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return err
	}
	if err := writeJSON(file, records); err != nil {
		return err
	}
	return lock.changed()
}

// place moves a layer to where the overlay driver looks for it.
func (m *Manager) place(l part, r *receivedLayer) error {
	dir := filepath.Join(m.overlay(), l.id)
	// A folder of a layer that was not recorded is in the way.
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	// A short name, because the options of a mount have to fit into a page.
	sum := sha256.Sum256([]byte("link " + l.id))
	short := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16])
	files := map[string][]byte{
		filepath.Join(r.dir, "link"):                                          []byte(short),
		filepath.Join(m.config.Store, "overlay-layers", l.id+".tar-split.gz"): r.split,
	}
	folders := []string{filepath.Join(r.dir, "work"), filepath.Join(r.dir, "merged"), filepath.Join(m.overlay(), "l")}
	if l.parent == "" {
		folders = append(folders, filepath.Join(r.dir, "empty"))
	} else {
		lower, err := m.lower(l.parent)
		if err != nil {
			return err
		}
		files[filepath.Join(r.dir, "lower")] = []byte(lower)
	}
	for _, folder := range folders {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
	}
	for path, content := range files {
		if err := atomicfile.Write(path, content, 0o600); err != nil {
			return err
		}
	}
	link := filepath.Join(m.overlay(), "l", short)
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(filepath.Join("..", l.id, "diff"), link); err != nil {
		return err
	}
	return os.Rename(r.dir, dir)
}

// lower is the file lower of a layer above another: short names, the topmost first.
func (m *Manager) lower(parent string) (string, error) {
	for _, store := range append([]string{m.config.Store}, m.config.ReadOnly...) {
		dir := filepath.Join(store, "overlay", parent)
		link, err := os.ReadFile(filepath.Join(dir, "link"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		below, belowErr := os.ReadFile(filepath.Join(dir, "lower"))
		if err == nil && !errors.Is(belowErr, os.ErrNotExist) {
			err = belowErr
		}
		lower := "l/" + strings.TrimSpace(string(link))
		if len(below) > 0 {
			lower += ":" + strings.TrimSpace(string(below))
		}
		return lower, err
	}
	return "", fmt.Errorf("the layer %.12s below it is missing", parent)
}

// newImage makes the record of an image without a name, with its data.
func (s *containerStore) newImage(p parts, source Source) (*storedImage, error) {
	names := []string{"manifest-" + p.digest, "manifest", "sha256:" + p.id}
	sizes, digests := map[string]int{}, map[string]string{}
	for i, content := range [][]byte{source.Manifest, source.Manifest, source.Config} {
		sizes[names[i]], digests[names[i]] = len(content), "sha256:"+hexSum(content)
		path := s.dataPath(p.id, names[i])
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		if err := atomicfile.Write(path, content, 0o600); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(map[string]any{
		"id": p.id, "digest": p.digest, "layer": p.layers[len(p.layers)-1].id, "metadata": "{}", "created": p.created.UTC(),
		"big-data-names": names, "big-data-sizes": sizes, "big-data-digests": digests,
	})
	if err != nil {
		return nil, err
	}
	i := &storedImage{}
	return i, json.Unmarshal(text, i)
}
