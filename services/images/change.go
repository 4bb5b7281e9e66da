package images

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/atomicfile"
)

// Changes of the writable store follow containers-storage: a lock on images.lock (or
// layers.lock) around reading, changing and replacing the JSON file, then 64 new bytes
// in the lock file, by which podman and buildah notice that they must read it again.

// lockPoll is the pause between two attempts to take a lock that someone holds.
const lockPoll = 20 * time.Millisecond

// lockFile is a lock held on a file of the store.
type lockFile struct{ f *os.File }

func lockStore(ctx context.Context, path string) (*lockFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("cannot lock the image store: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the image store: %w", err)
	}
	for {
		lock := unix.Flock_t{Type: unix.F_WRLCK}
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
		if err == nil {
			return &lockFile{f}, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("cannot lock the image store: %s: %w", path, err)
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("cannot lock the image store: %s: %w", path, ctx.Err())
		}
	}
}

// changed tells others that the files below the lock have changed.
func (l *lockFile) changed() error {
	var mark [64]byte
	rand.Read(mark[:])
	if _, err := l.f.WriteAt(mark[:], 0); err != nil {
		return fmt.Errorf("cannot mark a change of the image store: %w", err)
	}
	return nil
}

func (l *lockFile) release() { l.f.Close() }

// changeImages has f change the images of the writable store, and writes them back.
func (m *Manager) changeImages(ctx context.Context, f func(s *containerStore) error) error {
	lock, err := lockStore(ctx, filepath.Join(m.config.Store, "overlay-images", "images.lock"))
	if err != nil {
		return err
	}
	defer lock.release()
	s, err := readStore(m.config.Store)
	if err != nil {
		return err
	}
	if err := f(s); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(s.dir, "overlay-images", "images.json"), s.images); err != nil {
		return err
	}
	return lock.changed()
}

func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err == nil {
		err = atomicfile.Write(path, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot write the image store: %w", err)
	}
	return nil
}

// Tag gives an image a name, which is taken from the image that had it.
func (m *Manager) Tag(ctx context.Context, id, fullname string) error {
	if !validFullname(fullname) {
		return fmt.Errorf("cannot tag image %.12s: %q is no full name", id, fullname)
	}
	return m.rename(ctx, fullname, id)
}

// Untag takes a name away. An unknown name is no error.
func (m *Manager) Untag(ctx context.Context, fullname string) error {
	return m.rename(ctx, fullname, "")
}

// rename makes a name that of an image, or of none.
func (m *Manager) rename(ctx context.Context, fullname, id string) error {
	return m.exclusive(ctx, func() error {
		if err := m.read(); err != nil {
			return err
		}
		c := m.catalog.Load()
		if id != "" && c.images[id] == nil {
			return fmt.Errorf("cannot tag: no image has ID %q", id)
		}
		name := "docker.io/" + fullname
		err := m.changeImages(ctx, func(s *containerStore) error {
			for _, other := range c.holders(name) {
				if other == id {
					continue
				}
				i, err := s.writable(c, other)
				if err != nil {
					return err
				}
				i.Names = slices.DeleteFunc(i.Names, func(n string) bool { return n == name })
			}
			if id == "" {
				return nil
			}
			i, err := s.writable(c, id)
			if err == nil && !slices.Contains(i.Names, name) {
				i.Names = append([]string{name}, i.Names...)
			}
			return err
		})
		if err = errors.Join(err, m.read()); err != nil {
			return err
		}
		for _, other := range c.holders(name) {
			m.removeNameless(ctx, other)
		}
		return nil
	})
}

// removeNameless deletes an image that has lost its last name, as podman does, unless it
// is mounted: then that is done when it no longer is.
func (m *Manager) removeNameless(ctx context.Context, id string) {
	c := m.catalog.Load()
	if m.Root(id) != "" || c.shipped(id) || slices.ContainsFunc(c.stores[0].images, func(i *storedImage) bool { return i.ID == id && len(i.Names) > 0 }) {
		return
	}
	if err := m.remove(ctx, id); err != nil {
		m.config.Warn("image %.12s has no name any more, and stays: %v", id, err)
	}
}

// shipped tells whether an image is one of a read-only store.
func (c *catalog) shipped(id string) bool {
	return slices.ContainsFunc(c.stores[1:], func(s *containerStore) bool {
		return slices.ContainsFunc(s.images, func(i *storedImage) bool { return i.ID == id })
	})
}

// holders returns the images of all stores that have a name, as podman sees them: a
// record hides one of the same image in a later store.
func (c *catalog) holders(name string) []string {
	var found []string
	seen := map[string]bool{}
	for _, s := range c.stores {
		for _, i := range s.images {
			if !seen[i.ID] && slices.Contains(i.Names, name) {
				found = append(found, i.ID)
			}
			seen[i.ID] = true
		}
	}
	return found
}

