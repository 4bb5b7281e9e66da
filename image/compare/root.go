package compare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/waltos/waltos/image/gpt"
)

// Root holds the files of a root partition, until Close.
type Root struct {
	parts map[string]part
	close func()
}

// OpenRoot unpacks the root that a partition of a disk image holds.
func (c *Comparer) OpenRoot(ctx context.Context, disk, partition string) (*Root, error) {
	f, err := os.Open(disk)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	root, err := c.openRoot(ctx, f, partition)
	if err != nil {
		return nil, fmt.Errorf("cannot read partition %s of %s: %w", partition, disk, err)
	}
	return root, nil
}

func (c *Comparer) openRoot(ctx context.Context, f *os.File, partition string) (*Root, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	table, err := gpt.Read(f, info.Size())
	if err != nil {
		return nil, err
	}
	_, p := table.Find(partition)
	if p == nil {
		return nil, errors.New("no such partition")
	}
	parts, remove, ok, err := openEROFS(&comparison{Comparer: c, ctx: ctx}, io.NewSectionReader(f, p.Offset(), p.Size()))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errors.New("it holds no EROFS")
	}
	return &Root{parts, remove}, nil
}

// Close removes what was unpacked.
func (r *Root) Close() { r.close() }

// Read returns the content of a regular file, or nothing if it is not there.
func (r *Root) Read(name string) ([]byte, bool) {
	p, ok := r.parts[name]
	if !ok || p.content == nil {
		return nil, false
	}
	content, err := io.ReadAll(io.NewSectionReader(p.content, 0, p.content.Size()))
	return content, err == nil
}

// Names calls visit for every path in no order.
func (r *Root) Names(visit func(name string)) {
	for name := range r.parts {
		if strings.HasPrefix(name, "/") {
			visit(name)
		}
	}
}

// Size returns the length of a regular file in bytes, 0 of anything else.
func (r *Root) Size(name string) int64 {
	if p := r.parts[name]; p.content != nil {
		return p.content.Size()
	}
	return 0
}

// Same reports whether a path is the same in both: owner, mode and content, not time.
func (r *Root) Same(o *Root, name string) (bool, error) {
	a, b := r.parts[name], o.parts[name]
	if a.about != b.about || (a.content == nil) != (b.content == nil) {
		return false, nil
	}
	if a.content == nil {
		return true, nil
	}
	return equal(a.content, b.content)
}
