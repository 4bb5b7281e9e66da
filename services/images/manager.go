package images

import (
	"context"
	"errors"
)

// Manager holds the images of one platform. It is safe for concurrent use;
// operations that change something run one at a time.
type Manager struct {
	config Config
}

// New makes the folders that are missing and reads the stores.
func New(config Config) (*Manager, error) {
	return &Manager{config: config}, errors.New("not built yet")
}

// Run unmounts images when their grace is over, until ctx ends. It leaves every
// mount in place: they outlive the daemon.
func (m *Manager) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Refresh reads the stores again.
func (m *Manager) Refresh(ctx context.Context) error { return nil }

// List returns all WalT images, with or without names, sorted by first name.
func (m *Manager) List() []Image { return nil }

// ByName finds an image by full name, as "user/repository:tag".
func (m *Manager) ByName(fullname string) (Image, bool) { return Image{}, false }

// ByID finds an image by its full ID.
func (m *Manager) ByID(id string) (Image, bool) { return Image{}, false }

// Tag gives an image a name, which is taken from the image that had it. An image
// without any name left is removed, unless it is mounted.
func (m *Manager) Tag(ctx context.Context, id, fullname string) error { return nil }

// Untag takes a name away. An unknown name is no error.
func (m *Manager) Untag(ctx context.Context, fullname string) error { return nil }

// Remove deletes an image with all its names.
func (m *Manager) Remove(ctx context.Context, id string) error { return nil }

// Reconcile brings mounts, exports and the tree of nodes in line with devices, all
// of the platform's. An image that cannot be mounted is left out and reported in
// the error; all the rest is done nevertheless.
func (m *Manager) Reconcile(ctx context.Context, devices []Device) error { return nil }

// Root returns the mounted root of an image, or "" if it is not mounted.
func (m *Manager) Root(id string) string { return "" }

// BootDir returns the folder below the root that a model's boot files are served
// from, or "" if the image is not mounted.
func (m *Manager) BootDir(id, model string) string { return "" }

// Forget deletes what nodes stored on the server: to be called when a device is
// forgotten, and only then.
func (m *Manager) Forget(ctx context.Context, mac string) error { return nil }
