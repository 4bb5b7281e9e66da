package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/waltos/waltos/hcl"
	remote "github.com/waltos/waltos/services/daemon/blocking/registry"
	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/images"
)

// pull stores an image of a registry under its name there. The end of ctx ends it and
// leaves the store as it was.
func (d *Daemon) pull(ctx context.Context, r *hcl.Registry, account remote.Account, full string) error {
	from := remote.Of(r)
	contents, err := d.Registries.Contents(ctx, from, account, full)
	if err != nil {
		return err
	}
	err = d.Images.Add(ctx, full, images.Source{
		Manifest: contents.Manifest, Config: contents.Config,
		Layer: func(ctx context.Context, n int) (io.ReadCloser, error) {
			if n >= len(contents.Layers) {
				return nil, fmt.Errorf("registry %s describes %d layers", r.Label, len(contents.Layers))
			}
			archive, written := io.Pipe()
			go func() {
				written.CloseWithError(d.Registries.ReadLayer(ctx, from, account, full, contents.Layers[n], written))
			}()
			return archive, nil
		},
	})
	if err != nil {
		return err
	}
	return d.stored(ctx, func(ctx context.Context) error { return d.Store.SaveImage(ctx, full) })
}

// download gets an image from the first registry of the site file that has it; a Refusal
// says that none gives it (R4). account tells the account for a registry that asks for
// one, which the Docker Hub does not to give images; without it such registries are left
// out.
func (d *Daemon) download(ctx context.Context, full string, account func(label string) (remote.Account, error)) error {
	var issues, failed []string
	for _, r := range d.Site.Registries {
		var a remote.Account
		var err error
		if r.Label != hubLabel && needsAccount(r) {
			if account == nil {
				issues = append(issues, fmt.Sprintf("Registry '%s' does not allow anonymous pulls, ignored.", r.Label))
				continue
			}
			a, err = account(r.Label)
		}
		if err == nil {
			err = d.pull(ctx, r, a, full)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.Print("%v", err)
		failed = append(failed, "'"+r.Label+"'")
	}
	if len(failed) > 0 {
		issues = append(issues, text.DownloadFailure(full, failed))
	}
	return &text.Refusal{Text: strings.Join(issues, "\n") + "\n"}
}

// await asks for the default image of a node that is recorded as unknown without it.
func (d *Daemon) await(s registry.Sighting, name, model string) {
	d.logf(devicesStream, "Device %s is a walt node of type '%s'.", name, model)
	d.lacking.Store(s.MAC, s)
	d.fetches.poke()
}

// fetchDefaults gets the default images that nodes lack, and registers these again
// (server-state §2.3).
func (d *Daemon) fetchDefaults(ctx context.Context) {
	failed := map[string]bool{}
	d.lacking.Range(func(mac, value any) bool {
		d.lacking.Delete(mac)
		s := value.(registry.Sighting)
		_, model := registry.Identify(s.VCI, s.UCI, s.MAC)
		if !failed[model] && !d.hasDefaultImage(model) {
			failed[model] = !d.fetchDefault(ctx, model)
		}
		if ctx.Err() != nil || failed[model] {
			return ctx.Err() == nil
		}
		if _, err := d.register(ctx, s); err != nil {
			d.Print("cannot register node %s: %v", s.MAC, err)
		}
		return true
	})
}

func (d *Daemon) fetchDefault(ctx context.Context, model string) bool {
	full := registry.DefaultImage(model)
	d.logf(devicesStream, "Trying to download a default image for '%s' nodes: %s...", model, full)
	err := d.download(ctx, full, nil)
	var refusal *text.Refusal
	switch {
	case ctx.Err() != nil:
		return false
	case errors.As(err, &refusal):
		for line := range strings.Lines(text.Decapitalize(refusal.Text)) {
			d.logf(devicesStream, "%s", strings.TrimSuffix(line, "\n"))
		}
		d.logf(devicesStream, "New %s nodes will be seen as devices of type 'unknown' until this is solved.", model)
		return false
	}
	d.logf(devicesStream, "Image %s was downloaded successfully.", full)
	return true
}
