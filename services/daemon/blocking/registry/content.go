package registry

import (
	"context"
	"errors"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
)

// Contents is what an image is made of, but for its layers: what it takes to store it.
// The configuration is that of the digest in the manifest.
type Contents struct {
	Manifest, Config []byte
	// Layers are the digests of the layers, as the manifest has them, with their sizes.
	Layers []Layer
}

// Layer is a layer as the registry keeps it, compressed or not.
type Layer struct {
	Digest string
	Size   int64
}

const (
	maxLayers    = 500
	maxLayer     = 32 << 30 // of a layer as the registry keeps it
	maxUnpacked  = 64 << 30 // of a layer, uncompressed
	layerPortion = 1 << 20
)

// Contents asks what an image is made of.
func (s *Session) Contents(ctx context.Context, full string) (c Contents, err error) {
	i, err := s.image(ctx, full)
	if err != nil {
		return c, err
	}
	if c.Manifest, err = i.RawManifest(); err == nil {
		c.Config, err = i.RawConfigFile()
	}
	if err != nil {
		return c, fmt.Errorf("cannot read what image %s of registry %s is made of: %w", full, s.Label, err)
	}
	manifest, err := i.Manifest()
	if err == nil && len(manifest.Layers) > maxLayers {
		err = errors.New("it has too many layers")
	}
	if err != nil {
		return c, fmt.Errorf("cannot use image %s of registry %s: %w", full, s.Label, err)
	}
	for _, l := range manifest.Layers {
		c.Layers = append(c.Layers, Layer{l.Digest.String(), l.Size})
	}
	return c, nil
}

// ReadLayer reads a layer of an image, which becomes an uncompressed tar archive, in
// portions that are valid until take returns. What comes has the digest, or an error ends
// it.
func (s *Session) ReadLayer(ctx context.Context, full string, layer Layer, take func(portion []byte) error) error {
	err := s.readLayer(ctx, full, layer, take)
	if err != nil {
		return fmt.Errorf("cannot read layer %.19s of image %s of registry %s: %w", layer.Digest, full, s.Label, err)
	}
	return nil
}

func (s *Session) readLayer(ctx context.Context, full string, layer Layer, take func(portion []byte) error) error {
	if _, err := v1.NewHash(layer.Digest); err != nil || layer.Size < 0 || layer.Size > maxLayer {
		return errors.New("it is none, or too long")
	}
	ref, err := s.tag(full)
	if err != nil {
		return err
	}
	found, err := s.puller.Layer(context.WithValue(ctx, layerKey{}, layer.Size), ref.Context().Digest(layer.Digest))
	if err != nil {
		return err
	}
	unpacked, err := partial.CompressedToLayer(found)
	if err != nil {
		return err
	}
	archive, err := unpacked.Uncompressed()
	if err != nil {
		return s.absent(full, err)
	}
	defer archive.Close()
	return portions(archive, take)
}

// portions reads to the end, by portions.
func portions(from io.Reader, take func(portion []byte) error) error {
	buffer := make([]byte, layerPortion)
	for total := int64(0); ; {
		n, err := fill(from, buffer)
		if total += int64(n); total > maxUnpacked {
			return errors.New("it is longer than can be meant")
		}
		if n > 0 {
			if err := take(buffer[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// fill is io.ReadFull that tells the end from an archive that is cut off.
func fill(from io.Reader, buffer []byte) (n int, err error) {
	for n < len(buffer) && err == nil {
		var m int
		m, err = from.Read(buffer[n:])
		n += m
	}
	return n, err
}