// writable returns the record of an image in the writable store s. An image of a
// read-only store gets one there, with its data, as containers-storage does when such
// an image is renamed; its layers stay where they are.
func (s *containerStore) writable(c *catalog, id string) (*storedImage, error) {
	for _, i := range s.images {
		if i.ID == id {
			return i, nil
		}
	}
	for _, from := range c.stores[1:] {
		for _, i := range from.images {
			if i.ID != id {
				continue
			}
			if err := copyData(from, s, id); err != nil {
				return nil, fmt.Errorf("cannot copy the description of image %.12s: %w", id, err)
			}
			copied := *i
			copied.Names = slices.Clone(i.Names)
			copied.raw = maps.Clone(i.raw) // encoding changes it
			s.images = append(s.images, &copied)
			return &copied, nil
		}
	}
	return nil, fmt.Errorf("no store has image %.12s", id)
}

func copyData(from, to *containerStore, id string) error {
	source, target := filepath.Join(from.dir, "overlay-images", id), filepath.Join(to.dir, "overlay-images", id)
	if err := os.MkdirAll(target, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(source)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		content, err := os.ReadFile(filepath.Join(source, e.Name()))
		if err == nil {
			err = atomicfile.Write(filepath.Join(target, e.Name()), content, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Remove deletes an image with its names, and its layers that no other image and no
// container needs. A mounted image is refused. Of an image of a read-only store only
// the names go.
func (m *Manager) Remove(ctx context.Context, id string) error {
	return m.exclusive(ctx, func() error {
		if m.Root(id) != "" {
			return fmt.Errorf("cannot remove image %.12s: it is mounted", id)
		}
		if err := m.read(); err != nil {
			return err
		}
		return m.remove(ctx, id)
	})
}

func (m *Manager) remove(ctx context.Context, id string) error {
	c := m.catalog.Load()
	shipped := c.shipped(id)
	err := m.changeImages(ctx, func(s *containerStore) error {
		if shipped {
			i, err := s.writable(c, id)
			if err == nil {
				i.Names = nil
			}
			return err
		}
		s.images = slices.DeleteFunc(s.images, func(i *storedImage) bool { return i.ID == id })
		return nil
	})
	if err == nil && !shipped && digestHex().MatchString(id) {
		err = os.RemoveAll(filepath.Join(m.config.Store, "overlay-images", id))
	}
	if err == nil {
		err = m.removeLayers(ctx)
	}
	return errors.Join(err, m.read())
}

// removeLayers deletes the layers of the writable store that nothing needs.
func (m *Manager) removeLayers(ctx context.Context) error {
	lock, err := lockStore(ctx, filepath.Join(m.config.Store, "overlay-layers", "layers.lock"))
	if err != nil {
		return err
	}
	defer lock.release()
	s, err := readStore(m.config.Store)
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, "overlay-layers", "layers.json")
	var records []map[string]json.RawMessage
	var volatile []storedLayer
	var containers []struct {
		Layer string `json:"layer"`
	}
	if err := errors.Join(readJSON(path, &records),
		readJSON(filepath.Join(s.dir, "overlay-layers", "volatile-layers.json"), &volatile),
		readJSON(filepath.Join(s.dir, "overlay-containers", "containers.json"), &containers),
		readJSON(filepath.Join(s.dir, "overlay-containers", "volatile-containers.json"), &containers)); err != nil {
		return err
	}
	needed := map[string]bool{}
	keep := func(id string) {
		for id != "" && !needed[id] {
			needed[id] = true
			id = s.layers[id].Parent
		}
	}
	for _, i := range s.images {
		keep(i.Layer)
		var mapped []string // copies of the top layer for other user numbers
		if json.Unmarshal(i.raw["mapped-layers"], &mapped) == nil {
			for _, id := range mapped {
				keep(id)
			}
		}
	}
	for _, l := range volatile {
		keep(l.Parent)
	}
	for _, c := range containers {
		keep(c.Layer)
	}
	var gone []string
	records = slices.DeleteFunc(records, func(r map[string]json.RawMessage) bool {
		var id string
		if json.Unmarshal(r["id"], &id) != nil || needed[id] || !digestHex().MatchString(id) {
			return false
		}
		gone = append(gone, id)
		return true
	})
	if len(gone) == 0 {
		return nil
	}
	if err := errors.Join(writeJSON(path, records), lock.changed()); err != nil {
		return err
	}
	for _, id := range gone {
		dir := s.layers[id].dir
		if short, err := os.ReadFile(filepath.Join(dir, "link")); err == nil && !strings.ContainsAny(string(short), "/.") {
			err := os.Remove(filepath.Join(s.dir, "overlay", "l", string(short)))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cannot remove a layer: %w", err)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("cannot remove a layer: %w", err)
		}
		err := os.Remove(filepath.Join(s.dir, "overlay-layers", id+".tar-split.gz"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove a layer: %w", err)
		}
	}
	return nil
}

// validFullname checks "user/repository:tag".
func validFullname(name string) bool {
	user, rest, ok1 := strings.Cut(name, "/")
	repository, tag, ok2 := strings.Cut(rest, ":")
	valid := func(part string) bool {
		return part != "" && strings.Trim(part, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == "" && !strings.HasPrefix(part, ".")
	}
	return ok1 && ok2 && valid(user) && valid(repository) && valid(tag)
}
