package images

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// busyPause is when an image that could not be unmounted is tried again.
const busyPause = 10 * time.Second

// Manager holds the images of one platform. It is safe for concurrent use; what
// changes something runs one at a time.
type Manager struct {
	config  Config
	keys    *keys
	catalog atomic.Pointer[catalog]
	present atomic.Pointer[map[string]bool] // mounted and prepared images

	turn     chan struct{} // holds a value while something is being changed
	adding   chan struct{} // holds a value while an image is being added
	prepared map[string]bool
	unwanted map[string]time.Time // when to unmount
	exported bool                 // the export files on disk are applied
	devices  []Device             // of the last Reconcile
	planned  chan struct{}        // tells Run that unwanted has changed

	mu   sync.Mutex
	next time.Time // the earliest of unwanted; zero: none
}

// New makes the folders and keys that are missing and reads the stores.
func New(config Config) (*Manager, error) {
	if config.Warn == nil {
		config.Warn = func(string, ...any) {}
	}
	for _, name := range []string{"images", "nodes", "keys", "ssh"} {
		mode := os.FileMode(0o755)
		if name == "keys" {
			mode = 0o700
		}
		if err := os.MkdirAll(filepath.Join(config.State, name), mode); err != nil {
			return nil, fmt.Errorf("cannot keep images: %w", err)
		}
	}
	m := &Manager{
		config:   config,
		turn:     make(chan struct{}, 1),
		adding:   make(chan struct{}, 1),
		prepared: map[string]bool{},
		unwanted: map[string]time.Time{},
		planned:  make(chan struct{}, 1),
	}
	m.present.Store(&map[string]bool{})
	var err error
	if m.keys, err = loadKeys(config); err != nil {
		return nil, err
	}
	return m, m.read()
}

func (m *Manager) read() error {
	c, err := readCatalog(append([]string{m.config.Store}, m.config.ReadOnly...), m.config.Warn)
	if err == nil {
		m.catalog.Store(c)
	}
	return err
}

// exclusive runs f while nothing else changes anything.
func (m *Manager) exclusive(ctx context.Context, f func() error) error {
	select {
	case m.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-m.turn }()
	return f()
}

// Refresh reads the stores again.
func (m *Manager) Refresh(ctx context.Context) error { return m.exclusive(ctx, m.read) }

// List returns all WalT images, with or without names, sorted by first name.
func (m *Manager) List() []Image { return slices.Clone(m.catalog.Load().list) }

// ByName finds an image by full name, as "user/repository:tag".
func (m *Manager) ByName(fullname string) (Image, bool) {
	return m.ByID(m.catalog.Load().names[fullname])
}

// ByID finds an image by its full ID.
func (m *Manager) ByID(id string) (Image, bool) {
	e := m.catalog.Load().images[id]
	if e == nil {
		return Image{}, false
	}
	return e.Image, true
}

// Root returns the mounted root of an image, or "" if it is not mounted.
func (m *Manager) Root(id string) string {
	if !(*m.present.Load())[id] {
		return ""
	}
	return m.mountPoint(id)
}

// BootDir returns the folder below the root that a model's boot files are served
// from, or "" if the image is not mounted.
func (m *Manager) BootDir(id, model string) string {
	root := m.Root(id)
	if root == "" || !validName(model) {
		return ""
	}
	return filepath.Join(root, "boot", model)
}

// Reconcile brings mounts, exports and the tree of nodes in line with devices, all
// of the platform's. An image that cannot be mounted is left out and reported in
// the error; all the rest is done nevertheless.
func (m *Manager) Reconcile(ctx context.Context, devices []Device) error {
	return m.exclusive(ctx, func() error {
		m.devices = slices.Clone(devices)
		return m.reconcile(ctx)
	})
}

func (m *Manager) reconcile(ctx context.Context) error {
	var problems []error
	report := func(err error) {
		if err != nil {
			problems = append(problems, err)
		}
	}
	present, err := m.findMounts()
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	c := m.catalog.Load()
	missing := map[string]bool{}
	for _, d := range m.devices {
		if d.Type != "node" {
			continue
		}
		id := c.names[d.Image]
		if id == "" {
			if !missing[d.Image] {
				missing[d.Image] = true
				report(fmt.Errorf("cannot mount image %q of node %s: no store has it", d.Image, d.Name))
			}
			continue
		}
		wanted[id] = true
	}
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		delete(m.unwanted, id)
		if !present[id] {
			if err := m.mountImage(c.images[id]); err != nil {
				report(err)
				continue
			}
			present[id] = true
			delete(m.prepared, id)
		}
		// What an earlier life of the server mounted is prepared again, once: keys or
		// addresses may have changed. Nothing is written that is right already.
		if !m.prepared[id] {
			m.prepare(ctx, c.images[id])
			m.prepared[id] = true
		}
	}
	m.setPresent(present)

	now := time.Now()
	var exported, expired []string
	for _, id := range slices.Sorted(maps.Keys(present)) {
		if !wanted[id] {
			if _, known := m.unwanted[id]; !known {
				m.unwanted[id] = now.Add(m.config.Grace)
			}
			if !m.unwanted[id].After(now) {
				expired = append(expired, id)
				continue
			}
		}
		exported = append(exported, id)
	}
	// Folders before exports: exportfs refuses a path that does not exist.
	report(m.writeTree(m.devices))
	err = m.writeExports(ctx, exported, m.devices)
	report(err)
	for _, id := range expired {
		// While it may still be exported, it is busy.
		unmountErr := err
		if unmountErr == nil {
			unmountErr = m.unmountImage(id)
			report(unmountErr)
		}
		if unmountErr != nil {
			m.unwanted[id] = now.Add(busyPause)
			continue
		}
		delete(present, id)
		delete(m.unwanted, id)
		delete(m.prepared, id)
		m.setPresent(present)
		m.removeNameless(ctx, id)
	}
	m.setPresent(present)
	m.plan()
	return errors.Join(problems...)
}

func (m *Manager) setPresent(present map[string]bool) {
	copied := maps.Clone(present)
	m.present.Store(&copied)
}

// plan tells Run when the next image is to be unmounted.
func (m *Manager) plan() {
	var next time.Time
	for _, at := range m.unwanted {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	m.mu.Lock()
	m.next = next
	m.mu.Unlock()
	select {
	case m.planned <- struct{}{}:
	default:
	}
}

// Run unmounts images when their grace is over, until ctx ends. It leaves every
// mount in place: they outlive the daemon.
func (m *Manager) Run(ctx context.Context) error {
	if _, err := m.keys.server(); err != nil { // no node shall wait for it
		m.config.Warn("%v", err)
	}
	for {
		m.mu.Lock()
		next := m.next
		m.mu.Unlock()
		var due <-chan time.Time
		if !next.IsZero() {
			due = time.After(max(0, time.Until(next)))
		}
		select {
		case <-m.planned:
		case <-due:
			if err := m.exclusive(ctx, func() error { return m.reconcile(ctx) }); err != nil && ctx.Err() == nil {
				m.config.Warn("%v", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Forget deletes what a node stored on the server. It is to be called when a device is
// forgotten, and only then, after a Reconcile without it.
func (m *Manager) Forget(ctx context.Context, mac string) error {
	if !macAddress().MatchString(mac) {
		return fmt.Errorf("cannot forget device %q: not a MAC address", mac)
	}
	return m.exclusive(ctx, func() error {
		root, err := os.OpenRoot(m.nodes())
		if err != nil {
			return fmt.Errorf("cannot forget device %s: %w", mac, err)
		}
		defer root.Close()
		return root.RemoveAll(mac)
	})
}
